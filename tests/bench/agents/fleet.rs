//! The part that is all of the agents.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use wolfpack_runtime::Context;
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, SandboxId};

use super::attaches;
use crate::identity::Mint;
use crate::parts::agent;

/// Agents of sandboxes, each with an identity and a connection of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fleet {
    pub(crate) broker: SocketAddr,
    pub(crate) roots: Option<PathBuf>,
    /// Makes their tokens.
    pub(crate) mint: Mint,
    pub(crate) agents: usize,
    pub(crate) started_per_second: u32,
}

/// Runs them until the process is killed; tells each attach on standard output.
pub(crate) async fn run(part: Fleet, context: Context) -> anyhow::Result<()> {
    wolfpack_tunnel_broker::files::raise_limit();
    let tls = part.roots.as_deref().map(agent::roots).transpose()?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || attaches::tell(&receiver));
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / part.started_per_second.max(1));
    for _ in 0..part.agents {
        pace.tick().await;
        let sandbox = SandboxId::new();
        let token = SecretString::from(part.mint.token(&sandbox)?);
        let channel = agent::channel(part.broker, tls.as_ref())?.with_bearer(token);
        let config = AgentTunnelConfig::new(Endpoint::Sandbox(sandbox), "bench");
        let tunnel = AgentTunnel::builder(config, channel).start(&context.supervisor);
        context.supervisor.spawn("tell_attached", tell(tunnel, begun, sender.clone()));
    }
    context.supervisor.token().cancelled().await;
    Ok(())
}

async fn tell(tunnel: AgentTunnel, begun: Instant, attached: Sender<Duration>) {
    let mut seen = tunnel.attached();
    while seen.wait_for(|there| *there).await.is_ok() {
        if attached.send(begun.elapsed()).is_err() || seen.wait_for(|there| !*there).await.is_err()
        {
            return;
        }
    }
}
