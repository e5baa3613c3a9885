//! Keeps the tunnel attached, wherever the broker is now.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};
use wolfpack_rpc::ByteBudget;
use wolfpack_runtime::{Context, DataThread, Supervisor};
use wolfpack_tunnel::tcp::{TcpPolicy, TcpTargets, Words};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, Fault, PortSet, SandboxId, Target};

use super::Uplink;
use crate::service::{SandboxAgent, serve_tunnel};

/// What the tunnel exports.
pub const TARGET: &str = Target::AGENT;

/// Connections to ports at a time: the rest of what the tunnel takes is the
/// agent's own.
const TCP_CONNECTIONS: usize = 896;

/// How long the tunnel may be away before the next address is tried. The tunnel
/// itself tries the one it has again and again meanwhile.
const AWAY: Duration = Duration::from_secs(20);
const UNKNOWN_PAUSE: Duration = Duration::from_secs(5);
/// Calls that run when an address is given up get this long.
const LEAVE: Duration = Duration::from_secs(2);

/// Attaches as `sandbox` and serves `agent` and the ports that the boot allows
/// on it until the supervisor stops or
/// a newer instance of the sandbox took over.
pub async fn keep_attached(
    uplink: Uplink,
    broker: String,
    sandbox: SandboxId,
    agent: SandboxAgent,
    supervisor: Supervisor,
) {
    // One instance for all attempts: it is one process.
    let config = AgentTunnelConfig::new(Endpoint::Sandbox(sandbox), env!("CARGO_PKG_VERSION"));
    let mut attempt = 0_usize;
    let context =
        Context { telemetry: supervisor.telemetry().clone(), supervisor: supervisor.clone() };
    let data_thread = match DataThread::start("tunnel-data", &context) {
        Ok(thread) => thread,
        Err(error) => {
            warn!(%error, "no thread for the sandbox's own tunnel; it has none");
            return;
        }
    };
    // One for all attempts, too: they count what is open.
    let budget = ByteBudget::default();
    let ports = targets(agent.tcp_ports());
    while !supervisor.token().is_cancelled() {
        let address = match uplink.locate(&broker).await {
            Ok(addresses) => addresses[attempt % addresses.len()].clone(),
            Err(error) => {
                warn!(%error, "the broker is not to be found; trying again");
                pause(&supervisor, UNKNOWN_PAUSE).await;
                continue;
            }
        };
        let there = data_thread.enter();
        let channel = match uplink.broker(&address, &budget) {
            Ok(channel) => channel,
            // The configuration is wrong, and stays so for this boot.
            Err(error) => {
                warn!(%error, "the sandbox has no tunnel of its own");
                return;
            }
        };
        info!(broker, address, "attaching the sandbox's own tunnel");
        let tasks = supervisor.child();
        let mut builder = AgentTunnel::builder(config.clone(), channel);
        let listener = builder.listen(TARGET);
        if let Some(ports) = &ports {
            builder.dial_family(Target::TCP, ports.clone());
        }
        let tunnel = builder.start(&tasks);
        drop(there);
        let (serving, stop) = (agent.clone(), tasks.token());
        tasks.spawn("tunnel_serve", async move {
            if let Err(error) = serve_tunnel(serving, listener, stop).await {
                warn!(%error, "the tunnel is no longer served");
            }
        });
        let stop = supervisor.token();
        let over = tokio::select! {
            () = away(tunnel.attached(), AWAY) => Over::Away,
            () = superseded(tunnel.ended()) => Over::Final,
            () = stop.cancelled() => Over::Final,
        };
        tasks.shutdown(LEAVE).await;
        match over {
            Over::Away => attempt += 1,
            Over::Final => return,
        }
    }
}

/// What is dialed on the sandbox's own loopback; `None` when nothing is.
fn targets(ports: &PortSet) -> Option<Arc<TcpTargets>> {
    let policy = TcpPolicy { loopback: ports.clone(), ..TcpPolicy::default() };
    let words = Words { of: "sandbox", setting: "targets.sandbox_tcp of its wolf's agent" };
    (!policy.is_empty()).then(|| Arc::new(TcpTargets::new(policy, words, TCP_CONNECTIONS)))
}

enum Over {
    /// The broker did not answer at this address.
    Away,
    /// There is nothing to come back to.
    Final,
}

/// Waits until the tunnel was away for `bound` without a break.
async fn away(mut attached: watch::Receiver<bool>, bound: Duration) {
    loop {
        let back = attached.wait_for(|attached| *attached);
        match tokio::time::timeout(bound, back).await.map(|seen| seen.is_ok()) {
            Err(_elapsed) => return,
            Ok(true) => {}
            Ok(false) => break,
        }
        if attached.wait_for(|attached| !*attached).await.is_err() {
            break;
        }
    }
    // The tunnel has ended, which is told elsewhere.
    std::future::pending::<()>().await;
}

async fn superseded(mut ended: watch::Receiver<Option<Fault>>) {
    let fault = ended.wait_for(Option::is_some).await.ok().and_then(|fault| fault.clone());
    match fault {
        Some(fault) => {
            warn!(reason = %fault.reason, "the tunnel ended for good: {}", fault.message);
        }
        None => std::future::pending().await,
    }
}

async fn pause(supervisor: &Supervisor, pause: Duration) {
    let stop = supervisor.token();
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_long_absence_counts() {
        let bound = Duration::from_millis(800);
        let (attached, seen) = watch::channel(false);
        let waiting = tokio::spawn(away(seen, bound));
        tokio::time::sleep(bound / 4).await;
        attached.send_replace(true);
        tokio::time::sleep(bound * 2).await;
        assert!(!waiting.is_finished(), "it is attached");
        for _ in 0..4 {
            attached.send_replace(false);
            tokio::time::sleep(bound / 4).await;
            attached.send_replace(true);
            tokio::time::sleep(bound / 4).await;
        }
        assert!(!waiting.is_finished(), "it was away for a while, often");
        attached.send_replace(false);
        tokio::time::timeout(bound * 10, waiting).await.unwrap().unwrap();
    }
}
