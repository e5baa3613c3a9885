//! GPUs of the host: by NVIDIA's library where it loads, by sysfs otherwise.
//! Devices are known by the vendor's UUID or their PCI address, never by a
//! number, since numbers change.

mod assemble;
pub mod cdi;
pub mod encoders;
mod mig;
pub mod nvml;
mod sysfs;
mod telemetry;
pub mod toolkit;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use wolfpack_proto::types::v1::{
    EncoderCodec as ProtoCodec, GpuDevice, GpuTelemetry, GpuVendor as ProtoVendor, TelemetryState,
};
use wolfpack_types::capacity::{Device, EncoderCodec, GpuVendor};

use super::Roots;
use crate::engine::EngineInfo;
use crate::sandbox::GpuAccess;

pub use encoders::Encoder;
pub use nvml::{HostNvml, Nvml};
pub use watch::Gpus;

/// The first engine that can inject devices by CDI.
const CDI_ENGINE: u32 = 25;

/// Who made a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
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

    fn word(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::Amd => "amd",
            Self::Intel => "intel",
        }
    }
}

/// One GPU of the host, or one instance of one that is cut into several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// The vendor's UUID where the driver tells it, else the PCI address.
    pub id: String,
    /// The vendor.
    pub vendor: Vendor,
    /// The model as the driver names it, else as the table does, else vendor
    /// and PCI device id.
    pub model: String,
    /// Memory in bytes, where the driver tells it.
    pub memory_bytes: Option<u64>,
    /// PCI address.
    pub pci_address: String,
    /// Version of the driver; empty when it does not say.
    pub driver_version: String,
    /// Its encoder; `None` when the table does not know the model.
    pub encoder: Option<Encoder>,
    /// How a container gets at it.
    pub access: GpuAccess,
    /// Why it is not offered; `None` when it is.
    pub withheld: Option<String>,
}

/// The GPUs of the host at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Every device, by PCI address and id; withheld ones too, and those that
    /// were here and are gone.
    pub gpus: Vec<Gpu>,
    /// What was measured; a device that is missing here was not.
    pub telemetry: Vec<GpuTelemetry>,
}

/// Where GPUs are looked for.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The kernel's files.
    pub roots: Roots,
    /// NVIDIA's library.
    pub nvml: Arc<dyn Nvml>,
    /// Programs that say the version of NVIDIA's container toolkit.
    pub toolkit_programs: Vec<PathBuf>,
    /// NVIDIA's tool that lists the instances of a GPU.
    pub nvidia_smi: PathBuf,
    /// Folders of CDI specifications as this agent sees them; empty for those
    /// that the engine names.
    pub cdi_folders: Vec<PathBuf>,
    /// Encoder sessions of a device whose model the table does not know.
    pub encoder_sessions: Option<u32>,
}

impl Sources {
    /// This host's.
    #[must_use]
    pub fn host() -> Self {
        Self {
            roots: Roots::default(),
            nvml: Arc::new(HostNvml::default()),
            toolkit_programs: toolkit::default_programs(),
            nvidia_smi: "nvidia-smi".into(),
            cdi_folders: Vec::new(),
            encoder_sessions: None,
        }
    }
}

/// What of the engine decides how devices get into containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its folders of CDI specifications; empty when it injects none.
    pub cdi_folders: Vec<PathBuf>,
    /// Whether root in containers is nobody on the host.
    pub remapped: bool,
}

impl EngineFacts {
    /// The facts of an engine.
    #[must_use]
    pub fn of(engine: &EngineInfo) -> Self {
        let major = engine.version.split('.').next().and_then(|major| major.parse().ok());
        let cdi = major.is_some_and(|major: u32| major >= CDI_ENGINE);
        Self {
            cdi_folders: if cdi { engine.cdi_folders.clone() } else { Vec::new() },
            remapped: engine.remapped_root.is_some(),
        }
    }
}

impl Found {
    /// The devices that sandboxes can have.
    pub fn offered(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(|gpu| gpu.withheld.is_none())
    }

    /// Why devices are not offered, in words; empty when all are.
    #[must_use]
    pub fn notice(&self) -> String {
        let mut words: Vec<&str> =
            self.gpus.iter().filter_map(|gpu| gpu.withheld.as_deref()).collect();
        words.dedup();
        let text = words.join("; ");
        text.chars().take(1_000).collect()
    }

    /// Whether nothing new may be put on a device.
    #[must_use]
    pub fn failed(&self, id: &str) -> bool {
        let state = self.telemetry.iter().find(|told| told.id == id).map(GpuTelemetry::state);
        state == Some(TelemetryState::Failed)
    }

    /// The most encoder sessions at a time over all pooled devices.
    #[must_use]
    pub fn encoder_pool(&self) -> Option<u32> {
        let pooled = |gpu: &&Gpu| gpu.encoder.as_ref().is_some_and(|encoder| encoder.pooled);
        encoders::nvidia_pool(&self.offered().find(pooled)?.driver_version)
    }

    /// What the ledger counts with.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        self.offered()
            .map(|gpu| Device {
                id: gpu.id.clone(),
                vendor: Some(gpu.vendor.into()),
                model: gpu.model.clone(),
                memory_bytes: gpu.memory_bytes,
                encoder_sessions: gpu.encoder.as_ref().map(|encoder| encoder.sessions),
                encoder_pooled: gpu.encoder.as_ref().is_some_and(|encoder| encoder.pooled),
                encoder_codecs: gpu.encoder.iter().flat_map(|e| e.codecs.clone()).collect(),
                unhealthy: self.failed(&gpu.id),
            })
            .collect()
    }
}

impl Gpu {
    /// What the registry is told of it.
    #[must_use]
    pub fn to_proto(&self) -> GpuDevice {
        let vendor = match self.vendor {
            Vendor::Nvidia => ProtoVendor::Nvidia,
            Vendor::Amd => ProtoVendor::Amd,
            Vendor::Intel => ProtoVendor::Intel,
        };
        let codec = |codec: &EncoderCodec| match codec {
            EncoderCodec::H264 => ProtoCodec::H264.into(),
            EncoderCodec::Hevc => ProtoCodec::Hevc.into(),
            EncoderCodec::Av1 => ProtoCodec::Av1.into(),
        };
        GpuDevice {
            id: self.id.clone(),
            vendor: vendor.into(),
            model: self.model.clone(),
            memory_bytes: self.memory_bytes,
            pci_address: self.pci_address.clone(),
            driver_version: self.driver_version.clone(),
            encoder_sessions: self.encoder.as_ref().map(|encoder| encoder.sessions),
            encoder_codecs: self.encoder.iter().flat_map(|e| &e.codecs).map(codec).collect(),
            encoder_pooled: self.encoder.as_ref().is_some_and(|encoder| encoder.pooled),
        }
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
