//! Bridges on the engine.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder};

use super::{DockerEngine, QUICK, map};
use crate::engine::{EngineError, Labelled, Network};

/// Making or removing one; a working engine needs milliseconds.
const NETWORK: Duration = Duration::from_secs(20);

/// The option of a bridge that bounds its packets.
const MTU: &str = "com.docker.network.driver.mtu";

/// What the engine's own bridge was given: engines before 24 give it to no
/// other network by themselves.
async fn default_mtu(engine: &DockerEngine) -> Result<Option<String>, EngineError> {
    let found = engine
        .call("inspect the default network", QUICK, |client| async move {
            client.inspect_network("bridge", None::<InspectNetworkOptions>).await
        })
        .await;
    match found {
        Ok(found) => Ok(found.options.unwrap_or_default().remove(MTU)),
        // An engine without a bridge of its own.
        Err(EngineError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn ensure(
    engine: &DockerEngine,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Network, EngineError> {
    if let Some(network) = inspect(engine, name, labels).await? {
        return Ok(network);
    }
    let mut options = HashMap::from([(map::ICC.to_owned(), "false".to_owned())]);
    if let Some(mtu) = default_mtu(engine).await? {
        options.insert(MTU.to_owned(), mtu);
    }
    let request = NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        options: Some(options),
        enable_ipv6: Some(false),
        labels: Some(labels.clone().into_iter().collect()),
        ..NetworkCreateRequest::default()
    };
    let made =
        engine
            .call("make a network", NETWORK, |client| async move {
                client.create_network(request).await
            })
            .await;
    match made {
        // Somebody made it meanwhile; whether it is as good is looked at.
        Ok(_) | Err(EngineError::Conflict(_)) => {}
        Err(error) => return Err(error),
    }
    inspect(engine, name, labels).await?.ok_or_else(|| {
        EngineError::NotFound(format!("the network {name}, although it was just made"))
    })
}

async fn inspect(
    engine: &DockerEngine,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Option<Network>, EngineError> {
    let found = engine
        .call("inspect a network", QUICK, |client| async move {
            client.inspect_network(name, None::<InspectNetworkOptions>).await
        })
        .await;
    match found {
        Ok(found) => map::network(name, &found, labels).map(Some),
        Err(EngineError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn remove(engine: &DockerEngine, name: &str) -> Result<(), EngineError> {
    let removed = engine
        .call(
            "remove a network",
            NETWORK,
            |client| async move { client.remove_network(name).await },
        )
        .await;
    match removed {
        Err(EngineError::NotFound(_)) => Ok(()),
        other => other,
    }
}

pub(super) async fn list(
    engine: &DockerEngine,
    label: &str,
    value: &str,
) -> Result<Vec<Labelled>, EngineError> {
    let filters = HashMap::from([("label", vec![format!("{label}={value}")])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let found =
        engine
            .call("list networks", QUICK, |client| async move {
                client.list_networks(Some(options)).await
            })
            .await?;
    Ok(found
        .into_iter()
        .filter_map(|network| {
            let labels = network.labels.unwrap_or_default().into_iter().collect();
            Some(Labelled { name: network.name?, labels })
        })
        .collect())
}
