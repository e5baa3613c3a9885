//! Ends what runs on an engine, before the engine itself ends.

use std::path::Path;
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, StopContainerOptionsBuilder};
use futures::StreamExt as _;

use super::ready::{client, in_time};

/// How many are ended at a time.
const AT_A_TIME: usize = 16;

/// Asks every running container to end, and kills those that have not by half
/// of the deadline. How many there were and how many still run.
///
/// # Errors
/// When the engine does not answer; says why.
pub async fn stop_containers(socket: &Path, deadline: Duration) -> Result<(usize, usize), String> {
    let client = client(socket).await?;
    let running = ListContainersOptionsBuilder::new().build();
    let containers = in_time(client.list_containers(Some(running))).await?;
    let names: Vec<String> = containers.into_iter().filter_map(|container| container.id).collect();
    let grace = i32::try_from((deadline / 2).as_secs()).unwrap_or(i32::MAX);
    let all = names.len();
    let stop = futures::stream::iter(names)
        .map(|name| {
            let options = StopContainerOptionsBuilder::new().t(grace).build();
            let client = &client;
            async move { client.stop_container(&name, Some(options)).await.is_ok() }
        })
        .buffer_unordered(AT_A_TIME)
        .filter(|stopped| std::future::ready(*stopped));
    let mut stop = std::pin::pin!(stop);
    let mut stopped = 0;
    let counting = async {
        while stop.next().await.is_some() {
            stopped += 1;
        }
    };
    // Those that are left end with the engine's container.
    let _ = tokio::time::timeout(deadline, counting).await;
    Ok((all, all - stopped))
}
