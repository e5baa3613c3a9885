//! An agent that is a process of its own: this program again, told by its
//! environment who it is.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use wolfpack_rpc::{ClientTls, TlsConfig};
use wolfpack_runtime::Context;
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, WolfId};

use crate::support::{Tcp, channel};

/// The name of the test that is the agent.
const PART: &str = "agent::the_agent_of_other_tests";
const WOLF: &str = "WOLFPACK_TEST_AGENT";
const BROKER: &str = "WOLFPACK_TEST_AGENT_BROKER";
const TARGET: &str = "WOLFPACK_TEST_AGENT_TARGET";
const FILES: &str = "WOLFPACK_TEST_AGENT_FILES";

/// The process; it is killed with this.
pub(crate) struct AgentProcess {
    child: Child,
}

impl AgentProcess {
    /// Starts an agent of `wolf` whose target `port` is `tcp`, at a broker.
    pub(crate) fn start(
        wolf: &WolfId,
        identity: &TlsConfig,
        broker: SocketAddr,
        tcp: SocketAddr,
    ) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", PART, "--ignored", "--nocapture"])
            .env(WOLF, wolf.as_str())
            .env(BROKER, broker.to_string())
            .env(TARGET, tcp.to_string())
            .env(FILES, identity.key_file.parent().unwrap())
            // Its end is that of whoever started it.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child }
    }

    pub(crate) fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }
}

/// The id of a process that runs.
pub(crate) fn pid_of(child: &Child) -> Pid {
    let id = child.id().expect("it runs");
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the agent of other tests, which start it as a process of its own"]
async fn the_agent_of_other_tests() {
    let Ok(wolf) = std::env::var(WOLF) else { return };
    let set = |name| std::env::var(name).unwrap();
    wolfpack_runtime::install_crypto_provider();
    let at = |file| std::path::Path::new(&set(FILES)).join(file);
    let files = TlsConfig {
        certificate_file: at("tls.crt"),
        key_file: at("tls.key"),
        roots_file: at("roots.crt"),
    };
    let broker = channel(set(BROKER).parse().unwrap(), &ClientTls::load(&files).unwrap());
    let wolf = WolfId::parse(&wolf).unwrap();
    let mut builder =
        AgentTunnel::builder(AgentTunnelConfig::new(Endpoint::Wolf(wolf), "test"), broker);
    builder.dial_target("port", Arc::new(Tcp(set(TARGET).parse().unwrap())));
    let context = Context::quiet("agent");
    let _tunnel = builder.start(&context.supervisor);
    // Nobody writes: it ends when whoever started it does.
    let _ = tokio::io::stdin().read(&mut [0; 1]).await;
}
