//! For tests: an engine that runs nothing, but speaks the Docker API on a unix
//! socket, so that the real client talks to it. Faults are scripted: each one
//! meets the next call of its kind.

mod api;
mod images;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use wolfpack_runtime::Supervisor;

pub use images::archive;
use state::State;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// What the engine is.
    Info,
    /// Finding a network.
    InspectNetwork,
    /// Making a network.
    CreateNetwork,
    /// Removing a network.
    RemoveNetwork,
    /// Listing networks.
    ListNetworks,
    /// Making a volume.
    CreateVolume,
    /// Removing a volume.
    RemoveVolume,
    /// Listing volumes.
    ListVolumes,
    /// Finding an image.
    InspectImage,
    /// Fetching an image.
    Pull,
    /// Listing images.
    ListImages,
    /// Loading an archive of images.
    LoadImage,
    /// Removing an image.
    RemoveImage,
    /// Making a container.
    Create,
    /// Starting a container.
    Start,
    /// Killing a container.
    Kill,
    /// Removing a container.
    Remove,
    /// Listing containers.
    List,
    /// Looking at a container.
    Inspect,
    /// Following events.
    Events,
    /// Reading logs.
    Logs,
    /// Counting what is on the disk.
    Usage,
}

/// What goes wrong with one call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is answered so much later.
    Slow(Duration),
    /// It is refused with this HTTP status; nothing was done.
    Status(u16, &'static str),
    /// It is done, and then answered with this HTTP status.
    DoneAnd(u16, &'static str),
    /// Of a stream: it begins, then breaks off.
    BreaksOff,
    /// Of a log: it never ends.
    Hangs,
    /// Of a pull: it ends well for HTTP and carries this error.
    InBand(&'static str),
}

/// A container of the fake engine.
#[derive(Debug, Clone)]
pub struct FakeContainer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The request that made it, as JSON of the Docker API.
    pub request: Value,
    /// `created`, `running` or `exited`.
    pub state: &'static str,
    /// How it ended.
    pub exit_code: i64,
    /// Whether it ended for lack of memory.
    pub out_of_memory: bool,
    /// When it was made, in seconds since 1970.
    pub made: i64,
}

impl FakeContainer {
    /// The directory on the host that is mounted at this path inside.
    #[must_use]
    pub fn mounted(&self, target: &str) -> Option<PathBuf> {
        let mounts = self.request["HostConfig"]["Mounts"].as_array()?;
        let mount = mounts.iter().find(|mount| mount["Target"] == target)?;
        mount["Source"].as_str().map(PathBuf::from)
    }

    /// A label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.request["Labels"][key].as_str()
    }
}

/// The fake engine; cheap to clone. It serves until its supervisor stops.
#[derive(Clone)]
pub struct FakeEngine {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    started: broadcast::Sender<FakeContainer>,
}

impl FakeEngine {
    /// Serves on this socket, which must not be there yet. It has
    /// `debian:bookworm-slim` and both `wolfpack/sandbox-…:latest` images.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn start(socket: &Path, supervisor: &Supervisor) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let (started, _) = broadcast::channel(64);
        let engine = Self { socket: socket.to_owned(), state: Arc::default(), started };
        for image in [
            "debian:bookworm-slim",
            "wolfpack/sandbox-base:latest",
            "wolfpack/sandbox-desktop:latest",
        ] {
            engine.add_image(image, serde_json::json!({"Cmd": ["sleep", "infinity"]}));
        }
        let router = api::router(engine.clone());
        let stop = supervisor.token();
        supervisor.spawn("fake-engine", async move {
            let served = axum::serve(listener, router);
            tokio::select! {
                result = served => {
                    if let Err(error) = result {
                        tracing::error!(%error, "the fake engine stopped");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
        Ok(engine)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Has an image, with the `Config` of the Docker API.
    pub fn add_image(&self, reference: &str, config: Value) {
        self.state.lock().images.insert(reference.to_owned(), config);
    }

    /// The names of the images that are there.
    #[must_use]
    pub fn images(&self) -> Vec<String> {
        self.state.lock().images.keys().cloned().collect()
    }

    /// The account that the last pull came with, as the client wrote it.
    #[must_use]
    pub fn account(&self) -> Option<String> {
        self.state.lock().account.clone()
    }

    /// Knows an image that can be fetched.
    pub fn add_remote_image(&self, reference: &str, config: Value) {
        self.state.lock().remote.insert(reference.to_owned(), config);
    }

    /// Has a fault meet the next call of this kind that has none yet.
    pub fn script(&self, call: Call, fault: Fault) {
        self.state.lock().script.entry(call).or_default().push_back(fault);
    }

    /// How many calls of this kind came.
    #[must_use]
    pub fn calls(&self, call: Call) -> usize {
        self.state.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// Has a container that somebody else made from an image.
    pub fn add_container(&self, image: &str) {
        self.state.lock().add_container(image);
    }

    /// Whether to say nothing of what happens from now on.
    pub fn lose_events(&self, lose: bool) {
        self.state.lock().lose_events = lose;
    }

    /// Breaks every stream of events that is open.
    pub fn break_events(&self) {
        self.state.lock().break_events();
    }

    /// Ends the main process of a container, by id or name.
    pub fn exit(&self, container: &str, exit_code: i64, out_of_memory: bool) {
        self.state.lock().exit(container, exit_code, out_of_memory);
    }

    /// Removes a container as somebody else would, by id or name.
    pub fn destroy(&self, container: &str) {
        self.state.lock().remove(container);
    }

    /// Removes a network as somebody else would.
    pub fn destroy_network(&self, name: &str) {
        self.state.lock().networks.remove(name);
    }

    /// Writes to a container's log, by id or name.
    pub fn log(&self, container: &str, stderr: bool, text: &str) {
        self.state.lock().log(container, stderr, text);
    }

    /// The containers that are there.
    #[must_use]
    pub fn containers(&self) -> Vec<FakeContainer> {
        self.state.lock().containers.values().cloned().collect()
    }

    /// Has the engine remap users: root in a container has this uid and gid.
    pub fn remap_users(&self, root: Option<(u32, u32)>) {
        self.state.lock().remapped = root;
    }

    /// The names of the volumes that are there.
    #[must_use]
    pub fn volumes(&self) -> Vec<String> {
        self.state.lock().volumes.keys().cloned().collect()
    }

    /// Says from now on that volumes and layers are in a folder: a volume below
    /// its name, the layer of a container below `layer-` and its id. Before,
    /// it does not say where they are.
    pub fn keep_data_in(&self, folder: &Path) {
        self.state.lock().data = Some(folder.to_owned());
    }

    /// What the engine counts for a volume, by name, or the layer of a
    /// container, by id.
    pub fn count(&self, volume_or_container: &str, bytes: u64) {
        self.state.lock().counted.insert(volume_or_container.to_owned(), bytes);
    }

    /// The names of the networks that are there.
    #[must_use]
    pub fn networks(&self) -> Vec<String> {
        self.state.lock().networks.keys().cloned().collect()
    }

    /// Every container that is started from now on: a test may run in its
    /// place what the container would have run.
    #[must_use]
    pub fn started(&self) -> broadcast::Receiver<FakeContainer> {
        self.started.subscribe()
    }
}
