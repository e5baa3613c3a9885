//! Ending what writes, when there is no room for it.

use std::path::Path;
use std::time::Duration;

use bollard::query_parameters::{KillContainerOptions, ListContainersOptions};
use futures::StreamExt as _;
use tracing::warn;

const DEADLINE: Duration = Duration::from_secs(10);
const CALL_SECONDS: u64 = 5;
/// Calls at a time.
const AT_ONCE: usize = 16;

/// Kills every running container of the engine, within 10 s. How many there
/// were; what fails is logged and met again at the next look.
pub(super) async fn kill_all(socket: &Path) -> usize {
    match tokio::time::timeout(DEADLINE, kill(socket)).await {
        Ok(Ok(count)) => count,
        Ok(Err(error)) => {
            warn!(%error, "containers of a full engine could not be listed");
            0
        }
        Err(_elapsed) => {
            warn!("containers of a full engine were not killed in time");
            0
        }
    }
}

async fn kill(socket: &Path) -> Result<usize, bollard::errors::Error> {
    let client = bollard::Docker::connect_with_unix(
        &socket.to_string_lossy(),
        CALL_SECONDS,
        bollard::API_DEFAULT_VERSION,
    )?;
    let client = client.negotiate_version().await?;
    let running = client.list_containers(Some(ListContainersOptions::default())).await?;
    let count = running.len();
    let ids = running.into_iter().filter_map(|container| container.id);
    futures::stream::iter(ids)
        .for_each_concurrent(AT_ONCE, |id| {
            let client = client.clone();
            async move {
                let killed = client.kill_container(&id, None::<KillContainerOptions>).await;
                if let Err(error) = killed {
                    warn!(id, %error, "a container of a full engine was not killed");
                }
            }
        })
        .await;
    Ok(count)
}
