//! The rpcs: check, authorise, do, map. Nothing here knows of SQL.

mod answer;
mod containers;
mod desktop;
mod doctor;
mod exec;
mod images;
mod io;
mod logs;
mod ports;
mod sandboxes;
mod tunnel_checks;
mod watch;
mod wolves;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tonic::Status;
use wolfpack_rpc::request::Caller;
use wolfpack_rpc::to_status;
use wolfpack_types::{DockerMode, Fault, Reason, Role, SandboxId, SandboxState};

use crate::domain::{Defaults, docker_of};
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::reach::{Reach, Route};
use crate::reconcile::Queue;
use crate::store::{Sandbox, Sandboxes};

/// What the handlers work with.
pub(crate) struct Parts {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) feed: Feed,
    pub(crate) queue: Queue,
    pub(crate) reach: Reach,
    pub(crate) peers: Peers,
    pub(crate) metrics: Metrics,
    pub(crate) defaults: Defaults,
    /// This replica, as an owner of rows, and for how long at a time.
    pub(crate) holder: String,
    pub(crate) lease: Duration,
    /// Where browsers find the ports of sandboxes, once that is known.
    pub(crate) ingress_url: OnceLock<String>,
}

/// The handlers of all services; cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    parts: Arc<Parts>,
}

impl Api {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Says where browsers find the ports of sandboxes, unless that is known.
    pub(crate) fn set_ingress_url(&self, url: String) {
        let _ = self.parts.ingress_url.set(url);
    }

    /// A sandbox of the caller's project.
    async fn sandbox(&self, caller: &Caller, name: &str) -> Result<Sandbox, Status> {
        let project = caller.project()?;
        let id = id_of(name)?;
        self.parts.sandboxes.get_in(project, &id).await.map_err(refuse)
    }

    /// The way into a sandbox of the caller's project that runs, to act in it or to see what is typed there. Asks for the
    /// role that may make such a sandbox: in one that shares its wolf's engine everybody inside owns the wolf.
    async fn enter(&self, caller: &Caller, name: &str) -> Result<Route, Status> {
        let sandbox = self.sandbox(caller, name).await?;
        caller.require(role_inside(docker_of(&sandbox.asked.spec)))?;
        Self::route(&sandbox)
    }

    /// The way to the agent of a sandbox that runs.
    fn route(sandbox: &Sandbox) -> Result<Route, Status> {
        let not_running = |message: String| {
            to_status(
                Fault::new(Reason::SandboxNotRunning, message)
                    .about(sandbox.id.name())
                    .with("state", sandbox.record.state.as_str()),
            )
        };
        match sandbox.record.state {
            SandboxState::Running => {
                Route::of(sandbox).ok_or_else(|| not_running("it has no placement".to_owned()))
            }
            SandboxState::Lost => Err(to_status(
                Fault::new(Reason::SandboxUnreachable, sandbox.record.message.clone())
                    .about(sandbox.id.name()),
            )),
            state @ (SandboxState::Failed | SandboxState::Deleting | SandboxState::Deleted) => {
                Err(not_running(format!(
                    "the sandbox is {state} and will not run again; make a new one"
                )))
            }
            state => Err(not_running(format!(
                "the sandbox is {state}, not running; watch it to see it run"
            ))),
        }
    }
}

/// Who may make a sandbox of a docker mode, and act in it.
fn role_inside(mode: DockerMode) -> Role {
    match mode {
        DockerMode::None | DockerMode::Nested => Role::Developer,
        DockerMode::Shared => Role::Admin,
    }
}

/// Reads a name that the rules of the proto have passed.
fn id_of(name: &str) -> Result<SandboxId, Status> {
    SandboxId::from_name(name).map_err(|error| to_status(error.into()))
}

/// An error of the store as the caller sees it.
fn refuse(error: impl Into<Fault>) -> Status {
    to_status(error.into())
}
