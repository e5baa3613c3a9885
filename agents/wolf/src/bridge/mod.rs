//! The bridges that sandboxes are on: one for those that only have their own
//! address, and one for each that has an engine of its own and may change all
//! of its network. On each the relay listens, and the host keeps what comes
//! from it to what sandboxes may reach.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use wolfpack_runtime::{BoxError, Supervisor};
use wolfpack_types::{Fault, Reason, SandboxId, WolfId};

use crate::engine::{Engine, EngineError, Network};
use crate::firewall::{self, Door};
use crate::lifecycle::RelayPorts;
use crate::metrics::Metrics;
use crate::relay::{Bounds, PortsFile, Relay, Target};
use crate::sandbox::{Identity, labels};

/// How long a stop waits for the bridge to be taken away.
const LEAVE: Duration = Duration::from_secs(5);

/// What bridges are made of.
pub struct BridgeParts {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// The wolf.
    pub wolf: WolfId,
    /// Name of the bridge that sandboxes share.
    pub network: String,
    /// Where the relay's ports are kept.
    pub data_dir: PathBuf,
    /// The ports to listen on where none are kept.
    pub wanted: RelayPorts,
    /// Where the relay leads.
    pub gateway: Target,
    /// Where the relay leads.
    pub broker: Target,
    /// More ports of the wolf that sandboxes may reach.
    pub open_ports: Vec<u16>,
    /// Runs the relays.
    pub supervisor: Supervisor,
    /// Counts.
    pub metrics: Metrics,
}

/// The bridges of a wolf.
pub struct Bridges {
    parts: BridgeParts,
    bounds: Arc<Bounds>,
    /// The relay of the shared bridge, and the address it is on.
    shared: Mutex<Option<(Ipv4Addr, Relay)>>,
    /// By sandbox: the network of its own, and the relay on it.
    own: Mutex<BTreeMap<SandboxId, (Network, Relay)>>,
    /// Whether the host keeps sandboxes to what they may reach, when it was
    /// looked at last.
    guarded: Mutex<Option<bool>>,
}

impl Bridges {
    /// None is made yet.
    #[must_use]
    pub fn new(parts: BridgeParts) -> Self {
        Self {
            parts,
            bounds: Arc::default(),
            shared: Mutex::default(),
            own: Mutex::default(),
            guarded: Mutex::default(),
        }
    }

    /// Finds or makes the bridge that sandboxes share, with its relay.
    ///
    /// # Errors
    /// When the engine fails or the relay cannot listen. A host that cannot
    /// guard it goes on, and says so.
    pub async fn shared(&self) -> Result<(Network, RelayPorts), BoxError> {
        let parts = &self.parts;
        let owner = BTreeMap::from([(labels::WOLF.to_owned(), parts.wolf.to_string())]);
        let network = parts.engine.ensure_network(&parts.network, &owner).await?;
        let ports = self.relay_on(network.gateway).await?;
        let outcome = firewall::guard(&network, &self.door(ports)).await;
        parts.metrics.metadata_blocked(outcome.is_ok());
        let news = self.guarded.lock().replace(outcome.is_ok()) != Some(outcome.is_ok());
        match outcome {
            Ok(()) if news => tracing::info!(
                bridge = network.bridge,
                "link-local addresses and the wolf itself are out of the sandboxes' reach"
            ),
            Err(error) if news => tracing::warn!(
                %error,
                bridge = network.bridge,
                "sandboxes may reach this host's own ports, and the cloud's metadata at 169.254.169.254: drop what that bridge sends to both"
            ),
            _ => {}
        }
        Ok((network, ports))
    }

