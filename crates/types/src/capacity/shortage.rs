//! What is missing when demand and capacity do not meet.

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
    /// Devices that work.
    GpuUnhealthy,
    /// Devices that are free: whole ones counted, or the largest free share in
    /// thousandths when a share is wanted.
    GpuBusy,
    /// Encoder sessions that one device has, at the best.
    EncoderAbsent,
    /// Encoder sessions that are free on one device.
    EncodersBusy,
}

impl Good {
    /// Every good.
    pub const ALL: [Self; 11] = [
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::DesktopSlots,
        Self::GpuAbsent,
        Self::GpuModel,
        Self::GpuMemory,
        Self::GpuUnhealthy,
        Self::GpuBusy,
        Self::EncoderAbsent,
        Self::EncodersBusy,
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
            Self::GpuUnhealthy => "GPU_UNHEALTHY",
            Self::GpuBusy => "GPU_BUSY",
            Self::EncoderAbsent => "ENCODER_ABSENT",
            Self::EncodersBusy => "ENCODERS_BUSY",
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
                Good::GpuAbsent
                | Good::GpuModel
                | Good::GpuMemory
                | Good::GpuUnhealthy
                | Good::GpuBusy => "gpus",
                Good::EncoderAbsent | Good::EncodersBusy => "encoders",
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
            Good::GpuUnhealthy => write!(
                f,
                "needs {needed} gpus that work, of those that would do {free} do: {missing} missing"
            ),
            Good::EncoderAbsent => write!(
                f,
                "needs {needed} encoder sessions of one gpu, the wolf's best has {free}: {missing} missing"
            ),
            Good::EncodersBusy => write!(
                f,
                "needs {needed} encoder sessions of one gpu, {free} are free: {missing} missing"
            ),
            Good::GpuBusy => write!(
                f,
                "needs {needed} of free gpus (whole devices, or thousandths of one), {free} are free: {missing} missing"
            ),
        }
    }
}
