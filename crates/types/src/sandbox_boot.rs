//! What a wolf's agent tells the agent inside a sandbox at each start: the
//! file `config.json` in the directory that is mounted at `/run/wolfpack`.
//!
//! The directory also holds `token` (mode 0600, rewritten by the sandbox's
//! agent when it refreshes it), `ca.crt` (the roots that broker and gateway are
//! verified by) and `bin/`, read-only, with the agent itself. The sandbox's
//! agent makes `agent.sock` there.

use std::collections::BTreeMap;

use crate::docker_mode::DockerMode;
use crate::id::{ExecutionId, ProjectId, SandboxId};
use crate::port_set::PortSet;

/// Where the directory is mounted.
pub const BOOT_DIR: &str = "/run/wolfpack";
/// This struct, as JSON.
pub const CONFIG_FILE: &str = "config.json";
/// The token that names this sandbox and boot.
pub const TOKEN_FILE: &str = "token";
/// Roots to verify broker and gateway by, PEM.
pub const CA_FILE: &str = "ca.crt";
/// The socket that the sandbox's agent serves on, for the way through the wolf.
pub const AGENT_SOCKET: &str = "agent.sock";
/// The directory of programs, mounted read-only.
pub const BIN_DIR: &str = "bin";
/// The agent's file name in `bin/`; the container's entrypoint.
pub const AGENT_BINARY: &str = "wolfpack-sandbox-agent";
/// The one name by which a sandbox reaches broker and gateway.
pub const INTERNAL_HOST: &str = "wolfpack.internal";

/// Where a program in the sandbox looks for Docker.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Where the sandbox's own engine keeps its data: a volume, never the
/// container's own file system.
pub const DOCKER_DATA: &str = "/var/lib/docker";
/// The wolf's engine as a SHARED sandbox reaches it, in the directory.
pub const SHARED_DOCKER_SOCKET: &str = "docker.sock";

/// What the sandbox's own engine must keep to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NestedEngine {
    /// How many engines are above it: 1 below a machine's own engine, 2 below
    /// that of a wolf container.
    pub depth: u8,
    /// Bytes its data may take; absent when the file system keeps it to its
    /// quota, or when there is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Networks that are in use around the wolf and must stay reachable from
    /// inside; this engine's own must overlap none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<ipnet::Ipv4Net>,
}

/// One boot of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SandboxBoot {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The project that owns it.
    pub project: ProjectId,
    /// This boot.
    pub execution: ExecutionId,
    /// The main process: the user's command, else the image's entrypoint and
    /// command. Empty when neither has one: the agent then only waits.
    pub argv: Vec<String>,
    /// The image's user as the image says it: empty (root), `name`, `uid`,
    /// `name:group` or `uid:gid`.
    pub user: String,
    /// Environment of the main process and of execs: the image's, overlaid by
    /// the user's.
    pub env: BTreeMap<String, String>,
    /// Working directory of the main process and of execs; absolute.
    pub cwd: String,
    /// Whether to run a desktop.
    pub desktop: bool,
    /// Where to attach the sandbox's own tunnel: `https://wolfpack.internal:PORT`.
    pub broker: String,
    /// Where to refresh the token: `https://wolfpack.internal:PORT`.
    pub gateway: String,
    /// Uid that must be able to connect to `agent.sock`: the wolf agent's own,
    /// as it is seen inside the sandbox. The socket is given to it, mode 0600.
    pub socket_uid: u32,
    /// Where to send traces by OTLP over gRPC; absent for nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// What it has of Docker.
    #[serde(default)]
    pub docker: DockerMode,
    /// Its own engine; only with [`DockerMode::Nested`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nested: Option<NestedEngine>,
    /// Ports of its own loopback that may be dialed as `tcp:{port}`; a wolf that
    /// says nothing leaves it to the sandbox, and that is all.
    #[serde(default = "PortSet::all")]
    pub tcp_ports: PortSet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_added_by_a_newer_wolf_and_left_out_by_an_older_one() {
        let json = r#"{"sandbox":"s1","project":"p1","execution":"e1","argv":["sleep","1"],
            "user":"1000:1000","env":{"A":"b"},"cwd":"/","desktop":false,
            "broker":"https://wolfpack.internal:8444","gateway":"https://wolfpack.internal:8443",
            "socket_uid":0,"something_new":1}"#;
        let boot: SandboxBoot = serde_json::from_str(json).unwrap();
        assert_eq!(boot.sandbox.as_str(), "s1");
        assert_eq!(boot.otlp_endpoint, None);
        assert_eq!(boot.tcp_ports, PortSet::all());
        let again: SandboxBoot =
            serde_json::from_str(&serde_json::to_string(&boot).unwrap()).unwrap();
        assert_eq!(again, boot);
    }
}
