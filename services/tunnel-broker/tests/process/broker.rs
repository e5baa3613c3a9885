//! A broker that is a process of its own, with everything else in this one.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use wolfpack_rpc::ClientTls;
use wolfpack_runtime::Context;
use wolfpack_tunnel::Dialer;
use wolfpack_types::WolfId;

use crate::support::{Ca, Registry, SOON, channel};

/// Everything but the broker.
pub(crate) struct Outside {
    pub(crate) folder: TempDir,
    pub(crate) ca: Ca,
    pub(crate) registry: Registry,
    /// Where the broker takes agents.
    pub(crate) agents: SocketAddr,
    internal: SocketAddr,
    pub(crate) context: Context,
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Outside {
    pub(crate) async fn new() -> Self {
        wolfpack_runtime::install_crypto_provider();
        let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        let registry = Registry::start(&ca, folder.path()).await;
        let (agents, internal) = (free_port(), free_port());
        Self { folder, ca, registry, agents, internal, context: Context::quiet("test") }
    }

    /// Starts the broker; it ends with what is given back.
    pub(crate) fn broker(&self) -> Child {
        let tls = self.ca.service(self.folder.path(), "tunnel-broker");
        let set = |key: &str| format!("WOLFPACK_TUNNEL_BROKER__{key}");
        Command::new(env!("CARGO_BIN_EXE_wolfpack-tunnel-broker"))
            .env(set("LISTEN"), self.internal.to_string())
            .env(set("AGENTS"), self.agents.to_string())
            .env(set("REGISTRY__ADDRESS"), format!("https://{}", self.registry.address))
            .env(set("TLS__CERTIFICATE_FILE"), tls.certificate_file)
            .env(set("TLS__KEY_FILE"), tls.key_file)
            .env(set("TLS__ROOTS_FILE"), tls.roots_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Waits until the broker takes connections of agents.
    pub(crate) async fn listening(&self) {
        let listening = async {
            while TcpStream::connect(self.agents).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, listening).await.expect("the broker starts");
    }

    pub(crate) fn dialer(&self) -> Dialer {
        let files = self.ca.service(self.folder.path(), "sandbox-manager");
        Dialer::new(channel(self.internal, &ClientTls::load(&files).unwrap()))
    }

    /// Writes what a wolf proves itself with, and says where.
    pub(crate) fn identity(&self, wolf: &WolfId) -> wolfpack_rpc::TlsConfig {
        self.ca.wolf(self.folder.path(), wolf)
    }
}
