//! GPUs by sysfs: display controllers on the PCI bus of the vendors we know,
//! with a driver that sandboxes can use. No vendor library is needed. The roots
//! are parameters, so that tests give made trees.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{Vendor, encoders};
use crate::inventory::{Roots, number};

/// PCI base class of display controllers.
const DISPLAY: u64 = 0x03;
/// Drivers through which a container can use a device.
const DRIVERS: [&str; 4] = ["nvidia", "amdgpu", "i915", "xe"];
/// The longest texts the registry takes.
const MODEL_LEN: usize = 128;
const VERSION_LEN: usize = 64;

/// A device on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PciGpu {
    pub(super) vendor: Vendor,
    /// Such as `0000:01:00.0`.
    pub(super) address: String,
    /// What the vendor calls the model.
    pub(super) device_id: Option<u64>,
    /// The model, as driver or table name it.
    pub(super) model: String,
    /// NVIDIA's driver tells it; others have none.
    pub(super) uuid: Option<String>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) driver_version: String,
    /// Nodes as containers and the engine name them.
    pub(super) nodes: Vec<Node>,
    pub(super) readings: Readings,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    /// The group that may use it.
    pub(super) group: u32,
    /// Whether everybody may use it.
    pub(super) open: bool,
}

/// What was measured; what was not is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Readings {
    pub(super) memory_total: Option<u64>,
    pub(super) memory_used: Option<u64>,
    pub(super) utilisation: Option<u32>,
    pub(super) temperature: Option<i32>,
    pub(super) encoder_sessions: Option<u32>,
}

/// The usable GPUs of the host, by PCI address.
pub(super) fn scan(roots: &Roots) -> Vec<PciGpu> {
    let Ok(entries) = fs::read_dir(roots.sys.join("bus/pci/devices")) else { return Vec::new() };
    let mut devices: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    devices.sort();
    devices.iter().filter_map(|device| read(roots, device)).collect()
}

fn read(roots: &Roots, device: &Path) -> Option<PciGpu> {
    if hex(&device.join("class"))? >> 16 != DISPLAY {
        return None;
    }
    let vendor = Vendor::of_pci(hex(&device.join("vendor"))?)?;
    let driver = fs::read_link(device.join("driver")).ok()?;
    let driver = driver.file_name()?.to_str()?.to_owned();
    if !DRIVERS.contains(&driver.as_str()) {
        return None;
    }
    let address = device.file_name()?.to_str()?.to_ascii_lowercase();
    let device_id = hex(&device.join("device"));
    let version = text(&roots.sys.join("module").join(&driver).join("version"), VERSION_LEN);
    let (uuid, told) = if vendor == Vendor::Nvidia {
        let path = roots.proc.join("driver/nvidia/gpus").join(&address).join("information");
        let information = fs::read_to_string(path).unwrap_or_default();
        (field(&information, "GPU UUID"), field(&information, "Model"))
    } else {
        (None, text(&device.join("product_name"), MODEL_LEN))
    };
    let readings = readings(device, vendor);
    Some(PciGpu {
        vendor,
        model: told
            .or_else(|| encoders::name_of(vendor, device_id?))
            .unwrap_or_else(|| format!("{} {:#06x}", vendor.name(), device_id.unwrap_or(0))),
        memory_bytes: readings.memory_total.filter(|bytes| *bytes > 0),
        nodes: nodes(roots, device, vendor),
        address,
        device_id,
        uuid,
        driver_version: version.unwrap_or_default(),
        readings,
    })
}

/// What the drivers of AMD and Intel tell in files. NVIDIA's tells nothing.
fn readings(device: &Path, vendor: Vendor) -> Readings {
    let memory_total = match vendor {
        Vendor::Nvidia => None,
        Vendor::Amd => number(&device.join("mem_info_vram_total")),
        Vendor::Intel => intel_memory(device),
    };
    Readings {
        memory_total,
        memory_used: number(&device.join("mem_info_vram_used")),
        utilisation: number(&device.join("gpu_busy_percent"))
            .and_then(|percent| u32::try_from(percent).ok()),
        temperature: temperature(device),
        encoder_sessions: None,
    }
}

/// Memory of a card of Intel's: its tiles' by xe, the local memory's size by
/// i915 where it tells. An integrated one has none of its own.
fn intel_memory(device: &Path) -> Option<u64> {
    let entries = fs::read_dir(device).ok()?.flatten();
    let tiles: Vec<u64> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("tile"))
        .filter_map(|entry| number(&entry.path().join("physical_vram_size_bytes")))
        .collect();
    if !tiles.is_empty() {
        return Some(tiles.iter().sum());
    }
    let cards = fs::read_dir(device.join("drm")).ok()?.flatten();
    let mut sizes = cards.filter_map(|card| number(&card.path().join("lmem_total_bytes")));
    sizes.next()
}

fn temperature(device: &Path) -> Option<i32> {
    let mut monitors: Vec<PathBuf> =
        fs::read_dir(device.join("hwmon")).ok()?.flatten().map(|entry| entry.path()).collect();
    monitors.sort();
    let milli = monitors.iter().find_map(|monitor| number(&monitor.join("temp1_input")))?;
    i32::try_from(milli / 1_000).ok()
}

/// The nodes in `/dev` through which a device is used.
fn nodes(roots: &Roots, device: &Path, vendor: Vendor) -> Vec<Node> {
    if vendor == Vendor::Nvidia {
        return Vec::new();
    }
    let entries = fs::read_dir(device.join("drm")).into_iter().flatten().flatten();
    let mut names: Vec<PathBuf> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("renderD") || is_card(name))
        .map(|name| Path::new("dri").join(name))
        .collect();
    if vendor == Vendor::Amd && !names.is_empty() {
        names.push("kfd".into());
    }
    names.sort();
    let node = |name: PathBuf| {
        let found = fs::metadata(roots.dev.join(&name)).ok()?;
        Some(Node {
            path: Path::new("/dev").join(name),
            group: found.gid(),
            open: found.permissions().mode() & 0o006 == 0o006,
        })
    };
    names.into_iter().filter_map(node).collect()
}

/// `card0`, not its connectors such as `card0-DP-1`.
fn is_card(name: &str) -> bool {
    let number = name.strip_prefix("card").unwrap_or("");
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

fn hex(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

fn text(path: &Path, most: usize) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().chars().take(most).collect::<String>()).filter(|text| !text.is_empty())
}

/// `Name: value` of a driver's information file.
fn field(text: &str, name: &str) -> Option<String> {
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    let value: String = value.trim().chars().take(MODEL_LEN).collect();
    // A driver that has not looked yet writes question marks.
    (!value.is_empty() && !value.contains('?')).then_some(value)
}
