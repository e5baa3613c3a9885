//! From what the kernel, NVIDIA's library and its tools told to one list of
//! devices. Pure.

use std::path::{Path, PathBuf};

use wolfpack_proto::types::v1::GpuTelemetry;
use wolfpack_types::capacity::EncoderCodec;

use super::cdi::{self, CdiDevice};
use super::encoders::{self, Encoder};
use super::mig::MigInstance;
use super::nvml::{NvmlDevice, NvmlFault, NvmlReading};
use super::sysfs::{Node, PciGpu, Readings};
use super::telemetry::{failed, judged};
use super::toolkit::Toolkit;
use super::{Found, Gpu, Vendor};
use crate::sandbox::GpuAccess;

/// All that was told.
pub(super) struct Told {
    pub(super) pci: Vec<PciGpu>,
    pub(super) nvml: Result<NvmlReading, NvmlFault>,
    pub(super) instances: Vec<MigInstance>,
    /// `None` where there is no device of NVIDIA's.
    pub(super) toolkit: Option<Toolkit>,
    pub(super) cdi: Vec<CdiDevice>,
    pub(super) remapped: bool,
    /// Encoder sessions where the table knows none.
    pub(super) encoder_sessions: Option<u32>,
}

/// A device before it is known how containers get at it.
struct Draft {
    gpu: Gpu,
    telemetry: Option<GpuTelemetry>,
    nodes: Vec<Node>,
    /// `/dev/nvidiaN` of one of NVIDIA's.
    nvidia_node: Option<PathBuf>,
}

/// The devices.
pub(super) fn assemble(told: &Told) -> Found {
    let mut drafts = nvidia(told);
    drafts.extend(others(told));
    drafts.sort_by(|one, other| {
        (&one.gpu.pci_address, &one.gpu.id).cmp(&(&other.gpu.pci_address, &other.gpu.id))
    });
    drafts.dedup_by(|one, other| one.gpu.id == other.gpu.id);
    let accesses: Vec<(GpuAccess, Option<String>)> =
        (0..drafts.len()).map(|index| access(&drafts, index, told)).collect();
    let mut found = Found::default();
    for (draft, (access, withheld)) in drafts.into_iter().zip(accesses) {
        let mut gpu = Gpu { access, ..draft.gpu };
        gpu.withheld = gpu.withheld.or(withheld);
        gpu.encoder = gpu.encoder.or_else(|| {
            told.encoder_sessions.map(|sessions| Encoder {
                sessions,
                pooled: false,
                codecs: if sessions > 0 { vec![EncoderCodec::H264] } else { Vec::new() },
            })
        });
        found.telemetry.extend(draft.telemetry);
        found.gpus.push(gpu);
    }
    found
}

/// Those of NVIDIA's: as the library tells them; where it does not, as the
/// kernel does.
fn nvidia(told: &Told) -> Vec<Draft> {
    let on_bus: Vec<&PciGpu> = told.pci.iter().filter(|gpu| gpu.vendor == Vendor::Nvidia).collect();
    let reading = match &told.nvml {
        Ok(reading) => reading,
        Err(fault) => {
            let telemetry = |id: &str| match fault {
                // Nobody measures: nothing is known, and nothing is wrong.
                NvmlFault::Absent(_) => None,
                NvmlFault::Failed(why) => Some(failed(id, &format!("NVML does not answer: {why}"))),
            };
            return on_bus.iter().map(|gpu| from_bus(gpu, telemetry)).collect();
        }
    };
    let mut drafts: Vec<Draft> = Vec::new();
    for device in &reading.devices {
        drafts.extend(from_nvml(device, &reading.driver_version, &on_bus, &told.instances));
    }
    // The kernel has it, the library does not: it fell off the bus, or it broke.
    for gpu in on_bus {
        let known = |device: &NvmlDevice| {
            address(&device.pci_bus_id) == gpu.address || Some(&device.uuid) == gpu.uuid.as_ref()
        };
        if !reading.devices.iter().any(known) {
            drafts.push(from_bus(gpu, |id| {
                Some(failed(id, "NVIDIA's driver does not answer for this device any more"))
            }));
        }
    }
    drafts
}

fn from_bus(gpu: &PciGpu, telemetry: impl Fn(&str) -> Option<GpuTelemetry>) -> Draft {
    let id = gpu.uuid.clone().unwrap_or_else(|| gpu.address.clone());
    Draft {
        telemetry: telemetry(&id),
        gpu: Gpu {
            access: GpuAccess::Nvidia { id: id.clone() },
            id,
            vendor: gpu.vendor,
            model: gpu.model.clone(),
            memory_bytes: gpu.memory_bytes,
            pci_address: gpu.address.clone(),
            driver_version: gpu.driver_version.clone(),
            encoder: encoders::encoder_of(gpu.vendor, &gpu.model, gpu.device_id),
            withheld: None,
        },
        nodes: gpu.nodes.clone(),
        nvidia_node: None,
    }
}

