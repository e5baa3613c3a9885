//! dockerd. Its containers go on while it is away, and it finds them again.

use std::time::Instant;

use tokio_util::sync::CancellationToken;
use wolfpack_dockerd::daemon::{Daemon, EngineOptions};
use wolfpack_dockerd::place::iptables::Backend;
use wolfpack_dockerd::status::ChildState;
use wolfpack_runtime::Supervisor;

use crate::Config;
use crate::back_off::BackOff;
use crate::record::Record;
use crate::start::start_engine;

/// What is needed to start it again.
#[derive(Debug)]
pub(crate) struct Engine<'a> {
    pub config: &'a Config,
    pub options: EngineOptions,
    pub backend: Backend,
    pub record: &'a Record,
    pub tasks: &'a Supervisor,
}

impl Engine<'_> {
    /// Keeps it running until `stop`; then the one that runs, if one does, is
    /// handed back.
    pub(crate) async fn keep(self, mut daemon: Daemon, stop: CancellationToken) -> Option<Daemon> {
        let mut back_off = BackOff::default();
        loop {
            let started = Instant::now();
            let ended = tokio::select! {
                ended = daemon.wait() => ended,
                () = stop.cancelled() => return Some(daemon),
            };
            let said = daemon.last_lines().pop().unwrap_or_default();
            tracing::error!(%ended, said, "dockerd ended, it is started again");
            self.record.change(|status| {
                status.engine.state = ChildState::Restarting;
                status.engine.pid = None;
                status.engine.trouble = Some(format!("ended with {ended}"));
            });
            daemon = tokio::select! {
                daemon = self.again(&mut back_off, started) => daemon,
                () = stop.cancelled() => return None,
            };
        }
    }

    /// Tries until it runs.
    async fn again(&self, back_off: &mut BackOff, mut started: Instant) -> Daemon {
        loop {
            tokio::time::sleep(back_off.after(started.elapsed())).await;
            started = Instant::now();
            self.record.change(|status| status.engine.restarts += 1);
            let options = &self.options;
            match start_engine(self.config, options, self.backend, self.record, self.tasks).await {
                Ok(daemon) => return daemon,
                Err(error) => tracing::error!(%error, "dockerd does not start"),
            }
        }
    }
}
