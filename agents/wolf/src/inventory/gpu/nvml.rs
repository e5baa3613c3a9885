//! NVIDIA's management library, behind a trait: where it does not load there is
//! none, and tests give their own.

use std::fmt::Debug;

use nvml_wrapper::Nvml as Library;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use parking_lot::Mutex;

/// The name that every driver installs; the one without a version is there for
/// developers only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Why there is no reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NvmlFault {
    /// The library is not on this host.
    #[error("the library is not there: {0}")]
    Absent(String),
    /// It is, and does not answer.
    #[error("{0}")]
    Failed(String),
}

/// One device as the library tells it. What it did not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NvmlDevice {
    /// `GPU-...`
    pub uuid: String,
    /// The model.
    pub name: String,
    /// `domain:bus:device.function`, in whatever case and length.
    pub pci_bus_id: String,
    /// The number in `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// Memory in bytes.
    pub memory_total: Option<u64>,
    /// Memory in use, in bytes.
    pub memory_used: Option<u64>,
    /// Share of time it was busy, in percent.
    pub utilisation: Option<u32>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Encoder sessions that run.
    pub encoder_sessions: Option<u32>,
    /// Whether it is cut into instances.
    pub mig: bool,
    /// What it said instead of an answer.
    pub fault: Option<String>,
}

/// What the library told at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NvmlReading {
    /// Version of the driver.
    pub driver_version: String,
    /// The devices that answered, in the library's order.
    pub devices: Vec<NvmlDevice>,
}

/// Reads what NVML tells. Blocking, and a broken device can make it hang: call
/// it with a deadline.
pub trait Nvml: Send + Sync + Debug {
    /// One reading of every device.
    ///
    /// # Errors
    /// When the library is not there or does not answer.
    fn read(&self) -> Result<NvmlReading, NvmlFault>;
}

/// The library of the host, loaded when it is first asked and again after it
/// failed.
#[derive(Debug, Default)]
pub struct HostNvml {
    loaded: Mutex<Option<Library>>,
}

impl Nvml for HostNvml {
    fn read(&self) -> Result<NvmlReading, NvmlFault> {
        let mut loaded = self.loaded.lock();
        if loaded.is_none() {
            let library = Library::builder().lib_path(LIBRARY.as_ref()).init();
            *loaded = Some(library.map_err(fault)?);
        }
        let read = loaded.as_ref().map_or(Err(NvmlError::Uninitialized), reading);
        read.map_err(|error| {
            // A driver that was restarted answers a fresh start only.
            *loaded = None;
            fault(error)
        })
    }
}

fn fault(error: NvmlError) -> NvmlFault {
    match error {
        NvmlError::LibloadingError(error) => NvmlFault::Absent(error.to_string()),
        // The library of a driver that is not loaded: no GPU works through it.
        error => NvmlFault::Failed(error.to_string()),
    }
}

fn reading(library: &Library) -> Result<NvmlReading, NvmlError> {
    let driver_version = library.sys_driver_version()?;
    let devices = (0..library.device_count()?).filter_map(|index| {
        // One that has fallen off the bus is missing here and found missing.
        let device = library.device_by_index(index).ok()?;
        let uuid = device.uuid().ok()?;
        let memory = device.memory_info();
        Some(NvmlDevice {
            uuid,
            name: device.name().unwrap_or_default(),
            pci_bus_id: device.pci_info().map(|pci| pci.bus_id).unwrap_or_default(),
            minor: device.minor_number().ok(),
            fault: memory.as_ref().err().and_then(failure),
            memory_total: memory.as_ref().ok().map(|memory| memory.total),
            memory_used: memory.ok().map(|memory| memory.used),
            utilisation: device.utilization_rates().ok().map(|rates| rates.gpu),
            temperature: device.temperature(TemperatureSensor::Gpu).ok(),
            encoder_sessions: device.encoder_stats().ok().map(|stats| stats.session_count),
            mig: device.mig_mode().is_ok_and(|mode| mode.current == 1),
        })
    });
    Ok(NvmlReading { driver_version, devices: devices.collect() })
}

/// What is wrong with the device, not with the question.
fn failure(error: &NvmlError) -> Option<String> {
    let harmless = matches!(error, NvmlError::NotSupported | NvmlError::NoPermission);
    (!harmless).then(|| error.to_string())
}
