//! Sets the engine up: the bridge, the relay on it, and what runs already.
//! Done at the start, and again when the bridge is gone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use wolfpack_runtime::{BoxError, Supervisor};
use wolfpack_types::WolfId;

use crate::engine::Network;
use crate::firewall;
use crate::lifecycle::{Lifecycle, Ready, RelayPorts};
use crate::metrics::Metrics;
use crate::relay::{PortsFile, Relay, Target};
use crate::sandbox::{directory, labels};

/// How much of the wolf's id a network's name has.
const WOLF_IN_NAME: usize = 12;
/// How often a bridge is looked for that somebody removes under us.
const LOOK: Duration = Duration::from_secs(60);

/// How long a stop waits for the bridge to be taken away.
const LEAVE: Duration = Duration::from_secs(5);

/// What setting up needs.
pub(crate) struct Setup {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) wolf: WolfId,
    pub(crate) network: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) wanted: RelayPorts,
    pub(crate) gateway: Target,
    pub(crate) broker: Target,
    pub(crate) supervisor: Supervisor,
    pub(crate) metrics: Metrics,
    /// The relay that listens, and the bridge's address it is on.
    pub(crate) relay: Mutex<Option<(std::net::Ipv4Addr, Relay)>>,
    /// Whether clouds' metadata was out of reach when it was looked at last.
    pub(crate) guarded: Mutex<Option<bool>>,
}

/// The name of a wolf's bridge: its own, whoever else uses the engine.
pub(crate) fn network_name(wolf: &WolfId) -> String {
    let wolf = wolf.as_str();
    format!("wolfpack-{}", &wolf[wolf.len().saturating_sub(WOLF_IN_NAME)..])
}

impl Setup {
    /// Sets up, then waits until it is needed again. Ends with an error when
    /// the engine does not answer; run it again.
    pub(crate) async fn run(&self) -> Result<(), BoxError> {
        let stop = self.supervisor.token();
        tokio::select! {
            failed = self.whenever_needed() => failed,
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn whenever_needed(&self) -> Result<(), BoxError> {
        loop {
            self.once().await?;
            tokio::select! {
                () = self.lifecycle.setup_needed() => {
                    tracing::warn!("the bridge of the sandboxes is gone; it is made again");
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn once(&self) -> Result<(), BoxError> {
        let engine_api = self.lifecycle.engine();
        let engine = engine_api.info().await?;
        let owner = BTreeMap::from([(labels::WOLF.to_owned(), self.wolf.to_string())]);
        self.close(engine.remapped_root).await?;
        let network = engine_api.ensure_network(&self.network, &owner).await?;
        self.guard(&network).await;
        let ports = self.relay_on(network.gateway).await?;
        let first = self.lifecycle.ready_now().is_none();
        let ready = Ready { engine, network, ports };
        if self.lifecycle.ready_now().as_ref() == Some(&ready) {
            return Ok(());
        }
        if first {
            // What runs is known before anything is admitted.
            self.lifecycle.observer().resync().await?;
            self.lifecycle.clear_orphans().await?;
        }
        tracing::info!(
            engine = ready.engine.version,
            network = ready.network.name,
            bridge = %ready.network.gateway,
            gateway_port = ports.gateway,
            broker_port = ports.broker,
            holding = self.lifecycle.holding(),
            "the engine is set up"
        );
        self.lifecycle.set_ready(ready);
        Ok(())
    }

    async fn close(&self, remapped: Option<(u32, u32)>) -> Result<(), BoxError> {
        let data_dir = self.data_dir.clone();
        let closed =
            tokio::task::spawn_blocking(move || directory::close(&data_dir, remapped)).await?;
        closed.map_err(|error| {
            let data_dir = self.data_dir.display();
            format!("{data_dir} cannot be closed to other accounts: {error}; run the agent as root")
                .into()
        })
    }

    /// Keeps sandboxes from clouds' metadata. A host where that cannot be done
    /// goes on, and says so.
    async fn guard(&self, network: &Network) {
        let outcome = firewall::guard(network).await;
        self.metrics.metadata_blocked(outcome.is_ok());
        let news = self.guarded.lock().replace(outcome.is_ok()) != Some(outcome.is_ok());
        match outcome {
            Ok(()) if news => {
                tracing::info!(bridge = network.bridge, "link-local addresses are out of reach");
            }
            Err(error) if news => tracing::warn!(
                %error,
                bridge = network.bridge,
                "sandboxes may reach the cloud's metadata at 169.254.169.254: drop what that bridge forwards to 169.254.0.0/16"
            ),
            _ => {}
        }
    }

    /// Takes the bridge away that no sandbox needs, and its rules; the next
    /// start makes them again. One that was never set up may be somebody
    /// else's and stays.
    pub(crate) async fn leave(&self) {
        if self.lifecycle.ready_now().is_none() {
            return;
        }
        let leaving = async {
            if let Err(error) = self.lifecycle.engine().remove_network(&self.network).await {
                tracing::debug!(%error, "the bridge stays");
            } else if let Err(error) = firewall::lift(&self.network).await {
                tracing::debug!(%error, "the rules of the bridge stay");
            }
        };
        if tokio::time::timeout(LEAVE, leaving).await.is_err() {
            tracing::debug!("the bridge or its rules stay: the engine or the host is slow");
        }
    }

    /// Has the relay listen on the bridge, on the ports of last time.
    async fn relay_on(&self, bridge: std::net::Ipv4Addr) -> Result<RelayPorts, BoxError> {
        if let Some((on, relay)) = &*self.relay.lock()
            && *on == bridge
        {
            return Ok(relay.ports());
        }
        let file = PortsFile::in_dir(&self.data_dir);
        let reading = file.clone();
        let kept = tokio::task::spawn_blocking(move || reading.read()).await?;
        let targets = (self.gateway.clone(), self.broker.clone());
        let wanted = kept.unwrap_or(self.wanted);
        let relay = Relay::listen(bridge, wanted, targets, &self.supervisor, &self.metrics).await?;
        let ports = relay.ports();
        if kept != Some(ports) {
            tokio::task::spawn_blocking(move || file.write(ports)).await??;
        }
        *self.relay.lock() = Some((bridge, relay));
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_wolves_have_two_networks() {
        let names: std::collections::HashSet<String> =
            (0..1_000).map(|_| network_name(&WolfId::new())).collect();
        assert_eq!(names.len(), 1_000);
        assert_eq!(network_name(&WolfId::parse("w1").unwrap()), "wolfpack-w1");
    }
}
