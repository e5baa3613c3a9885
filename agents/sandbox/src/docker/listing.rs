//! What runs on the sandbox's own engine.

use std::path::Path;
use std::time::Duration;

use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptions;
use wolfpack_proto::sandbox::v1::{Container, ContainerRelation};
use wolfpack_types::{Fault, Reason};

/// The engine answers by then.
const DEADLINE_SECONDS: u64 = 10;
/// More are not told.
const MOST: usize = 1000;

/// Containers of the engine behind a socket, newest first, at most 1000,
/// within 10 s.
///
/// # Errors
/// `ENGINE_FAILED` when it does not answer.
pub async fn containers(socket: &Path) -> Result<Vec<Container>, Fault> {
    let failed = |error: &dyn std::error::Error| {
        Fault::new(
            Reason::EngineFailed,
            format!("the sandbox's engine did not list its containers: {error}; try again"),
        )
    };
    let client = bollard::Docker::connect_with_unix(
        &socket.to_string_lossy(),
        DEADLINE_SECONDS,
        bollard::API_DEFAULT_VERSION,
    )
    .map_err(|error| failed(&error))?;
    let asking = async {
        let client = client.negotiate_version().await?;
        client
            .list_containers(Some(ListContainersOptions { all: true, ..Default::default() }))
            .await
    };
    let listed = tokio::time::timeout(Duration::from_secs(DEADLINE_SECONDS), asking)
        .await
        .map_err(|elapsed| failed(&elapsed))?
        .map_err(|error| failed(&error))?;
    Ok(newest(listed))
}

fn newest(mut listed: Vec<ContainerSummary>) -> Vec<Container> {
    listed.sort_by_key(|container| std::cmp::Reverse(container.created));
    listed.truncate(MOST);
    listed.into_iter().map(container).collect()
}

fn container(listed: ContainerSummary) -> Container {
    let seconds = listed.created.unwrap_or_default();
    Container {
        id: listed.id.unwrap_or_default(),
        names: listed
            .names
            .unwrap_or_default()
            .into_iter()
            .map(|name| name.trim_start_matches('/').to_owned())
            .collect(),
        image: listed.image.unwrap_or_default(),
        state: listed.state.map(|state| state.to_string()).unwrap_or_default(),
        relation: ContainerRelation::Nested.into(),
        create_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first_and_never_too_many() {
        let made = |created| ContainerSummary {
            created: Some(created),
            names: Some(vec![format!("/c{created}")]),
            ..Default::default()
        };
        let listed = newest((0..1500).map(made).collect());
        assert_eq!(listed.len(), MOST);
        assert_eq!((listed[0].names[0].as_str(), listed[1].names[0].as_str()), ("c1499", "c1498"));
        assert_eq!(listed[0].create_time.unwrap().seconds, 1499);
        assert_eq!(listed[0].relation(), ContainerRelation::Nested);
    }
}
