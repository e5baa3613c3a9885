//! A sandbox's output, as a stream.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::broadcast;
use tonic::Status;
use wolfpack_proto::agent::v1::StreamLogsResponse;
use wolfpack_rpc::to_status;
use wolfpack_types::{Fault, Reason, SandboxId};

use crate::engine::{ContainerState, EngineError, LogChunk};
use crate::lifecycle::{Change, Lifecycle};
use crate::sandbox::labels;

/// After the container ended: how long the engine may say nothing more before
/// the log is over. Its own end of the stream may never come.
const DRAIN: Duration = Duration::from_secs(2);

struct Reading {
    container: String,
    logs: BoxStream<'static, Result<LogChunk, EngineError>>,
    changes: broadcast::Receiver<Change>,
    /// Whether the end of the container is known.
    exited: bool,
    over: bool,
}

/// The output of a sandbox's container. With `follow` it ends when the
/// container has.
///
/// # Errors
/// `SANDBOX_NOT_FOUND`, `ENGINE_FAILED`.
pub(super) async fn open(
    lifecycle: &Lifecycle,
    sandbox: &SandboxId,
    follow: bool,
    tail: Option<u32>,
) -> Result<impl Stream<Item = Result<StreamLogsResponse, Status>> + Send + use<>, Fault> {
    // Watch before looking, so that an end between the two is not missed.
    let (_, changes) = lifecycle.observer().watch();
    let name = labels::container_name(lifecycle.wolf(), sandbox);
    let found = lifecycle.engine().inspect(&name).await;
    let found = found.map_err(|error| error.into_fault("look for the container"))?;
    let found = found.ok_or_else(|| {
        Fault::new(Reason::SandboxNotFound, "the sandbox has no container on this wolf")
            .about(sandbox.name())
    })?;
    let reading = Reading {
        logs: lifecycle.engine().logs(&found.id, follow, tail),
        container: found.id,
        changes,
        exited: found.state == ContainerState::Exited,
        over: false,
    };
    Ok(stream::unfold(reading, |mut reading| async move {
        if reading.over {
            return None;
        }
        let item = reading.next().await?;
        reading.over = item.is_err();
        let item = item.map(|chunk| StreamLogsResponse { stderr: chunk.stderr, data: chunk.data });
        let fault = |error: EngineError| to_status(error.into_fault("read the log"));
        Some((item.map_err(fault), reading))
    }))
}

impl Reading {
    async fn next(&mut self) -> Option<Result<LogChunk, EngineError>> {
        while !self.exited {
            tokio::select! {
                item = self.logs.next() => return item,
                change = self.changes.recv() => self.exited = match change {
                    Ok(Change::Is(seen)) => {
                        seen.container.id == self.container
                            && seen.container.state == ContainerState::Exited
                    }
                    Ok(Change::Gone(seen)) => seen.container.id == self.container,
                    // Too many changes to have seen ours: the engine's own end
                    // of the stream, or the next change, will tell.
                    Err(broadcast::error::RecvError::Lagged(_)) => false,
                    Err(broadcast::error::RecvError::Closed) => true,
                },
            }
        }
        tokio::time::timeout(DRAIN, self.logs.next()).await.ok().flatten()
    }
}
