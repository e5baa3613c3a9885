//! The wolf's engine for sandboxes that may have it: a socket in the sandbox's
//! boot directory, owned by the sandbox's root, whose requests go to the
//! engine's own. Whoever has it owns the wolf; it is no boundary. It is a
//! socket of our own since the engine's belongs to nobody in a sandbox whose
//! users are remapped, and since what is made through it is labelled as the
//! sandbox's, so that it is shown with it and goes with it.

mod door;
mod labelled;
mod proxy;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wolfpack_runtime::Supervisor;
use wolfpack_types::{SandboxId, WolfId};

/// The sockets of the sandboxes that share the wolf's engine.
pub struct SharedDocker {
    engine: PathBuf,
    wolf: WolfId,
    supervisor: Supervisor,
    served: Mutex<HashMap<SandboxId, Served>>,
}

struct Served {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl SharedDocker {
    /// None is served yet.
    #[must_use]
    pub fn new(engine: PathBuf, wolf: WolfId, supervisor: Supervisor) -> Self {
        Self { engine, wolf, supervisor, served: Mutex::default() }
    }

    /// Serves a sandbox whose directory is under `root` until
    /// [`SharedDocker::stop`]; one that is served goes on.
    ///
    /// # Errors
    /// When the socket cannot be made there.
    pub async fn serve(
        &self,
        root: &Path,
        sandbox: &SandboxId,
        owner: Option<(u32, u32)>,
    ) -> io::Result<()> {
        if self.served.lock().contains_key(sandbox) {
            return Ok(());
        }
        let (folder, named) = (root.to_owned(), sandbox.clone());
        let bound = tokio::task::spawn_blocking(move || door::bind(&folder, &named, owner));
        let listener = tokio::net::UnixListener::from_std(bound.await.map_err(io::Error::other)??)?;
        let stop = self.supervisor.token().child_token();
        let tasks = TaskTracker::new();
        let proxy = Arc::new(proxy::Proxy {
            engine: self.engine.clone(),
            labels: labelled::Labels::of(&self.wolf, sandbox),
        });
        let serving = proxy::serve(proxy, listener, stop.clone(), tasks.clone());
        self.supervisor.spawn("shared-docker", tasks.track_future(serving));
        let before = self.served.lock().insert(sandbox.clone(), Served { stop, tasks });
        if let Some(before) = before {
            before.stop.cancel();
        }
        tracing::info!(%sandbox, "the sandbox has the wolf's own engine");
        Ok(())
    }

    /// Ends a sandbox's socket and all that goes through it, and returns when
    /// nothing more reaches the engine; one that is not served has ended.
    pub async fn stop(&self, sandbox: &SandboxId) {
        let Some(served) = self.served.lock().remove(sandbox) else { return };
        served.stop.cancel();
        served.tasks.close();
        served.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests;
