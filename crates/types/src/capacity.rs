//! What a host can give, what a sandbox demands, and what is missing when the
//! two do not meet. The scheduler and the wolf's agent count with the same
//! code, so that they never disagree about one device: GPUs are a vector, one
//! entry a device, never a sum.

mod choose;
mod encoder;
mod ledger;
mod shortage;

pub use encoder::{EncoderCodec, EncoderDemand, EncoderGrant};
pub use ledger::{Free, Grant, Holding, Ledger};
pub use shortage::{Good, Shortage};

/// The whole of a device in thousandths.
pub const WHOLE_MILLI: u32 = 1000;

/// Who made a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GpuVendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
}

/// One GPU of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Stable identity: the vendor's UUID or the PCI address.
    pub id: String,
    /// The vendor; `None` when unknown, which matches no demand for a vendor.
    pub vendor: Option<GpuVendor>,
    /// The model as the driver names it.
    pub model: String,
    /// Memory in bytes; `None` when not measured, which satisfies no least
    /// memory.
    pub memory_bytes: Option<u64>,
    /// The most hardware encoder sessions at a time; `None` when not known,
    /// which gives none.
    pub encoder_sessions: Option<u32>,
    /// Whether its driver counts its sessions together with those of the
    /// host's other devices of this kind: see [`Capacity::encoder_sessions`].
    pub encoder_pooled: bool,
    /// What its encoder writes.
    pub encoder_codecs: Vec<EncoderCodec>,
    /// Whether it failed: nothing new is put on it, what is there stays.
    pub unhealthy: bool,
}

/// All a host can give. `None` means not measured, never zero: a good that is
/// not measured is promised to nobody, and a demand without it still fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPU time in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Disk in bytes.
    pub disk_bytes: Option<u64>,
    /// Desktops at a time.
    pub desktop_slots: u32,
    /// GPUs, each id once.
    pub devices: Vec<Device>,
    /// The most encoder sessions at a time over all pooled devices; `None` when
    /// their driver does not count them together.
    pub encoder_sessions: Option<u32>,
}

/// What a sandbox wants of GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuDemand {
    /// How many devices, at least 1.
    pub count: u32,
    /// The part of each device in thousandths, 1 to 1000; below 1000 only with
    /// a count of 1.
    pub share_milli: u32,
    /// The vendor; `None` for any.
    pub vendor: Option<GpuVendor>,
    /// Any of these models, compared without regard to ASCII case; empty for any.
    pub models: Vec<String>,
    /// The least memory of each device in bytes; zero for any.
    pub min_memory_bytes: u64,
}

impl GpuDemand {
    /// Whole devices of any kind.
    #[must_use]
    pub fn whole(count: u32) -> Self {
        Self {
            count,
            share_milli: WHOLE_MILLI,
            vendor: None,
            models: Vec::new(),
            min_memory_bytes: 0,
        }
    }

    /// A share of one device of any kind.
    #[must_use]
    pub fn share(milli: u32) -> Self {
        Self { share_milli: milli, ..Self::whole(1) }
    }

    /// Whether count and share are in their bounds; the contract of the fields.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.count >= 1
            && (1..=WHOLE_MILLI).contains(&self.share_milli)
            && (self.share_milli == WHOLE_MILLI || self.count == 1)
    }
}

/// What a sandbox demands, with every default filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// CPU time in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk in bytes; zero is not counted.
    pub disk_bytes: u64,
    /// The most processes at a time: a limit of the sandbox, not a good of the
    /// host, so it is carried and not counted.
    pub pids: u32,
    /// Whether it takes a desktop slot.
    pub desktop: bool,
    /// GPUs; `None` for none.
    pub gpu: Option<GpuDemand>,
    /// Hardware encoder sessions; `None` for none.
    pub encoder: Option<EncoderDemand>,
}
