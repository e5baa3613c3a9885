//! GPUs by sysfs: display controllers on the PCI bus of the vendors we know,
//! with a driver that sandboxes can use. No vendor library is needed.

use std::fs;
use std::path::{Path, PathBuf};

use wolfpack_proto::types::v1::{GpuDevice, GpuVendor as ProtoVendor};
use wolfpack_types::capacity::GpuVendor;

use super::{Roots, number};
use crate::sandbox::GpuAccess;

/// PCI base class of display controllers.
const DISPLAY: u64 = 0x03;
/// Drivers through which a container can use a device.
const DRIVERS: [&str; 4] = ["nvidia", "amdgpu", "i915", "xe"];
/// The longest texts the registry takes.
const MODEL_LEN: usize = 128;
const VERSION_LEN: usize = 64;

/// Who made a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
}

impl From<Vendor> for GpuVendor {
    fn from(vendor: Vendor) -> Self {
        match vendor {
            Vendor::Nvidia => Self::Nvidia,
            Vendor::Amd => Self::Amd,
            Vendor::Intel => Self::Intel,
        }
    }
}

impl Vendor {
    fn of_pci(id: u64) -> Option<Self> {
        match id {
            0x10de => Some(Self::Nvidia),
            0x1002 => Some(Self::Amd),
            0x8086 => Some(Self::Intel),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
        }
    }
}

/// One GPU of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// The vendor's UUID where the driver tells it, else the PCI address.
    pub id: String,
    /// The vendor.
    pub vendor: Vendor,
    /// The model as the driver names it, else vendor and PCI device id.
    pub model: String,
    /// Memory in bytes, where the driver tells it.
    pub memory_bytes: Option<u64>,
    /// PCI address.
    pub pci_address: String,
    /// Version of the driver; empty when it does not say.
    pub driver_version: String,
    /// How a container gets at it.
    pub access: GpuAccess,
}

impl Gpu {
    pub(super) fn to_proto(&self) -> GpuDevice {
        let vendor = match self.vendor {
            Vendor::Nvidia => ProtoVendor::Nvidia,
            Vendor::Amd => ProtoVendor::Amd,
            Vendor::Intel => ProtoVendor::Intel,
        };
        GpuDevice {
            id: self.id.clone(),
            vendor: vendor.into(),
            model: self.model.clone(),
            memory_bytes: self.memory_bytes,
            pci_address: self.pci_address.clone(),
            driver_version: self.driver_version.clone(),
            ..GpuDevice::default()
        }
    }
}

/// The usable GPUs of the host, by PCI address.
pub(super) fn discover(roots: &Roots) -> Vec<Gpu> {
    let Ok(entries) = fs::read_dir(roots.sys.join("bus/pci/devices")) else { return Vec::new() };
    let mut devices: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    devices.sort();
    devices.iter().filter_map(|device| read(roots, device)).collect()
}

fn read(roots: &Roots, device: &Path) -> Option<Gpu> {
    if hex(&device.join("class"))? >> 16 != DISPLAY {
        return None;
    }
    let vendor = Vendor::of_pci(hex(&device.join("vendor"))?)?;
    let driver = fs::read_link(device.join("driver")).ok()?;
    let driver = driver.file_name()?.to_str()?.to_owned();
    if !DRIVERS.contains(&driver.as_str()) {
        return None;
    }
    let pci_address = device.file_name()?.to_str()?.to_owned();
    let unnamed = || format!("{} {:#06x}", vendor.name(), hex(&device.join("device")).unwrap_or(0));
    let version = text(&roots.sys.join("module").join(&driver).join("version"), VERSION_LEN);
    let common = |id: String, model: Option<String>, access| Gpu {
        id,
        vendor,
        model: model.unwrap_or_else(unnamed),
        memory_bytes: number(&device.join("mem_info_vram_total")).filter(|bytes| *bytes > 0),
        pci_address: pci_address.clone(),
        driver_version: version.clone().unwrap_or_default(),
        access,
    };
    if vendor == Vendor::Nvidia {
        let information =
            roots.proc.join("driver/nvidia/gpus").join(&pci_address).join("information");
        let told = fs::read_to_string(information).unwrap_or_default();
        let id = field(&told, "GPU UUID").unwrap_or_else(|| pci_address.clone());
        return Some(common(id.clone(), field(&told, "Model"), GpuAccess::Nvidia { id }));
    }
    let nodes = device_nodes(roots, device, vendor);
    if nodes.is_empty() {
        return None;
    }
    let model = text(&device.join("product_name"), MODEL_LEN);
    Some(common(pci_address.clone(), model, GpuAccess::Nodes(nodes)))
}

/// The nodes in `/dev` through which a device is used.
fn device_nodes(roots: &Roots, device: &Path, vendor: Vendor) -> Vec<PathBuf> {
    let entries = fs::read_dir(device.join("drm")).into_iter().flatten().flatten();
    let mut nodes: Vec<PathBuf> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("renderD") || name.starts_with("card"))
        .map(|name| Path::new("dri").join(name))
        .collect();
    if vendor == Vendor::Amd && !nodes.is_empty() {
        nodes.push("kfd".into());
    }
    nodes.sort();
    nodes.retain(|node| roots.dev.join(node).exists());
    nodes.into_iter().map(|node| Path::new("/dev").join(node)).collect()
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
