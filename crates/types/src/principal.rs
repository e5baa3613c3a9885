//! Who is calling.

use std::time::SystemTime;

use crate::id::{ApiKeyId, ExecutionId, ProjectId, SandboxId, UserId, WolfId};

/// What a user may do in a project; each role may do all that a lower one may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Creates, uses and deletes sandboxes.
    Developer,
    /// Manages keys, members and wolves of the project.
    Admin,
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A person or a program with an API key; it acts in the key's project.
    User {
        /// The user.
        user: UserId,
        /// The key.
        key: ApiKeyId,
        /// The project.
        project: ProjectId,
        /// The role there.
        role: Role,
        /// Whether the user manages the platform.
        platform_admin: bool,
        /// When the key ends by itself; `None` for never.
        expires: Option<SystemTime>,
    },
    /// One of our services, by its certificate: its name, such as `scheduler`.
    Service(String),
    /// A wolf, by its certificate.
    Wolf(WolfId),
    /// A sandbox, by its token.
    Sandbox {
        /// The sandbox.
        sandbox: SandboxId,
        /// The project that owns it.
        project: ProjectId,
        /// The boot.
        execution: ExecutionId,
    },
    /// Whoever has a link: it opens one port of one sandbox over HTTP and nothing
    /// else.
    Link {
        /// The sandbox.
        sandbox: SandboxId,
        /// The port, 1 to 65535.
        port: u16,
        /// The project that owns the sandbox.
        project: ProjectId,
        /// Who made the link.
        creator: UserId,
        /// When it ends.
        expires: SystemTime,
    },
    /// Nobody in particular; only rpcs that are open to all see it.
    Anonymous,
}

impl Principal {
    /// The project the principal acts in, if it acts in one.
    #[must_use]
    pub fn project(&self) -> Option<&ProjectId> {
        match self {
            Self::User { project, .. } | Self::Sandbox { project, .. } => Some(project),
            // A link acts in no project: it reaches a port.
            Self::Service(_) | Self::Wolf(_) | Self::Link { .. } | Self::Anonymous => None,
        }
    }

    /// What a user's key may do in its project; `None` for others.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::User { role, .. } => Some(*role),
            _ => None,
        }
    }

    /// The kind of principal, for metrics: one of six words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::Service(_) => "service",
            Self::Wolf(_) => "wolf",
            Self::Sandbox { .. } => "sandbox",
            Self::Link { .. } => "link",
            Self::Anonymous => "anonymous",
        }
    }
}

impl std::fmt::Display for Principal {
    /// `users/{id}`, `services/{name}`, `wolves/{id}`, `sandboxes/{id}`,
    /// `links/{sandbox}:{port}` or `anonymous`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User { user, .. } => write!(f, "users/{user}"),
            Self::Service(name) => write!(f, "services/{name}"),
            Self::Wolf(wolf) => write!(f, "wolves/{wolf}"),
            Self::Sandbox { sandbox, .. } => write!(f, "sandboxes/{sandbox}"),
            Self::Link { sandbox, port, .. } => write!(f, "links/{sandbox}:{port}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}
