//! Docker in a sandbox, by its mode.
//!
//! With NESTED the agent listens where programs look for Docker from the start,
//! and starts the sandbox's own engine when the socket is first used. The
//! engine is watched by a process of its own ([`warden`]), because here every
//! child belongs to the reaper of PID 1; [`gate`] keeps that process and lets
//! clients through, [`relay`] carries their bytes. With SHARED the place is a
//! link to what the wolf's agent serves. With NONE nothing is there.

pub mod disk;
pub mod gate;
pub mod listing;
pub mod order;
pub mod refusal;
pub mod relay;
pub mod restricted;
pub mod socket;
pub mod warden;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};
use wolfpack_runtime::Supervisor;
use wolfpack_types::DockerMode;
use wolfpack_types::sandbox_boot::{DOCKER_DATA, DOCKER_SOCKET, SHARED_DOCKER_SOCKET, SandboxBoot};

use crate::process::Launcher;
use gate::Gate;
use gate::keeper::Helper;
use order::Order;

/// Where the engine keeps sockets and pid files: emptied at each boot.
pub const RUNTIME_DIR: &str = "/run/wolfpack-docker";

/// What a sandbox has of Docker while it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Docker {
    /// Nothing.
    None,
    /// An engine of its own.
    Nested(Gate),
    /// The wolf's.
    Shared,
}

impl Docker {
    /// Makes what the boot says be there; what fails is logged, and shown by
    /// the socket that is not there: a sandbox without Docker still works.
    #[must_use]
    pub fn start(
        boot: &SandboxBoot,
        boot_dir: &Path,
        launcher: &Launcher,
        supervisor: &Supervisor,
    ) -> Self {
        let place = Path::new(DOCKER_SOCKET);
        match boot.docker {
            DockerMode::None => Self::None,
            DockerMode::Shared => {
                if let Err(error) = socket::link(place, &boot_dir.join(SHARED_DOCKER_SOCKET)) {
                    error!(%error, "the wolf's docker socket could not be linked to {DOCKER_SOCKET}");
                }
                Self::Shared
            }
            DockerMode::Nested => {
                // An earlier boot's pid files name processes of this one.
                let _ = std::fs::remove_dir_all(RUNTIME_DIR);
                let order = Order::of(boot, DOCKER_DATA.into(), RUNTIME_DIR.into());
                let gate = Gate::start(Arc::new(Helper::new(launcher.clone(), order)), supervisor);
                match socket::listen(place) {
                    Ok(listener) => {
                        info!(socket = DOCKER_SOCKET, "an engine starts when its socket is used");
                        relay::serve(listener, gate.clone(), supervisor);
                    }
                    Err(error) => error!(%error, "{DOCKER_SOCKET} cannot be listened on"),
                }
                Self::Nested(gate)
            }
        }
    }

    /// Ends the sandbox's own engine; at most `patience`.
    pub async fn stop(&self, patience: Duration) {
        if let Self::Nested(gate) = self {
            gate.stop(patience).await;
        }
    }
}
