//! The wolf's line to the registry, over the broker's agent port: what it is
//! made of, then a heartbeat. A registry that does not know the wolf is told
//! again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::{
    HeartbeatRequest, HeartbeatResponse, RegisterWolfRequest, WolfEngine, WolfImages, WolfState,
};
use wolfpack_rpc::{RpcChannel, from_status};
use wolfpack_runtime::Supervisor;
use wolfpack_tunnel::protocol::Backoff;
use wolfpack_types::{Fault, InstanceId, Reason};

use crate::config::{CapacityConfig, Config, DockerConfig};
use crate::engine::EngineInfo;
use crate::images::Images;
use crate::inventory::{EngineFacts, Found, Gpu, Gpus, Inventory, Roots, Sources, UsageMeter};
use crate::lifecycle::{Lifecycle, Ready};
use crate::probe::EngineHealth;
use crate::sandbox::docker_modes;

/// How long RegisterWolf may take.
const REGISTER: Duration = Duration::from_secs(20);
/// A beat without an answer for so many intervals ends the stream.
const MISSED: u32 = 3;
/// Bounds of what the registry may ask for as an interval.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(120));
/// Until the registry says one.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long to leave the field to a newer stream of the same wolf.
const SUPERSEDED_PAUSE: Duration = Duration::from_secs(30);
/// The longest fault the registry takes, in bytes.
const FAULT_LEN: usize = 1_000;

/// The line to the registry.
pub(crate) struct Link {
    pub(crate) broker: RpcChannel,
    pub(crate) instance: InstanceId,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) health: watch::Receiver<EngineHealth>,
    pub(crate) inventory: InventorySource,
    pub(crate) images: ImageNews,
    pub(crate) display_name: String,
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    pub(crate) supervisor: Supervisor,
}

/// What is told of images and disk.
#[derive(Debug, Clone)]
pub(crate) struct ImageNews {
    /// The images, those used last first.
    pub(crate) cached: watch::Receiver<Arc<WolfImages>>,
    /// Why nothing new is taken; empty while there is enough disk.
    pub(crate) disk_pressure: watch::Receiver<String>,
}

impl ImageNews {
    pub(crate) fn of(images: &Images) -> Self {
        Self { cached: images.cached(), disk_pressure: images.disk_pressure() }
    }
}

/// Where the capacity comes from.
#[derive(Debug, Clone)]
pub(crate) struct InventorySource {
    roots: Roots,
    overrides: CapacityConfig,
    gpus: Gpus,
    docker: DockerConfig,
    mount_paths: Vec<String>,
    mounts_every_project: bool,
}

impl InventorySource {
    pub(crate) fn new(config: &Config) -> Self {
        Self::with(config, config.gpu.sources())
    }

    /// As [`InventorySource::new`], with other sources.
    pub(crate) fn with(config: &Config, sources: Sources) -> Self {
        let path = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
        Self {
            roots: sources.roots.clone(),
            overrides: config.capacity.clone(),
            gpus: Gpus::new(sources),
            docker: config.docker.clone(),
            mount_paths: config.mounts.allow.iter().map(path).collect(),
            mounts_every_project: config.mounts.every_project,
        }
    }

    /// The GPUs.
    pub(crate) fn gpus(&self) -> &Gpus {
        &self.gpus
    }

    /// Measures the host. What depends on the engine is left out without one.
    pub(crate) async fn measure(&self, engine: Option<&EngineInfo>) -> Inventory {
        let (roots, data_root) =
            (self.roots.clone(), engine.and_then(|engine| engine.data_root.clone()));
        let host =
            tokio::task::spawn_blocking(move || Inventory::measure(&roots, data_root.as_deref()));
        let gpus = self.gpus.refresh(engine.map(EngineFacts::of)).await;
        Inventory {
            gpus,
            docker_modes: engine
                .map(|engine| docker_modes(engine, &self.docker))
                .unwrap_or_default(),
            mount_paths: self.mount_paths.clone(),
            mounts_every_project: self.mounts_every_project,
            ..host.await.unwrap_or_default().overridden(&self.overrides)
        }
    }
}

