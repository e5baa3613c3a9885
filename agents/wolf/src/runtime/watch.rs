//! The containers and their changes, as a stream.

use std::collections::VecDeque;
use std::time::Duration;

use futures::{Stream, stream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;
use wolfpack_proto::agent::v1::WatchSandboxesResponse;
use wolfpack_proto::agent::v1::watch_sandboxes_response::Event;
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_rpc::to_status;
use wolfpack_types::{Fault, Reason};

use super::map;
use crate::lifecycle::{Change, Observed};

/// How often a mark is sent while nothing changes.
const MARK: Duration = Duration::from_secs(15);

struct Watching {
    first: VecDeque<Event>,
    changes: broadcast::Receiver<Change>,
    ended: bool,
}

/// What is there, a mark, then every change; a mark now and then.
pub(super) fn events(
    snapshot: &[Observed],
    changes: broadcast::Receiver<Change>,
) -> impl Stream<Item = Result<WatchSandboxesResponse, Status>> + Send + use<> {
    let mut first: VecDeque<Event> =
        snapshot.iter().map(|seen| Event::Container(map::status(seen))).collect();
    first.push_back(Event::Bookmark(WatchBookmark { snapshot_complete: true }));
    let watching = Watching { first, changes, ended: false };
    stream::unfold(watching, |mut watching| async move {
        if watching.ended {
            return None;
        }
        let next = watching.next().await;
        watching.ended = next.is_err();
        let response = next.map(|event| WatchSandboxesResponse { event: Some(event) });
        Some((response.map_err(to_status), watching))
    })
}

impl Watching {
    async fn next(&mut self) -> Result<Event, Fault> {
        if let Some(event) = self.first.pop_front() {
            return Ok(event);
        }
        match tokio::time::timeout(MARK, self.changes.recv()).await {
            Ok(Ok(Change::Is(seen))) => Ok(Event::Container(map::status(&seen))),
            Ok(Ok(Change::Gone(seen))) => Ok(Event::Container(map::removed(&seen))),
            Ok(Err(RecvError::Lagged(_))) => Err(Fault::new(
                Reason::WatcherTooSlow,
                "the watcher is too far behind; watch again",
            )),
            Ok(Err(RecvError::Closed)) => {
                Err(Fault::new(Reason::ServerStopping, "the wolf's agent is stopping; watch again"))
            }
            Err(_) => Ok(Event::Bookmark(WatchBookmark::default())),
        }
    }
}
