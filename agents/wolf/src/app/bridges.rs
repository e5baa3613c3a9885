//! The bridges of the configuration.

use std::sync::Arc;

use arc_swap::ArcSwap;
use wolfpack_runtime::{BoxError, Context};
use wolfpack_types::WolfId;

use crate::bridge::{BridgeParts, Bridges};
use crate::config::{Config, HostPort};
use crate::engine::Engine;
use crate::lifecycle::RelayPorts;
use crate::metrics::Metrics;
use crate::relay::Target;
use crate::setup;

/// The bridges of this wolf. Where the relay leads: what the operator says,
/// else the gateway it joined at and the broker it attaches to.
pub(super) fn bridges(
    config: &Config,
    context: &Context,
    engine: Arc<dyn Engine>,
    wolf: &WolfId,
    broker: &HostPort,
    metrics: &Metrics,
) -> Result<Arc<Bridges>, BoxError> {
    let relay = &config.relay;
    let target = |name, said: &Option<String>, default: &HostPort| {
        let address = match said {
            Some(said) => HostPort::parse(said, None)?,
            None => default.clone(),
        };
        Ok::<_, String>(Target { name, address: Arc::new(ArcSwap::from_pointee(address)) })
    };
    let network = config.network.clone().unwrap_or_else(|| setup::network_name(wolf));
    // Sandboxes were told this address: it may be the wolf's own.
    let traces = config.sandbox_otlp_endpoint.as_deref().and_then(port);
    Ok(Arc::new(Bridges::new(BridgeParts {
        engine,
        wolf: wolf.clone(),
        network,
        data_dir: config.data_dir.clone(),
        wanted: RelayPorts { gateway: relay.gateway_port, broker: relay.broker_port },
        gateway: target("gateway", &relay.gateway, &config.server_authority()?)?,
        broker: target("broker", &relay.broker, broker)?,
        open_ports: traces.into_iter().collect(),
        supervisor: context.supervisor.clone(),
        metrics: metrics.clone(),
    })))
}

fn port(url: &str) -> Option<u16> {
    let authority = url.split("://").nth(1)?.split('/').next()?;
    HostPort::parse(authority, None).ok().map(|read| read.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_traces_is_read() {
        assert_eq!(port("http://172.17.0.1:4317"), Some(4317));
        assert_eq!(port("https://collector:4318/v1"), Some(4318));
        assert_eq!(port("http://collector"), None);
    }
}