/// What the registry is told of devices when the wolf registers. How containers
/// get at them is ours.
fn told_of(found: &Found) -> impl PartialEq {
    let devices: Vec<_> = found.offered().map(Gpu::to_proto).collect();
    (devices, found.encoder_pool(), found.notice())
}

/// Why a stream of heartbeats ended.
enum End {
    /// Something else than was registered is true now, or the registry does
    /// not know us.
    RegisterAgain,
    /// It failed.
    Failed(Fault),
}

impl Link {
    /// Registers and beats until the supervisor stops.
    pub(crate) async fn run(self) {
        let stop = self.supervisor.token();
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let ended = tokio::select! {
                ended = self.session() => ended,
                () = stop.cancelled() => return,
            };
            backoff.was_up_for(begun.elapsed());
            let pause = match ended {
                End::RegisterAgain => backoff.next_wait(rand::random(), None) / 4,
                End::Failed(fault) if fault.reason == Reason::Superseded => {
                    tracing::warn!(%fault, "another process beats for this wolf");
                    SUPERSEDED_PAUSE
                }
                End::Failed(fault) => {
                    let pause = backoff.next_wait(rand::random(), None);
                    tracing::warn!(%fault, ?pause, "the line to the registry broke; it is tried again");
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn session(&self) -> End {
        let ready = self.lifecycle.ready_now();
        match self.register(ready.as_ref()).await {
            Ok((interval, inventory)) => self.beat(interval, ready, inventory).await,
            Err(fault) => End::Failed(fault),
        }
    }

    /// Tells the registry what the wolf is made of; returns the interval and
    /// what was told.
    async fn register(&self, ready: Option<&Ready>) -> Result<(Duration, Inventory), Fault> {
        let engine = ready.map(|ready| &ready.engine);
        let mut inventory = self.inventory.measure(engine).await;
        if !ready.is_some_and(|ready| ready.stage) {
            inventory.mount_paths.clear();
        }
        // Both sides count with the same capacity from here on.
        self.lifecycle.set_capacity(&inventory);
        let request = RegisterWolfRequest {
            display_name: self.display_name.clone(),
            labels: self.labels.clone(),
            capacity: Some(inventory.to_proto()),
            engine: engine.map(|engine| WolfEngine {
                version: engine.version.chars().take(64).collect(),
                storage_driver: engine.storage_driver.chars().take(64).collect(),
                cgroup_version: engine.cgroup_version,
            }),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.instance.to_string(),
        };
        let channel = self.broker.with_deadline(REGISTER);
        let answer = WolfServiceClient::new(channel).register_wolf(request).await;
        let answer = answer.map_err(|status| from_status(&status))?.into_inner();
        tracing::info!(
            cpu_milli = inventory.cpu_milli,
            gpus = inventory.gpus.offered().count(),
            notice = inventory.gpus.notice(),
            "registered the wolf"
        );
        Ok((interval(answer.heartbeat_interval).unwrap_or(INTERVAL), inventory))
    }

    async fn beat(
        &self,
        mut interval: Duration,
        registered: Option<Ready>,
        mut inventory: Inventory,
    ) -> End {
        // One beat is under way at a time: the answer to it comes first.
        let (beats, outgoing) = mpsc::channel(1);
        let channel = self.broker.without_deadline();
        let meter = Arc::new(Mutex::new(UsageMeter::new(self.inventory.roots.clone())));
        let mut sequence = 0;
        let mut images = None;
        let first = self.measure(sequence, &meter, &inventory.gpus, &mut images).await;
        if beats.send(first).await.is_err() {
            return End::RegisterAgain;
        }
        let mut client = WolfServiceClient::new(channel);
        let opening = client.heartbeat(ReceiverStream::new(outgoing));
        let mut answers = match tokio::time::timeout(interval * MISSED, opening).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return ended(from_status(&status)),
            Err(_) => return End::Failed(silent()),
        };
        let mut last_state = None;
        loop {
            let answer = match tokio::time::timeout(interval * MISSED, answers.message()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return End::Failed(silent()),
                Ok(Err(status)) => return ended(from_status(&status)),
                Err(_) => return End::Failed(silent()),
            };
            log_state(&mut last_state, &answer);
            interval = self::interval(answer.interval).unwrap_or(interval);
            self.wait(interval).await;
            let told = |ready: &Ready| (ready.engine.clone(), ready.stage);
            let now = self.lifecycle.ready_now().as_ref().map(told);
            if now.is_some() && now != registered.as_ref().map(told) {
                return End::RegisterAgain;
            }
            let gpus = self.inventory.gpus.refresh(None).await;
            if told_of(&gpus) != told_of(&inventory.gpus) {
                tracing::info!("the gpus are others than were registered");
                return End::RegisterAgain;
            }
            self.note_failures(&mut inventory, gpus);
            sequence += 1;
            let next = self.measure(sequence, &meter, &inventory.gpus, &mut images).await;
            if beats.send(next).await.is_err() {
                // The stream ended; its status says why.
                interval = interval.min(INTERVAL);
            }
        }
    }

    /// A device that failed gets nothing new from here on, whatever the
    /// scheduler has heard; one that is back does.
    fn note_failures(&self, inventory: &mut Inventory, gpus: Found) {
        let failed = |found: &Found| -> Vec<String> {
            let devices = found.offered().map(|gpu| gpu.id.clone());
            devices.filter(|id| found.failed(id)).collect()
        };
        let (before, after) = (failed(&inventory.gpus), failed(&gpus));
        inventory.gpus = gpus;
        if before != after {
            tracing::warn!(?before, ?after, "other gpus fail than before");
            self.lifecycle.set_capacity(inventory);
        }
    }

    /// Waits for the next beat: the interval, or at once when the engine broke
    /// or works again, or the disk got short or has room again.
    async fn wait(&self, interval: Duration) {
        let mut health = self.health.clone();
        let was = health.borrow_and_update().fault.is_some();
        let changed = async {
            let gone = health.wait_for(|now| now.fault.is_some() != was).await.is_err();
            if gone {
                // The prober ended: nothing will change any more.
                std::future::pending::<()>().await;
            }
        };
        let mut pressure = self.images.disk_pressure.clone();
        let was_short = !pressure.borrow_and_update().is_empty();
        let disk = async {
            if pressure.wait_for(|now| now.is_empty() == was_short).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = changed => {}
            () = disk => {}
        }
    }

    /// The next beat. Images go with it when they are others than `sent`.
    async fn measure(
        &self,
        sequence: u64,
        meter: &Arc<Mutex<UsageMeter>>,
        gpus: &Found,
        sent: &mut Option<Arc<WolfImages>>,
    ) -> HeartbeatRequest {
        let cached = self.images.cached.borrow().clone();
        let images = (sent.as_ref() != Some(&cached)).then(|| cached.as_ref().clone());
        *sent = Some(cached);
        let health = self.health.borrow().clone();
        let data_root = self.lifecycle.ready_now().and_then(|ready| ready.engine.data_root);
        let meter = meter.clone();
        let used =
            tokio::task::spawn_blocking(move || meter.lock().measure(data_root.as_deref())).await;
        let running = u32::try_from(self.lifecycle.observer().running()).ok();
        HeartbeatRequest {
            instance_id: self.instance.to_string(),
            sequence,
            used: used.ok().map(Into::into),
            // What a silent engine runs is not known.
            running_sandboxes: running.filter(|_| health.fault.is_none()),
            engine_fault: health.fault.map(|fault| cut(&fault)).unwrap_or_default(),
            gpus: gpus.telemetry.clone(),
            images,
            disk_pressure: cut(&self.images.disk_pressure.borrow()),
        }
    }
}

fn ended(fault: Fault) -> End {
    if fault.reason == Reason::WolfNotFound {
        tracing::info!("the registry does not know this wolf; it registers again");
        End::RegisterAgain
    } else {
        End::Failed(fault)
    }
}

fn silent() -> Fault {
    Fault::new(Reason::DependencyUnavailable, "the registry does not answer heartbeats")
}

fn interval(told: Option<prost_types::Duration>) -> Option<Duration> {
    let told = Duration::try_from(told?).ok()?;
    Some(told.clamp(INTERVALS.0, INTERVALS.1))
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(FAULT_LEN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn log_state(last: &mut Option<WolfState>, answer: &HeartbeatResponse) {
    let state = answer.state();
    if last.replace(state) != Some(state) {
        tracing::info!(state = state.as_str_name(), "the registry holds the wolf as");
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
