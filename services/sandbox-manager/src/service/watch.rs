//! Watching sandboxes: what is there, a bookmark, then what changes.

use std::collections::VecDeque;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;
use wolfpack_proto::sandbox::v1::{WatchSandboxesResponse, watch_sandboxes_response};
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_rpc::to_status;
use wolfpack_types::{Fault, ProjectId, Reason, SandboxId};

use super::{Api, answer};
use crate::feed::Event;
use crate::metrics::Watching;
use crate::store::{Removed, Sandbox, Sandboxes};

/// Rows that are read at a time for a snapshot.
const PAGE: u64 = 256;
/// Removals that a resumed watch is told; after more of them it begins anew.
const REMOVALS: u64 = 10_000;

/// One watch. Nothing is buffered for it beyond a page of the snapshot: when
/// the client does not read, events wait in the feed, which keeps a bounded
/// number of them for everyone.
struct Watch {
    sandboxes: Sandboxes,
    project: ProjectId,
    only: Option<SandboxId>,
    events: Receiver<Event>,
    /// Everything up to here was sent.
    at: i64,
    /// The newest revision when the watch began.
    head: i64,
    show_deleted: bool,
    phase: Phase,
    ready: VecDeque<WatchSandboxesResponse>,
    removals: VecDeque<Removed>,
    _counted: Watching,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Snapshot,
    Live,
    Over,
}

impl Api {
    /// A watch of a project's sandboxes or one of them.
    pub(super) async fn watch(
        &self,
        project: ProjectId,
        only: Option<SandboxId>,
        resume: i64,
    ) -> Result<BoxStream<'static, Result<WatchSandboxesResponse, Status>>, Fault> {
        let parts = &self.parts;
        // Events first, then the snapshot: nothing falls in between.
        let events = parts.feed.subscribe();
        let head = parts.sandboxes.revision().await?;
        let removals = if resume == 0 {
            VecDeque::new()
        } else {
            removals(&parts.sandboxes, &project, only.as_ref(), resume, head).await?
        };
        let watch = Watch {
            sandboxes: parts.sandboxes.clone(),
            // One that is asked for by name is shown however it is.
            show_deleted: resume > 0 || only.is_some(),
            project,
            only,
            events,
            at: resume,
            head,
            phase: Phase::Snapshot,
            ready: VecDeque::new(),
            removals,
            _counted: parts.metrics.watching(),
        };
        Ok(stream::unfold(watch, |mut watch| async move {
            let next = watch.next().await?;
            Some((next.map_err(to_status), watch))
        })
        .boxed())
    }
}

/// What was removed since a revision.
async fn removals(
    sandboxes: &Sandboxes,
    project: &ProjectId,
    only: Option<&SandboxId>,
    resume: i64,
    head: i64,
) -> Result<VecDeque<Removed>, Fault> {
    let compacted = || {
        Fault::new(
            Reason::RevisionCompacted,
            "changes since this revision are no longer known; watch again from revision 0",
        )
    };
    let removed = sandboxes.removed_after(resume, REMOVALS).await?;
    // Read after the removals: what was forgotten meanwhile shows here.
    let floor = sandboxes.compacted_to().await?;
    if resume < floor || resume > head || removed.len() as u64 == REMOVALS {
        return Err(compacted());
    }
    Ok(removed
        .into_iter()
        .filter(|it| it.project == *project && only.is_none_or(|id| *id == it.id))
        .collect())
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchSandboxesResponse, Fault>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(Ok(ready));
            }
            let filled = match self.phase {
                Phase::Snapshot => self.page().await,
                Phase::Live => self.live().await,
                Phase::Over => return None,
            };
            if let Err(fault) = filled {
                self.phase = Phase::Over;
                return Some(Err(fault));
            }
        }
    }

    /// Reads a page of the snapshot; the last one ends with the bookmark.
    async fn page(&mut self) -> Result<(), Fault> {
        let page = self
            .sandboxes
            .snapshot(&self.project, self.only.as_ref(), self.at, self.show_deleted, PAGE)
            .await?;
        for sandbox in &page.sandboxes {
            self.removed_before(sandbox.revision);
            self.at = sandbox.revision;
            self.ready.push_back(written(sandbox));
        }
        if !page.more {
            self.removed_before(i64::MAX);
            self.at = self.at.max(self.head);
            self.ready.push_back(bookmark(self.at, true));
            self.phase = Phase::Live;
        }
        Ok(())
    }

    fn removed_before(&mut self, revision: i64) {
        while let Some(removed) = self.removals.pop_front_if(|it| it.revision < revision) {
            self.at = self.at.max(removed.revision);
            self.ready.push_back(gone(&removed));
        }
    }

    /// Waits for what happens.
    async fn live(&mut self) -> Result<(), Fault> {
        let event = match self.events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => {
                return Err(Fault::new(
                    Reason::WatcherTooSlow,
                    format!("{missed} events were missed; watch again from the last revision"),
                ));
            }
            Err(RecvError::Closed) => {
                return Err(Fault::new(Reason::ServerStopping, "the server is stopping"));
            }
        };
        if event.revision() < self.at || (event.revision() == self.at && !is_mark(&event)) {
            return Ok(());
        }
        match event {
            Event::Written(sandbox) if self.concerns(&sandbox.project, &sandbox.id) => {
                self.at = sandbox.revision;
                self.ready.push_back(written(&sandbox));
            }
            Event::Removed(removed) if self.concerns(&removed.project, &removed.id) => {
                self.at = removed.revision;
                self.ready.push_back(gone(&removed));
            }
            Event::Mark(revision) => {
                self.at = revision;
                self.ready.push_back(bookmark(revision, false));
            }
            Event::Written(_) | Event::Removed(_) => {}
        }
        Ok(())
    }

    fn concerns(&self, project: &ProjectId, id: &SandboxId) -> bool {
        self.project == *project && self.only.as_ref().is_none_or(|only| only == id)
    }
}

fn is_mark(event: &Event) -> bool {
    matches!(event, Event::Mark(_))
}

fn response(revision: i64, event: watch_sandboxes_response::Event) -> WatchSandboxesResponse {
    WatchSandboxesResponse { revision, event: Some(event) }
}

fn written(sandbox: &Sandbox) -> WatchSandboxesResponse {
    let event = watch_sandboxes_response::Event::Upserted(answer::sandbox(sandbox));
    response(sandbox.revision, event)
}

fn gone(removed: &Removed) -> WatchSandboxesResponse {
    response(removed.revision, watch_sandboxes_response::Event::Removed(removed.id.name()))
}

fn bookmark(revision: i64, snapshot_complete: bool) -> WatchSandboxesResponse {
    let mark = WatchBookmark { snapshot_complete };
    response(revision, watch_sandboxes_response::Event::Bookmark(mark))
}