    /// Finds or makes the bridge of one sandbox, guarded, with the relay on the
    /// ports of the shared one. Call it again now and then: rules that somebody
    /// took away are put back.
    ///
    /// # Errors
    /// `ENGINE_FAILED` when one of it cannot be made: what was made stays until
    /// [`Bridges::close`].
    pub async fn open(&self, identity: &Identity, ports: RelayPorts) -> Result<Network, Fault> {
        let parts = &self.parts;
        let name = labels::container_name(&parts.wolf, &identity.sandbox);
        let made = parts.engine.ensure_network(&name, &labels::belongings(identity)).await;
        let network = made.map_err(|error| error.into_fault("make the sandbox's network"))?;
        let failed = |words: &str, error: BoxError| {
            Fault::new(
                Reason::EngineFailed,
                format!("the sandbox's network {words}; try again, the wolf's log says why"),
            )
            .caused_by(error)
        };
        // Where not even the shared one could be guarded it was said already.
        let guarded = firewall::guard(&network, &self.door(ports)).await;
        if *self.guarded.lock() == Some(true) {
            guarded.map_err(|error| failed("cannot be guarded", error.into()))?;
        }
        let open = self.own.lock().get(&identity.sandbox).is_some_and(|(on, _)| *on == network);
        if open {
            return Ok(network);
        }
        let targets = (parts.gateway.clone(), parts.broker.clone());
        let bounds = Arc::new(self.bounds.of_one());
        let relay = Relay::listen(
            network.gateway,
            ports,
            targets,
            bounds,
            &parts.supervisor,
            &parts.metrics,
        )
        .await
        .map_err(|error| failed("has no relay", error.into()))?;
        if relay.ports() != ports {
            let words = format!("ports {ports:?} of {} are taken", network.gateway);
            return Err(failed("has no relay", words.into()));
        }
        self.own.lock().insert(identity.sandbox.clone(), (network.clone(), relay));
        Ok(network)
    }

    /// Takes a sandbox's bridge away: relay, network, rules. One that is not
    /// there is away.
    ///
    /// # Errors
    /// When containers are still on it, or the engine fails.
    pub async fn close(&self, sandbox: &SandboxId) -> Result<(), EngineError> {
        let parts = &self.parts;
        drop(self.own.lock().remove(sandbox));
        let name = labels::container_name(&parts.wolf, sandbox);
        parts.engine.remove_network(&name).await?;
        if *self.guarded.lock() == Some(true)
            && let Err(error) = firewall::lift(&name, &self.door_of_now()).await
        {
            // Found again by the next look around.
            tracing::warn!(%sandbox, %error, "the rules of its network stay for now");
        }
        Ok(())
    }

    /// The sandboxes that the host has rules of.
    pub async fn with_rules(&self) -> Vec<SandboxId> {
        if *self.guarded.lock() != Some(true) {
            return Vec::new();
        }
        let door = self.door_of_now();
        match firewall::networks(&door).await {
            Ok(networks) => networks
                .iter()
                .filter(|network| **network != self.parts.network)
                .filter_map(|network| labels::sandbox_of_name(&self.parts.wolf, network))
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "rules of networks that are gone stay for now");
                Vec::new()
            }
        }
    }

    /// How many rules the host has of this wolf; `None` where it has none to
    /// show.
    pub async fn count_rules(&self) -> Option<usize> {
        firewall::count(&self.parts.wolf, &self.parts.network).await.ok()
    }

    /// Takes the shared bridge away that no sandbox needs, and its rules; the
    /// next start makes them again.
    pub async fn leave(&self) {
        let network = &self.parts.network;
        let leaving = async {
            if let Err(error) = self.parts.engine.remove_network(network).await {
                tracing::debug!(%error, "the bridge stays");
                return;
            }
            let door = self.door_of_now();
            if let Err(error) = firewall::lift_all(network, &door).await {
                tracing::debug!(%error, "the rules of the bridge stay");
            }
        };
        if tokio::time::timeout(LEAVE, leaving).await.is_err() {
            tracing::debug!("the bridge or its rules stay: the engine or the host is slow");
        }
    }

    fn door(&self, ports: RelayPorts) -> Door {
        let more = self.parts.open_ports.iter().copied();
        Door::new(&self.parts.wolf, more.chain([ports.gateway, ports.broker]))
    }

    /// The door to take rules away by: its ports do not matter.
    fn door_of_now(&self) -> Door {
        Door::new(&self.parts.wolf, [])
    }

    /// Has the relay listen on the shared bridge, on the ports of last time.
    async fn relay_on(&self, bridge: Ipv4Addr) -> Result<RelayPorts, BoxError> {
        if let Some((on, relay)) = &*self.shared.lock()
            && *on == bridge
        {
            return Ok(relay.ports());
        }
        let parts = &self.parts;
        let file = PortsFile::in_dir(&parts.data_dir);
        let reading = file.clone();
        let kept = tokio::task::spawn_blocking(move || reading.read()).await?;
        let targets = (parts.gateway.clone(), parts.broker.clone());
        let wanted = kept.unwrap_or(parts.wanted);
        let relay = Relay::listen(
            bridge,
            wanted,
            targets,
            self.bounds.clone(),
            &parts.supervisor,
            &parts.metrics,
        )
        .await?;
        let ports = relay.ports();
        if kept != Some(ports) {
            tokio::task::spawn_blocking(move || file.write(ports)).await??;
        }
        *self.shared.lock() = Some((bridge, relay));
        Ok(ports)
    }
}
