//! What the init of a wolf's container says about itself, as a file that
//! whoever is in the container can read.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::daemon::EngineFacts;
use crate::place::StepFailed;
use crate::place::iptables::Choice;
use crate::place::nvidia::Nvidia;
use crate::plan::NetworkPlan;

/// Where the file is, below the folder of what runs (`/run`).
pub const FILE: &str = "wolfpack-init/status.json";

/// What the init is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its steps are on their way.
    #[default]
    Starting,
    /// Engine and agent run.
    Running,
    /// It was told to end and ends what it started.
    Draining,
    /// It has ended as told.
    Stopped,
    /// A step failed and it has ended; `failed` names it.
    Failed,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Done,
    /// Failed, and the wolf works without; the note says what is missing.
    Degraded,
}

/// A step of the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, one word.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// What was done or found, in words.
    pub note: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// What a child does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// It has not been started yet.
    #[default]
    Waiting,
    /// It is started and not ready.
    Starting,
    /// It runs.
    Running,
    /// It ended, and is started again after a pause.
    Restarting,
    /// It was ended.
    Stopped,
}

/// One of the two children.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// What it does.
    pub state: ChildState,
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// What is run.
    pub program: PathBuf,
    /// How often it was started again because it had ended.
    pub restarts: u64,
    /// How often it was replaced because somebody asked for it.
    pub replaced: u64,
    /// When it was started last, in seconds since 1970.
    pub since: u64,
    /// How it ended last, or why it does not start.
    pub trouble: Option<String>,
}

/// What the init says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InitStatus {
    /// What it is doing.
    pub state: State,
    /// When it was started, in seconds since 1970.
    pub since: u64,
    /// The steps so far, in order.
    pub steps: Vec<Step>,
    /// The step it ended for.
    pub failed: Option<StepFailed>,
    /// The networks of its engine.
    pub plan: Option<NetworkPlan>,
    /// Which iptables is used.
    pub iptables: Option<Choice>,
    /// What the engine can do with GPUs.
    pub nvidia: Option<Nvidia>,
    /// Where names are answered.
    pub dns: Vec<SocketAddr>,
    /// dockerd.
    pub engine: Child,
    /// What the engine says about itself.
    pub engine_facts: Option<EngineFacts>,
    /// The wolf's agent.
    pub agent: Child,
}

impl InitStatus {
    /// Whether the wolf does its work: both children run.
    #[must_use]
    pub fn healthy(&self) -> bool {
        let runs = |child: &Child| child.state == ChildState::Running;
        self.state == State::Running && runs(&self.engine) && runs(&self.agent)
    }

    /// The steps without which the wolf goes on.
    pub fn degraded(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.outcome == Outcome::Degraded)
    }

    /// Reads the file below `run_dir`. Blocking.
    ///
    /// # Errors
    /// When there is none, or it is no status.
    pub fn read(run_dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(run_dir.join(FILE))?)?)
    }

    /// Writes the file below `run_dir`, whole or not at all. Blocking.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, run_dir: &Path) -> io::Result<()> {
        let file = run_dir.join(FILE);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let beside = file.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(beside, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut status = InitStatus { since: 7, ..InitStatus::default() };
        status.failed = Some(StepFailed::new("storage", "it is an overlay", "mount a volume"));
        status.nvidia = Some(Nvidia::Ready { runtime: None, cdi: true, version: "1.18.0".into() });
        status.write(dir.path()).unwrap();
        assert_eq!(InitStatus::read(dir.path()).unwrap(), status);
        assert!(InitStatus::read(&dir.path().join("none")).is_err());
    }

    #[test]
    fn it_is_healthy_while_both_children_run() {
        let running = || Child { state: ChildState::Running, ..Child::default() };
        let status = InitStatus {
            state: State::Running,
            engine: running(),
            agent: running(),
            ..InitStatus::default()
        };
        assert!(status.healthy());
        assert!(!InitStatus { engine: Child::default(), ..status.clone() }.healthy());
        assert!(!InitStatus { agent: Child::default(), ..status.clone() }.healthy());
        assert!(!InitStatus { state: State::Draining, ..status }.healthy());
    }
}
