//! Where containers write, and the engine's own count of it.

use std::time::Duration;

use bollard::query_parameters::{InspectContainerOptions, KillContainerOptionsBuilder};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::{DockerEngine, QUICK};
use crate::engine::{EngineError, EngineUsage, Written, WrittenVolume};

/// The engine walks all it has for it.
const COUNT: Duration = Duration::from_secs(180);
/// The longest answer that is read, in bytes.
const ANSWER: usize = 32 << 20;
/// From this version on the answer has another form; every engine that has it
/// speaks the one before, too.
const OLD_FORM: (usize, usize) = (1, 51);

pub(super) async fn find(
    engine: &DockerEngine,
    container: &str,
) -> Result<Option<Written>, EngineError> {
    let found = engine
        .call("inspect a container", QUICK, |client| async move {
            client.inspect_container(container, None::<InspectContainerOptions>).await
        })
        .await;
    let found = match found {
        Ok(found) => found,
        Err(EngineError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let layer = found.graph_driver.and_then(|mut driver| driver.data.remove("UpperDir"));
    let volumes = found.mounts.unwrap_or_default().into_iter();
    let volumes = volumes.filter(|mount| mount.typ.as_deref() == Some("volume"));
    Ok(Some(Written {
        layer: layer.map(Into::into),
        volumes: volumes
            .filter_map(|mount| {
                let (name, path) = (mount.name?, mount.source?.into());
                Some(WrittenVolume { name, target: mount.destination.unwrap_or_default(), path })
            })
            .collect(),
    }))
}

pub(super) async fn kill(engine: &DockerEngine, container: &str) -> Result<(), EngineError> {
    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    let killed = engine
        .call("kill a container", QUICK, |client| async move {
            client.kill_container(container, Some(options)).await
        })
        .await;
    match killed {
        // It is not there, or does not run.
        Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => Ok(()),
        other => other,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    volumes: Option<Vec<Volume>>,
    containers: Option<Vec<Layer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    name: String,
    usage_data: Option<Size>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    size: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Layer {
    id: String,
    size_rw: Option<i64>,
}

/// The client library only knows the new form, older engines only the other.
pub(super) async fn usage(engine: &DockerEngine) -> Result<EngineUsage, EngineError> {
    let version = engine.client().await?.client_version();
    let (major, minor) = (version.major_version, version.minor_version).min(OLD_FORM);
    let asked = ask(engine, format!("/v{major}.{minor}/system/df"));
    let answer: Answer = match tokio::time::timeout(COUNT, asked).await {
        Ok(answer) => answer?,
        Err(_) => {
            return Err(EngineError::Deadline {
                doing: "count what is on its disk",
                within: COUNT,
            });
        }
    };
    // -1 is what it did not count.
    let counted = |size: i64| u64::try_from(size).ok();
    let volumes = answer.volumes.unwrap_or_default().into_iter();
    let layers = answer.containers.unwrap_or_default().into_iter();
    Ok(EngineUsage {
        volumes: volumes.filter_map(|it| Some((it.name, counted(it.usage_data?.size)?))).collect(),
        layers: layers.filter_map(|it| Some((it.id, counted(it.size_rw.unwrap_or(0))?))).collect(),
    })
}

async fn ask<T: serde::de::DeserializeOwned>(
    engine: &DockerEngine,
    path: String,
) -> Result<T, EngineError> {
    let unreachable = |error| EngineError::Unreachable(Box::new(error));
    let socket = UnixStream::connect(&engine.connection.socket).await.map_err(unreachable)?;
    let broke = |error: hyper::Error| EngineError::Stream(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(broke)?;
    let request = Request::get(path)
        .header("host", "docker")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| EngineError::Unreadable(error.to_string()))?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(broke)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        let body = body.map_err(|error| EngineError::Stream(error.to_string()))?.to_bytes();
        if !status.is_success() {
            let message = EngineError::words(&String::from_utf8_lossy(&body));
            return Err(EngineError::Refused { status: status.as_u16(), message });
        }
        serde_json::from_slice(&body).map_err(|error| EngineError::Unreadable(error.to_string()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(answered);
    // The connection is polled here, so that nothing outlives this call.
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(broke(error)),
        },
    }
}
