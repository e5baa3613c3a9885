//! Which boot of which sandbox, on which wolf, over which tunnel.

use wolfpack_proto::sandbox::v1::TunnelPath;
use wolfpack_types::{Endpoint, ExecutionId, ParseIdError, SandboxId, Target, WolfId};

use crate::store::Sandbox;

/// A tunnel to a sandbox's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Path {
    /// The sandbox's own.
    Sandbox,
    /// Its wolf's.
    Wolf,
}

impl Path {
    /// Its name in metrics and errors.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Wolf => "wolf",
        }
    }
}

impl From<Path> for TunnelPath {
    fn from(path: Path) -> Self {
        match path {
            Path::Sandbox => Self::Sandbox,
            Path::Wolf => Self::Wolf,
        }
    }
}

/// One boot of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    /// The sandbox.
    pub(crate) sandbox: SandboxId,
    /// Where it is.
    pub(crate) wolf: WolfId,
    /// The boot.
    pub(crate) execution: ExecutionId,
}

impl Route {
    /// The route to the boot of a row; `None` before it was placed.
    pub(crate) fn of(row: &Sandbox) -> Option<Self> {
        let boot = row.record.live_boot()?;
        Some(Self {
            sandbox: row.id.clone(),
            wolf: boot.wolf.clone(),
            execution: boot.execution.clone(),
        })
    }

    /// What to dial for a tunnel.
    pub(super) fn dial(&self, path: Path) -> Result<(Endpoint, Target), ParseIdError> {
        Ok(match path {
            Path::Sandbox => {
                (Endpoint::Sandbox(self.sandbox.clone()), Target::parse(Target::AGENT)?)
            }
            Path::Wolf => (Endpoint::Wolf(self.wolf.clone()), Target::sandbox_agent(&self.sandbox)),
        })
    }
}
