//! What a host can give, what a sandbox demands, and what is missing when the
//! two do not meet. The scheduler and the wolf's agent count with the same
//! code, so that they never disagree about one device: GPUs are a vector, one
//! entry a device, never a sum.

mod ledger;

pub use ledger::{Free, Grant, Holding, Ledger};

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// Which good is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Good {
    /// CPU time, in thousandths of a core.
    Cpu,
    /// Memory, in bytes.
    Memory,
    /// Disk, in bytes.
    Disk,
    /// Desktop slots.
    DesktopSlots,
    /// Devices of the vendor.
    GpuAbsent,
    /// Devices of one of the models.
    GpuModel,
    /// Devices with the least memory.
    GpuMemory,
    /// Devices that are free: whole ones counted, or the largest free share in
    /// thousandths when a share is wanted.
    GpuBusy,
}

impl Good {
    /// Every good.
    pub const ALL: [Self; 8] = [
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::DesktopSlots,
        Self::GpuAbsent,
        Self::GpuModel,
        Self::GpuMemory,
        Self::GpuBusy,
    ];

    /// The name of its shortage in answers of the scheduler and the agent.
    #[must_use]
    pub fn blocker(self) -> &'static str {
        match self {
            Self::Cpu => "CPU_SHORT",
            Self::Memory => "MEMORY_SHORT",
            Self::Disk => "DISK_SHORT",
            Self::DesktopSlots => "DESKTOP_SLOTS_SHORT",
            Self::GpuAbsent => "GPU_ABSENT",
            Self::GpuModel => "GPU_MODEL_DIFFERS",
            Self::GpuMemory => "GPU_MEMORY_SHORT",
            Self::GpuBusy => "GPU_BUSY",
        }
    }
}

/// The first good that a host lacks for a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Shortage {
    /// The good, which also says the unit.
    pub good: Good,
    /// How much is needed.
    pub needed: u64,
    /// How much is free; `None` when the host never measured it.
    pub free: Option<u64>,
}

impl Shortage {
    /// How much is missing; all of it when the host never measured the good.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.needed.saturating_sub(self.free.unwrap_or(0))
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (needed, missing) = (self.needed, self.missing());
        let Some(free) = self.free else {
            let good = match self.good {
                Good::Cpu => "cpu",
                Good::Memory => "memory",
                Good::Disk => "disk",
                Good::DesktopSlots => "desktop slots",
                Good::GpuAbsent | Good::GpuModel | Good::GpuMemory | Good::GpuBusy => "gpus",
            };
            return write!(f, "the wolf has not measured its {good}, so none can be promised");
        };
        match self.good {
            Good::Cpu => {
                write!(f, "needs {needed} milli of cpu, {free} are free: {missing} missing")
            }
            Good::Memory => {
                write!(f, "needs {needed} bytes of memory, {free} are free: {missing} missing")
            }
            Good::Disk => {
                write!(f, "needs {needed} bytes of disk, {free} are free: {missing} missing")
            }
            Good::DesktopSlots => {
                write!(f, "needs {needed} desktop slots, {free} are free: {missing} missing")
            }
            Good::GpuAbsent => {
                write!(
                    f,
                    "needs {needed} gpus of the vendor, the wolf has {free}: {missing} missing"
                )
            }
            Good::GpuModel => {
                write!(
                    f,
                    "needs {needed} gpus of the models, the wolf has {free}: {missing} missing"
                )
            }
            Good::GpuMemory => write!(
                f,
                "needs {needed} gpus with the least memory, the wolf has {free}: {missing} missing"
            ),
            Good::GpuBusy => write!(
                f,
                "needs {needed} of free gpus (whole devices, or thousandths of one), {free} are free: {missing} missing"
            ),
        }
    }
}
