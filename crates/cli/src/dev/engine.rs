//! The little that `wolfpack dev` itself asks of the engine.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};

use wolfpack_runtime::BoxError;

use super::arguments::DevArgs;
use super::config::DevConfig;

/// The engine's socket.
pub(super) fn socket(arguments: &DevArgs) -> String {
    arguments.docker.clone().unwrap_or_else(|| "/var/run/docker.sock".to_owned())
}

/// Makes sure that somebody listens there, before anything is started.
pub(super) fn check(arguments: &DevArgs) -> Result<(), BoxError> {
    let socket = socket(arguments);
    let path = socket.trim_start_matches("unix://");
    UnixStream::connect(path).map(drop).map_err(|error| {
        format!("no docker engine answers at {path}: {error}; start it (scripts/setup engine) or give its socket with --docker").into()
    })
}

/// Removes the bridge of this folder's sandboxes, unless some are still on it.
/// That it cannot be removed is no failure: the next start uses it again.
pub(super) async fn remove_network(config: &DevConfig) {
    let remove = async {
        let path = socket(&config.arguments);
        let docker =
            Docker::connect_with_unix(path.trim_start_matches("unix://"), 10, API_DEFAULT_VERSION)?
                .negotiate_version()
                .await?;
        docker.remove_network(&config.network()).await
    };
    match tokio::time::timeout(Duration::from_secs(10), remove).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(%error, "the network of the sandboxes stays"),
        Err(_) => tracing::warn!("the engine did not answer; the network of the sandboxes stays"),
    }
}
