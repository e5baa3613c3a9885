//! The wolf's agent. It can end, and be replaced, while dockerd and the
//! sandboxes go on; a new one finds them again.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wolfpack_dockerd::daemon::Ended;
use wolfpack_dockerd::status::ChildState;

use super::program::Programs;
use crate::arguments::PREFIX;
use crate::back_off::BackOff;
use crate::record::{Record, now};
use crate::{Config, exit};

/// One that ran this long had a configuration it could use.
const UP: Duration = Duration::from_secs(10);
/// How long one that is replaced may take to end.
const REPLACED: Duration = Duration::from_secs(35);

/// What is said of one that another took over from, and what to do.
const SUPERSEDED: &str = "another agent of this wolf took over, so this one is not started again: \
    two hosts have copies of one state folder; stop or join anew one of them. To have it here again, \
    stop the other and send SIGHUP to PID 1 (docker kill --signal HUP)";

/// How keeping it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AgentEnd {
    /// As told.
    Stopped {
        /// Without being killed.
        in_time: bool,
    },
    /// It never ran: its configuration has faults, and starting it again would
    /// not mend them.
    Config,
}

/// The agent, and how to run it.
#[derive(Debug)]
pub(crate) struct Agent<'a> {
    config: &'a Config,
    record: &'a Record,
    path: OsString,
    programs: Programs,
    been_up: bool,
}

/// Why one that ran does no more.
enum Over {
    Ended(ExitStatus),
    Replace,
    Stop,
}

impl<'a> Agent<'a> {
    pub(crate) fn new(config: &'a Config, record: &'a Record, path: OsString) -> Self {
        let programs = Programs::new(&config.agent.program, config.brought_agent());
        Self { config, record, path, programs, been_up: false }
    }

    /// Keeps one running until `stop`, and replaces it whenever it is asked to.
    pub(crate) async fn keep(
        mut self,
        stop: CancellationToken,
        mut replace: mpsc::Receiver<()>,
    ) -> AgentEnd {
        let mut back_off = BackOff::default();
        loop {
            let started = Instant::now();
            let program = self.programs.choose();
            let trouble = match self.spawn(&program) {
                Ok(mut child) => match over(&mut child, &stop, &mut replace).await {
                    Over::Stop => {
                        let in_time = end(&mut child, self.config.drain * 2 / 5).await;
                        self.record.change(|status| {
                            status.agent.state = ChildState::Stopped;
                            status.agent.pid = None;
                        });
                        return AgentEnd::Stopped { in_time };
                    }
                    Over::Replace => {
                        tracing::info!("the agent is replaced");
                        end(&mut child, REPLACED).await;
                        self.been_up = true;
                        self.record.change(|status| status.agent.replaced += 1);
                        continue;
                    }
                    Over::Ended(status) => {
                        self.been_up |= started.elapsed() >= UP;
                        if !self.been_up && status.code() == Some(i32::from(exit::CONFIG)) {
                            return AgentEnd::Config;
                        }
                        if status.code() == Some(i32::from(exit::SUPERSEDED)) {
                            match self.stay_away(&stop, &mut replace).await {
                                Some(end) => return end,
                                None => continue,
                            }
                        }
                        format!("ended with {}", Ended::from(status))
                    }
                },
                Err(error) => format!("{} cannot be run: {error}", program.display()),
            };
            self.programs.ended(&program, started.elapsed());
            tracing::error!(trouble, "the agent is started again");
            self.record.change(|status| {
                status.agent.state = ChildState::Restarting;
                status.agent.pid = None;
                status.agent.restarts += 1;
                status.agent.trouble = Some(trouble);
            });
            tokio::select! {
                () = tokio::time::sleep(back_off.after(started.elapsed())) => {}
                // Whoever replaces it does not want to wait for the pause.
                Some(()) = replace.recv() => {}
                () = stop.cancelled() => return AgentEnd::Stopped { in_time: true },
            }
        }
    }

    /// Another took over: starting it again would only take over from that one.
    /// The engine and the sandboxes go on. Waits until somebody asks for the
    /// agent, or all ends.
    async fn stay_away(
        &mut self,
        stop: &CancellationToken,
        replace: &mut mpsc::Receiver<()>,
    ) -> Option<AgentEnd> {
        tracing::error!("{SUPERSEDED}");
        self.been_up = true;
        self.record.change(|status| {
            status.agent.state = ChildState::Stopped;
            status.agent.pid = None;
            status.agent.trouble = Some(SUPERSEDED.to_owned());
        });
        tokio::select! {
            Some(()) = replace.recv() => {
                self.record.change(|status| {
                    status.agent.replaced += 1;
                    status.agent.trouble = None;
                });
                None
            }
            () = stop.cancelled() => Some(AgentEnd::Stopped { in_time: true }),
        }
    }

    fn spawn(&self, program: &Path) -> std::io::Result<Child> {
        let mut command = Command::new(program);
        command.args(&self.config.agent.arguments).env("PATH", &self.path).process_group(0);
        for (name, value) in self.told() {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        self.record.change(|status| {
            status.agent.state = ChildState::Running;
            status.agent.pid = child.id();
            status.agent.program = program.to_owned();
            status.agent.since = now();
        });
        Ok(child)
    }

    /// What the agent is told unless somebody tells it otherwise.
    fn told(&self) -> [(&'static str, OsString); 2] {
        [
            ("WOLFPACK_WOLF__DOCKER_HOST", self.config.socket().into_os_string()),
            ("WOLFPACK_WOLF__DATA_DIR", self.config.state_dir.clone().into_os_string()),
        ]
    }
}

/// Waits until one that runs is over.
async fn over(
    child: &mut Child,
    stop: &CancellationToken,
    replace: &mut mpsc::Receiver<()>,
) -> Over {
    tokio::select! {
        // It fails only when somebody else waited, and nobody does.
        status = child.wait() => Over::Ended(status.unwrap_or_default()),
        () = stop.cancelled() => Over::Stop,
        Some(()) = replace.recv() => Over::Replace,
    }
}

/// Asks it to end, and kills it after the deadline; whether it went by itself.
async fn end(child: &mut Child, deadline: Duration) -> bool {
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // Not reaped yet, so the number is still its own.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(deadline, child.wait()).await.is_ok() {
        return true;
    }
    tracing::warn!(?deadline, "the agent does not end, it is killed");
    let _ = child.kill().await;
    false
}

/// Whether a variable is for the init and not for the agent.
fn is_ours(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
