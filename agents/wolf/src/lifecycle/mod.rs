//! The life of sandboxes on this wolf: create, remove, and what the engine says
//! became of them. Level-triggered: the engine's containers and their labels
//! are the truth, all that is kept here can be read back from them.
//!
//! Work that was begun goes on when its caller goes away, and a control plane
//! that is away ends nothing.

mod belongings;
mod create;
mod end;
mod footprint;
mod lanes;
mod observer;
mod ready;
mod remove;
mod sweep;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch;
use wolfpack_runtime::{Supervisor, clock};
use wolfpack_types::{DockerMode, Fault, PortSet, SandboxId, WolfId};

use crate::admission::{Admission, Claim, EpochFile};
use crate::bridge::Bridges;
use crate::config::{DockerConfig, MountsConfig};
use crate::engine::{Engine, PullProgress};
use crate::inventory::{Gpus, Inventory};
use crate::metrics::Metrics;
use crate::mounts::{MountRequest, Stage};
use crate::sandbox::directory;
use crate::shared_docker::SharedDocker;

pub use footprint::Footprint;
pub use observer::{Change, Observed, Observer};
pub use ready::{Quota, Ready, RelayPorts};

/// What stays the same while the agent runs.
#[derive(Debug)]
pub struct Settings {
    /// This wolf.
    pub wolf: WolfId,
    /// Where the sandboxes' directories are.
    pub root: PathBuf,
    /// The folder with the sandbox agent's binary.
    pub bin_dir: PathBuf,
    /// The GPUs of the host.
    pub gpus: Gpus,
    /// Where the sandboxes' agents send traces.
    pub otlp_endpoint: Option<String>,
    /// Ports of a sandbox's own loopback that may be dialed in it.
    pub tcp_ports: PortSet,
    /// Our own uid, which must reach the sandboxes' sockets.
    pub uid: u32,
    /// What sandboxes may have of Docker.
    pub docker: DockerConfig,
    /// The folders of the host that they may see.
    pub mounts: MountsConfig,
    /// Where what they see of the host is bound for the engine.
    pub stage: Stage,
}

/// A sandbox to create.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Who, and with which reservation.
    pub claim: Claim,
    /// The image; empty for the one that fits.
    pub image: String,
    /// What to run instead of the image's; empty for that.
    pub command: Vec<String>,
    /// Environment over the image's.
    pub env: std::collections::BTreeMap<String, String>,
    /// Whether it has a desktop.
    pub desktop: bool,
    /// What it has of Docker.
    pub docker: DockerMode,
    /// What it sees of the host.
    pub mounts: Vec<MountRequest>,
    /// The token of this boot.
    pub token: secrecy::SecretString,
}

/// How far a create is. The last value stays.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Whether the goods are held, for good.
    pub admitted: bool,
    /// The newest word of the pull, while there is one.
    pub pulling: Option<PullProgress>,
    /// The end: the container, or why there is none.
    pub outcome: Option<Result<Observed, Fault>>,
}

/// The sandboxes of this wolf; cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    settings: Settings,
    trust_roots: Arc<dyn Fn() -> String + Send + Sync>,
    admission: Arc<Mutex<Admission>>,
    epoch: EpochFile,
    /// The newest epoch that is on disk; held while one is written.
    epoch_on_disk: tokio::sync::Mutex<i64>,
    lanes: lanes::Lanes,
    observer: Observer,
    bridges: Arc<Bridges>,
    shared_docker: SharedDocker,
    ready: watch::Sender<Option<Ready>>,
    setup_again: tokio::sync::Notify,
    supervisor: Supervisor,
    metrics: Metrics,
    /// Told which images are used; absent where nobody keeps them.
    images: std::sync::OnceLock<crate::images::Images>,
}

/// What a [`Lifecycle`] is made of.
pub struct Parts {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// What stays the same.
    pub settings: Settings,
    /// The roots that sandboxes trust, PEM; read anew for each boot.
    pub trust_roots: Arc<dyn Fn() -> String + Send + Sync>,
    /// The guard.
    pub admission: Admission,
    /// Where the newest scheduler epoch is kept, and what it was.
    pub epoch: (EpochFile, i64),
    /// The bridges that sandboxes are on.
    pub bridges: Arc<Bridges>,
    /// The engine's socket, for sandboxes that share it.
    pub socket: PathBuf,
    /// Runs the work.
    pub supervisor: Supervisor,
    /// Counts it.
    pub metrics: Metrics,
}

impl Lifecycle {
    /// The sandboxes of a wolf. Nothing is done before the engine was set up:
    /// see [`Lifecycle::set_ready`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let admission = Arc::new(Mutex::new(parts.admission));
        let lanes = lanes::Lanes::default();
        let busy = lanes.clone();
        let observer = Observer::new(
            parts.engine.clone(),
            parts.settings.wolf.clone(),
            admission.clone(),
            Arc::new(move |sandbox: &SandboxId| busy.busy(sandbox)),
        );
        let shared_docker =
            SharedDocker::new(parts.socket, parts.settings.wolf.clone(), parts.supervisor.clone());
        Self {
            inner: Arc::new(Inner {
                bridges: parts.bridges,
                shared_docker,
                engine: parts.engine,
                settings: parts.settings,
                trust_roots: parts.trust_roots,
                admission,
                epoch: parts.epoch.0,
                epoch_on_disk: tokio::sync::Mutex::new(parts.epoch.1),
                lanes,
                observer,
                ready: watch::Sender::new(None),
                setup_again: tokio::sync::Notify::new(),
                supervisor: parts.supervisor,
                metrics: parts.metrics,
                images: std::sync::OnceLock::new(),
            }),
        }
    }

    /// What is known of the containers.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.inner.observer
    }

    /// This wolf.
    #[must_use]
    pub fn wolf(&self) -> &WolfId {
        &self.inner.settings.wolf
    }

    /// Has the keeper of images told which are used; only the first counts.
    pub fn set_images(&self, images: crate::images::Images) {
        let _ = self.inner.images.set(images);
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.inner.engine
    }

    /// The wolf's capacity was measured anew; what is held stays held.
    pub fn set_capacity(&self, inventory: &Inventory) {
        self.inner.admission.lock().set_capacity(inventory.capacity());
    }

    /// What of the wolf is free, as its own guard counts.
    #[must_use]
    pub fn free(&self) -> wolfpack_types::capacity::Free {
        self.inner.admission.lock().free()
    }

    /// How many sandboxes hold goods.
    #[must_use]
    pub fn holding(&self) -> usize {
        self.inner.admission.lock().sandboxes().count()
    }

    /// Removes the directories that no container has: what a crash between
    /// directory and container left; and older binaries of the sandbox agent
    /// when no sandbox can be running one. Only before the first create.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn clear_orphans(&self) -> std::io::Result<()> {
        let root = self.inner.settings.root.clone();
        let known: Vec<SandboxId> =
            self.inner.observer.snapshot().into_iter().map(|seen| seen.identity.sandbox).collect();
        let bin_dir = self.inner.settings.bin_dir.clone();
        blocking(move || {
            if known.is_empty()
                && let Err(error) = directory::remove_other_agents(&bin_dir)
            {
                tracing::warn!(%error, "older binaries of the sandbox agent stay");
            }
            for sandbox in directory::list(&root)?.iter().filter(|found| !known.contains(found)) {
                if let Err(error) = directory::remove(&root, sandbox) {
                    tracing::warn!(%sandbox, %error, "a left-over directory cannot be removed");
                }
            }
            Ok(())
        })
        .await
    }
}

fn now() -> SystemTime {
    clock::now()
}

/// Runs short blocking file work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
