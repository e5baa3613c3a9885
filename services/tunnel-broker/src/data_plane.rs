//! Where the data plane runs: on threads with a runtime each that does not
//! move tasks about. A connection's frames then pass from socket to socket on
//! one core, which a work-stealing runtime did not match in any measurement.

use std::mem::take;
use std::thread;

use futures::future::{join_all, try_join_all};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use wolfpack_rpc::Server;
use wolfpack_runtime::{BoxError, Telemetry};

/// The runtimes of the data plane, which run nothing yet.
pub(crate) struct DataPlane {
    /// None: it shares the runtime of the process.
    threads: Vec<Runtime>,
}

impl DataPlane {
    /// As many runtimes as threads are set aside.
    ///
    /// # Errors
    /// When a runtime cannot be made.
    pub(crate) fn new(threads: usize) -> Result<Self, BoxError> {
        let runtime = || Builder::new_current_thread().enable_all().build();
        Ok(Self { threads: (0..threads).map(|_| runtime()).collect::<Result<_, _>>()? })
    }

    /// Where work may be put while [`DataPlane::run`] runs. Inside a runtime only.
    pub(crate) fn handles(&self) -> Vec<Handle> {
        if self.threads.is_empty() {
            return vec![Handle::current()];
        }
        self.threads.iter().map(|runtime| runtime.handle().clone()).collect()
    }

    /// Runs a set of servers on each thread, until all have ended and `drained` is
    /// cancelled; `shares` has one set for each. With no thread set aside they run right here.
    ///
    /// # Errors
    /// When a thread cannot be made, or the first error of a server.
    pub(crate) async fn run(
        mut self,
        shares: Vec<Vec<Server>>,
        telemetry: &Telemetry,
        drained: &CancellationToken,
    ) -> Result<(), BoxError> {
        if self.threads.is_empty() {
            let all = shares.into_iter().flatten().map(Server::serve);
            return try_join_all(all).await.map(drop);
        }
        let mut running = Vec::with_capacity(shares.len());
        for (at, (runtime, servers)) in take(&mut self.threads).into_iter().zip(shares).enumerate()
        {
            let (ended, end) = oneshot::channel();
            let (telemetry, drained) = (telemetry.clone(), drained.clone());
            thread::Builder::new().name(format!("tunnel-data-{at}")).spawn(move || {
                let _own = telemetry.own_thread();
                let all = try_join_all(servers.into_iter().map(Server::serve));
                let all = async {
                    let result = all.await.map(drop);
                    if result.is_ok() {
                        // Connections of exposures run here, too, and not by a server.
                        drained.cancelled().await;
                    }
                    result
                };
                let _ = ended.send(runtime.block_on(all));
            })?;
            running.push(end);
        }
        for end in join_all(running).await {
            end.map_err(|_| "a thread of the data plane panicked")??;
        }
        Ok(())
    }
}

impl Drop for DataPlane {
    /// Runtimes that never ran: waiting for them is not allowed where tasks run.
    fn drop(&mut self) {
        for runtime in take(&mut self.threads) {
            runtime.shutdown_background();
        }
    }
}