fn from_nvml(
    device: &NvmlDevice,
    driver: &str,
    on_bus: &[&PciGpu],
    instances: &[MigInstance],
) -> Vec<Draft> {
    let pci_address = address(&device.pci_bus_id);
    let on_bus = on_bus.iter().find(|gpu| gpu.address == pci_address);
    let model = if device.name.is_empty() {
        on_bus.map_or_else(|| "NVIDIA".to_owned(), |gpu| gpu.model.clone())
    } else {
        device.name.chars().take(128).collect()
    };
    let readings = Readings {
        memory_total: device.memory_total,
        memory_used: device.memory_used,
        utilisation: device.utilisation,
        temperature: device.temperature.and_then(|degrees| i32::try_from(degrees).ok()),
        encoder_sessions: device.encoder_sessions,
    };
    let whole = Gpu {
        id: device.uuid.clone(),
        vendor: Vendor::Nvidia,
        encoder: encoders::encoder_of(Vendor::Nvidia, &model, on_bus.and_then(|gpu| gpu.device_id)),
        model,
        memory_bytes: device.memory_total.filter(|bytes| *bytes > 0),
        pci_address,
        driver_version: driver.chars().take(64).collect(),
        access: GpuAccess::Nvidia { id: device.uuid.clone() },
        withheld: None,
    };
    let told = |id: &str, readings: &Readings| judged(id, readings, device.fault.as_deref());
    if !device.mig {
        return vec![Draft {
            telemetry: Some(told(&whole.id, &readings)),
            nvidia_node: device.minor.map(|minor| PathBuf::from(format!("/dev/nvidia{minor}"))),
            nodes: Vec::new(),
            gpu: whole,
        }];
    }
    let parts: Vec<Draft> = instances
        .iter()
        .filter(|instance| instance.parent == device.uuid)
        .map(|instance| {
            // Of an instance only its GPU's temperature is known.
            let temperature = readings.temperature;
            let of_parent = Readings { temperature, ..Readings::default() };
            Draft {
                telemetry: Some(told(&instance.uuid, &of_parent)),
                gpu: Gpu {
                    id: instance.uuid.clone(),
                    model: format!("{} MIG {}", whole.model, instance.profile),
                    memory_bytes: instance.memory_bytes(),
                    access: GpuAccess::Nvidia { id: instance.uuid.clone() },
                    // No instance of any generation in the table encodes.
                    encoder: Some(Encoder { sessions: 0, pooled: false, codecs: Vec::new() }),
                    ..whole.clone()
                },
                nodes: Vec::new(),
                nvidia_node: None,
            }
        })
        .collect();
    if parts.is_empty() {
        let withheld = format!(
            "{} is cut into instances (MIG) and nvidia-smi names none: make some, or turn MIG off",
            whole.id
        );
        return vec![Draft {
            telemetry: Some(told(&whole.id, &readings)),
            gpu: Gpu { withheld: Some(withheld), ..whole },
            nodes: Vec::new(),
            nvidia_node: None,
        }];
    }
    parts
}

/// AMD's and Intel's, that are used through their nodes.
fn others(told: &Told) -> impl Iterator<Item = Draft> {
    let usable = |gpu: &&PciGpu| gpu.vendor != Vendor::Nvidia && !gpu.nodes.is_empty();
    told.pci.iter().filter(usable).map(|gpu| {
        let draft = from_bus(gpu, |id| Some(judged(id, &gpu.readings, None)));
        Draft { gpu: Gpu { id: gpu.address.clone(), ..draft.gpu }, ..draft }
    })
}

/// How a container gets at one device and no other, and why it cannot.
fn access(drafts: &[Draft], index: usize, told: &Told) -> (GpuAccess, Option<String>) {
    let draft = &drafts[index];
    let nodes = |draft: &Draft| -> Vec<PathBuf> {
        let own = draft.nodes.iter().map(|node| node.path.clone());
        // Every device of AMD's has this one.
        own.filter(|path| path != Path::new("/dev/kfd")).chain(draft.nvidia_node.clone()).collect()
    };
    let own = nodes(draft);
    let foreign: Vec<PathBuf> = drafts
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != index)
        .flat_map(|(_, other)| nodes(other))
        .filter(|path| !own.contains(path))
        .collect();
    let kind = format!("{}.com/gpu", draft.gpu.vendor.word());
    let nvidia = draft.gpu.vendor == Vendor::Nvidia;
    let uuid = nvidia.then_some(draft.gpu.id.as_str());
    let by_cdi = cdi::name_of(&told.cdi, &kind, uuid, &own, &foreign);
    if nvidia {
        let id = draft.gpu.id.clone();
        let access = match by_cdi {
            Some(name) => GpuAccess::Cdi { name, nvidia: Some(id) },
            None => GpuAccess::Nvidia { id },
        };
        let withheld = match &told.toolkit {
            Some(Toolkit::Refused(why)) => Some(why.clone()),
            Some(Toolkit::Usable(_)) | None => None,
        };
        return (access, withheld);
    }
    let closed = draft.nodes.iter().find(|node| told.remapped && !node.open);
    let withheld = closed.map(|node| {
        format!(
            "{} is closed to the users that the engine gives containers; give it mode 0666 (udev)",
            node.path.display()
        )
    });
    let access = match by_cdi {
        Some(name) => GpuAccess::Cdi { name, nvidia: None },
        None => {
            // In a user namespace the host's groups mean nothing.
            let groups = draft.nodes.iter().filter(|node| !told.remapped && !node.open);
            let mut groups: Vec<u32> =
                groups.map(|node| node.group).filter(|group| *group != 0).collect();
            groups.sort_unstable();
            groups.dedup();
            let nodes = draft.nodes.iter().map(|node| node.path.clone()).collect();
            GpuAccess::Nodes { nodes, groups }
        }
    };
    (access, withheld)
}

/// NVML's spelling of a PCI address in the kernel's.
fn address(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => {
            format!("{}:{rest}", &domain[domain.len() - 4..])
        }
        _ => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_have_one_spelling() {
        assert_eq!(address("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(address("0000:3b:00.0"), "0000:3b:00.0");
        assert_eq!(address(""), "");
    }
}
