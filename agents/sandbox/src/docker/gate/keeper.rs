//! The process that keeps the engine, as the gate starts it: this same binary.

use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Started, Starter};
use crate::docker::order::{Order, Report};
use crate::docker::refusal::Refusal;
use crate::docker::warden;
use crate::process::launch::{Ends, KillOnDrop};
use crate::process::{Identity, Launch, Launcher, Pipes, Wires};

/// Reports that wait for the gate.
const REPORTS: usize = 8;
/// A report is shorter.
const LINE_LIMIT: u64 = 64 * 1024;
/// Between the end of its stdout and its own end.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Starts keeping processes by an order.
#[derive(Debug)]
pub struct Helper {
    launcher: Launcher,
    order: Order,
}

impl Helper {
    /// A starter for engines by this order.
    #[must_use]
    pub fn new(launcher: Launcher, order: Order) -> Self {
        Self { launcher, order }
    }
}

#[async_trait]
impl Starter for Helper {
    async fn start(&self, cleaning: bool) -> Result<Started, Refusal> {
        let order = Order { cleaning, ..self.order.clone() };
        let order = serde_json::to_string(&order)
            .map_err(|error| Refusal::failed(format!("the engine's order: {error}")))?;
        let launch = Launch {
            argv: vec![
                Launcher::OWN_BINARY.to_owned(),
                warden::SUBCOMMAND.to_owned(),
                format!("--order={order}"),
            ],
            env: self.order.env.clone(),
            cwd: "/".to_owned(),
            identity: Identity { uid: 0, gid: 0, groups: Vec::new() },
            wires: Wires::Pipes,
        };
        let launched = self.launcher.launch(&launch).await.map_err(|error| {
            Refusal::failed(format!("the process that keeps the engine was not started: {error}"))
        })?;
        let guard = KillOnDrop::new(self.launcher.reaper(), launched.pid);
        let Ends::Pipes(Pipes { stdin, stdout, stderr }) = launched.ends else {
            return Err(Refusal::failed("the process that keeps the engine has no pipes"));
        };
        let (sender, reports) = mpsc::channel(REPORTS);
        let end = launched.end;
        // Both end with the process, whose guard ends it.
        tokio::spawn(forward(stdout, sender, end));
        tokio::spawn(log(stderr));
        let leash = Leash(Some(stdin));
        Ok(Started { reports, leash: Box::new(leash), guard: Box::new(guard) })
    }
}

/// The end of its stdin asks it to stop.
struct Leash(Option<tokio::net::unix::pipe::Sender>);

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

async fn forward(
    stdout: tokio::net::unix::pipe::Receiver,
    reports: mpsc::Sender<Report>,
    end: tokio::sync::oneshot::Receiver<crate::init::Exit>,
) {
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    while let Ok(1..) = (&mut stdout).take(LINE_LIMIT).read_line(&mut line).await {
        match serde_json::from_str(&line) {
            Ok(report) => {
                if reports.send(report).await.is_err() {
                    break;
                }
            }
            Err(error) => warn!(line, %error, "the engine's keeper said something odd"),
        }
        line.clear();
    }
    let _ = tokio::time::timeout(END_PATIENCE, end).await;
}

/// What it logs is in the agent's log too.
async fn log(stderr: tokio::net::unix::pipe::Receiver) {
    let mut stderr = BufReader::new(stderr);
    let mut line = String::new();
    while let Ok(1..) = (&mut stderr).take(LINE_LIMIT).read_line(&mut line).await {
        info!(engine = line.trim_end(), "the sandbox's engine");
        line.clear();
    }
}
