//! Volumes on the engine's own disk.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};

use super::{DockerEngine, QUICK};
use crate::engine::{EngineError, Labelled};

/// Removing one takes as long as its files.
const REMOVE: Duration = Duration::from_secs(180);

pub(super) async fn ensure(
    engine: &DockerEngine,
    name: &str,
    labels: &BTreeMap<String, String>,
    size: Option<u64>,
) -> Result<(), EngineError> {
    let size = size.map(|bytes| HashMap::from([("size".to_owned(), bytes.to_string())]));
    let request = VolumeCreateRequest {
        name: Some(name.to_owned()),
        driver: Some("local".to_owned()),
        driver_opts: size,
        labels: Some(labels.clone().into_iter().collect()),
        ..VolumeCreateRequest::default()
    };
    // One that is there is answered as it is.
    let found = engine
        .call("make a volume", QUICK, |client| async move { client.create_volume(request).await })
        .await?;
    if found.driver != "local"
        || labels.iter().any(|(key, value)| found.labels.get(key) != Some(value))
    {
        return Err(EngineError::Conflict(format!(
            "the volume {name} is somebody else's: remove it with `docker volume rm {name}`"
        )));
    }
    Ok(())
}

pub(super) async fn remove(engine: &DockerEngine, name: &str) -> Result<(), EngineError> {
    let removed = engine
        .call("remove a volume", REMOVE, |client| async move {
            client.remove_volume(name, None::<RemoveVolumeOptions>).await
        })
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
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let found =
        engine
            .call("list volumes", QUICK, |client| async move {
                client.list_volumes(Some(options)).await
            })
            .await?;
    let volumes = found.volumes.unwrap_or_default().into_iter();
    Ok(volumes
        .map(|volume| Labelled { name: volume.name, labels: volume.labels.into_iter().collect() })
        .collect())
}
