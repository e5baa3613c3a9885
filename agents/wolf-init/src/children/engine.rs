//! dockerd. Its containers go on while it is away, and it finds them again.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wolfpack_dockerd::daemon::{Daemon, EngineOptions, ask};
use wolfpack_dockerd::place::iptables::Backend;
use wolfpack_dockerd::status::ChildState;
use wolfpack_runtime::Supervisor;

use crate::Config;
use crate::back_off::BackOff;
use crate::record::Record;
use crate::start::start_engine;

/// How often one that runs is asked.
const ASKED: Duration = Duration::from_secs(15);
/// So often in a row it may fail to answer; a busy disk can hold it for long.
const SILENCES: u32 = 8;
/// How long one that does not answer may take to end.
const SILENT: Duration = Duration::from_secs(10);

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
                ended = daemon.wait() => Some(ended),
                () = self.silent(&self.options.socket) => None,
                () = stop.cancelled() => return Some(daemon),
            };
            let said = daemon.last_lines().pop().unwrap_or_default();
            let trouble = match ended {
                Some(ended) => format!("ended with {ended}"),
                None => {
                    daemon.stop(SILENT).await;
                    "did not answer and was ended".to_owned()
                }
            };
            tracing::error!(trouble, said, "dockerd is started again");
            self.record.change(|status| {
                status.engine.state = ChildState::Restarting;
                status.engine.pid = None;
                status.engine.trouble = Some(trouble);
            });
            daemon = tokio::select! {
                daemon = self.again(&mut back_off, started) => daemon,
                () = stop.cancelled() => return None,
            };
        }
    }

    /// Resolves when it has not answered for long, though it runs.
    async fn silent(&self, socket: &Path) {
        let mut silences = 0;
        while silences < SILENCES {
            tokio::time::sleep(ASKED).await;
            match ask(socket).await {
                Ok(_) => silences = 0,
                Err(error) => {
                    silences += 1;
                    tracing::warn!(error, silences, "dockerd does not answer");
                    let trouble = format!("does not answer: {error}");
                    self.record.change(|status| status.engine.trouble = Some(trouble));
                }
            }
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
