//! The GPUs as they are now, shared by all who need them: what is told to the
//! registry, what the ledger counts with, and how a container gets at a device
//! at the moment it is made.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use wolfpack_types::{Fault, Reason};

use super::assemble::{Told, assemble};
use super::nvml::{NvmlFault, NvmlReading};
use super::telemetry::failed;
use super::toolkit::{self, Toolkit};
use super::{EngineFacts, Found, Gpu, Sources, Vendor, cdi, mig, sysfs};
use crate::sandbox::GpuAccess;

/// How long NVIDIA's library may take. One that hangs is not asked again before
/// it came back.
const ANSWER: Duration = Duration::from_secs(5);
/// For how long the toolkit's version is believed.
const TOOLKIT: Duration = Duration::from_secs(300);

type Read = Result<NvmlReading, NvmlFault>;

/// The GPUs of this host; cheap to clone.
#[derive(Debug, Clone)]
pub struct Gpus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sources: Sources,
    /// Held while one reads, so that readings are one after the other.
    reading: tokio::sync::Mutex<Reading>,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Reading {
    engine: EngineFacts,
    /// A question to the library that was not answered in time.
    asked: Option<JoinHandle<Read>>,
    toolkit: Option<(tokio::time::Instant, Toolkit)>,
}

impl Gpus {
    /// Of these sources; nothing is read yet.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let inner =
            Inner { sources, reading: tokio::sync::Mutex::default(), found: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// As they were read last.
    #[must_use]
    pub fn now(&self) -> Found {
        self.inner.found.lock().clone()
    }

    /// Reads them again; with an engine, for that one from now on. Answers
    /// within some seconds, also when a driver hangs.
    pub async fn refresh(&self, engine: Option<EngineFacts>) -> Found {
        let sources = &self.inner.sources;
        let mut reading = self.inner.reading.lock().await;
        if let Some(engine) = engine {
            reading.engine = engine;
        }
        let roots = sources.roots.clone();
        let folders = if reading.engine.cdi_folders.is_empty() || sources.cdi_folders.is_empty() {
            reading.engine.cdi_folders.clone()
        } else {
            sources.cdi_folders.clone()
        };
        let files =
            tokio::task::spawn_blocking(move || (sysfs::scan(&roots), cdi::devices(&folders)));
        let nvml = self.ask(&mut reading).await;
        let (pci, cdi) = files.await.unwrap_or_default();
        let has_mig = nvml.as_ref().is_ok_and(|read| read.devices.iter().any(|gpu| gpu.mig));
        let has_nvidia = nvml.as_ref().is_ok_and(|read| !read.devices.is_empty())
            || pci.iter().any(|gpu| gpu.vendor == Vendor::Nvidia);
        let told = Told {
            instances: if has_mig { mig::instances(&sources.nvidia_smi).await } else { Vec::new() },
            toolkit: if has_nvidia { Some(self.toolkit(&mut reading).await) } else { None },
            pci,
            nvml,
            cdi,
            remapped: reading.engine.remapped,
            encoder_sessions: sources.encoder_sessions,
        };
        let answered = told.nvml.is_ok();
        let mut found = self.inner.found.lock();
        *found = remember(&found, assemble(&told), answered);
        found.clone()
    }

    /// How a container gets at these devices now, exactly these.
    ///
    /// # Errors
    /// `RESERVATION_REFUSED` when one of them is gone, failed or withheld.
    pub async fn access(&self, ids: &[String]) -> Result<Vec<GpuAccess>, Fault> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.refresh(None).await;
        let refused = |words: String| {
            Fault::new(Reason::ReservationRefused, words).with("blocker", "GPU_UNHEALTHY")
        };
        ids.iter()
            .map(|id| {
                let told = found.telemetry.iter().find(|told| told.id == *id);
                match found.gpus.iter().find(|gpu| gpu.id == *id) {
                    None => Err(refused(format!("the wolf has no gpu {id}: place it again"))),
                    Some(Gpu { withheld: Some(why), .. }) => Err(refused(why.clone())),
                    Some(_) if found.failed(id) => Err(refused(format!(
                        "gpu {id} failed: {}",
                        told.map_or("", |told| told.message.as_str())
                    ))),
                    Some(gpu) => Ok(gpu.access.clone()),
                }
            })
            .collect()
    }

    async fn ask(&self, reading: &mut Reading) -> Read {
        let nvml = self.inner.sources.nvml.clone();
        let asked =
            reading.asked.get_or_insert_with(|| tokio::task::spawn_blocking(move || nvml.read()));
        let answer = tokio::time::timeout(ANSWER, asked).await;
        match answer {
            Ok(answer) => {
                reading.asked = None;
                answer.unwrap_or_else(|error| Err(NvmlFault::Failed(error.to_string())))
            }
            Err(_) => Err(NvmlFault::Failed(format!("it hangs for more than {ANSWER:?}"))),
        }
    }

    async fn toolkit(&self, reading: &mut Reading) -> Toolkit {
        if let Some((at, toolkit)) = &reading.toolkit
            && at.elapsed() < TOOLKIT
        {
            return toolkit.clone();
        }
        let found = toolkit::look(&self.inner.sources.toolkit_programs).await;
        reading.toolkit = Some((tokio::time::Instant::now(), found.clone()));
        found
    }
}

/// What was known goes on to be known: a device that is gone has failed, it does
/// not vanish with what sandboxes hold of it; and what the library told of one
/// stays true while the library does not answer.
fn remember(before: &Found, mut now: Found, answered: bool) -> Found {
    let is_instance = |gpu: &Gpu| gpu.id.starts_with("MIG-");
    if !answered {
        let cut = |gpu: &Gpu| {
            before.gpus.iter().any(|old| is_instance(old) && old.pci_address == gpu.pci_address)
        };
        now.gpus.retain(|gpu| gpu.vendor != Vendor::Nvidia || !cut(gpu));
        for gpu in now.gpus.iter_mut().filter(|gpu| gpu.vendor == Vendor::Nvidia) {
            let same = |old: &&Gpu| old.pci_address == gpu.pci_address;
            if let Some(old) = before.gpus.iter().find(same) {
                let told = now.telemetry.iter_mut().find(|told| told.id == gpu.id);
                if let Some(told) = told {
                    told.id.clone_from(&old.id);
                }
                *gpu = Gpu { withheld: gpu.withheld.clone(), ..old.clone() };
            }
        }
    }
    for old in before.offered() {
        let here = now.gpus.iter().any(|gpu| gpu.id == old.id);
        // The same place under another name is the same device.
        let renamed = !is_instance(old)
            && now.gpus.iter().any(|gpu| {
                !is_instance(gpu) && gpu.pci_address == old.pci_address && old.id == old.pci_address
            });
        if !here && !renamed {
            now.telemetry.retain(|told| told.id != old.id);
            now.telemetry.push(failed(&old.id, "the device is gone from the host"));
            now.gpus.push(old.clone());
        }
    }
    now.gpus
        .sort_by(|one, other| (&one.pci_address, &one.id).cmp(&(&other.pci_address, &other.id)));
    let known = |id: &str| now.gpus.iter().any(|gpu| gpu.id == id);
    now.telemetry.retain(|told| known(&told.id));
    now
}
