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
use crate::feed::{Event, Feed};
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
    /// The newest revision when the watch began: the snapshot ends with it, and
    /// what is newer comes as events, or an event in between would be skipped.
    head: i64,
    page: u64,
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
        let counted = parts.metrics.watching();
        let (feed, sandboxes) = (&parts.feed, &parts.sandboxes);
        let watch = Watch::begin(feed, sandboxes, project, only, resume, counted).await?;
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
        .filter(|it| it.revision <= head)
        .filter(|it| it.project == *project && only.is_none_or(|id| *id == it.id))
        .collect())
}

impl Watch {
    async fn begin(
        feed: &Feed,
        sandboxes: &Sandboxes,
        project: ProjectId,
        only: Option<SandboxId>,
        resume: i64,
        counted: Watching,
    ) -> Result<Self, Fault> {
        // Events first, then the snapshot: nothing falls in between.
        let events = feed.subscribe();
        let head = sandboxes.revision().await?;
        let removals = if resume == 0 {
            VecDeque::new()
        } else {
            removals(sandboxes, &project, only.as_ref(), resume, head).await?
        };
        Ok(Self {
            sandboxes: sandboxes.clone(),
            // One that is asked for by name is shown however it is.
            show_deleted: resume > 0 || only.is_some(),
            project,
            only,
            events,
            at: resume,
            head,
            page: PAGE,
            phase: Phase::Snapshot,
            ready: VecDeque::new(),
            removals,
            _counted: counted,
        })
    }

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
        let (only, between) = (self.only.as_ref(), (self.at, self.head));
        let page = self
            .sandboxes
            .snapshot(&self.project, only, between, self.show_deleted, self.page)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;
    use opentelemetry::global;
    use tokio_util::sync::CancellationToken;
    use watch_sandboxes_response::Event as Told;
    use wolfpack_proto::sandbox::v1::{SandboxSpec, SandboxState};
    use wolfpack_store::testing::TestDatabase;

    use super::*;
    use crate::config::WatchConfig;
    use crate::domain::Record;
    use crate::metrics::Metrics;
    use crate::reconcile::Queue;
    use crate::store::{Asked, Owner};

    struct Bench {
        sandboxes: Sandboxes,
        feed: Feed,
        project: ProjectId,
    }

    impl Bench {
        async fn create(&self) -> Sandbox {
            let now = DateTime::UNIX_EPOCH;
            let (display_name, labels) = (String::new(), std::collections::BTreeMap::new());
            let fresh = Sandbox {
                id: SandboxId::new(),
                project: self.project.clone(),
                creator: "users/ada".to_owned(),
                asked: Asked { display_name, labels, spec: SandboxSpec::default() },
                traceparent: None,
                record: Record::new(now),
                goods: None,
                created_at: now,
                updated_at: now,
                version: 1,
                revision: 0,
                owner: Owner::default(),
            };
            let request = uuid::Uuid::new_v4().to_string();
            self.sandboxes.create(&fresh, &request, [0; 32]).await.unwrap().sandbox
        }

        async fn delete(&self, sandbox: &Sandbox) {
            let project = &self.project;
            let marked = self.sandboxes.mark_deleting(project, &sandbox.id, "", None).await;
            let mut row = marked.unwrap();
            row.record.deleted(DateTime::UNIX_EPOCH).unwrap();
            self.sandboxes.save(&row).await.unwrap();
        }

        /// A watch that reads the snapshot row by row.
        async fn watch(&self, resume: i64) -> Watch {
            let counted = Metrics::new(&global::meter("test")).watching();
            let project = self.project.clone();
            let watch =
                Watch::begin(&self.feed, &self.sandboxes, project, None, resume, counted).await;
            Watch { page: 1, ..watch.unwrap() }
        }
    }

    async fn on_each_engine<Fut: Future<Output = ()>>(test: impl Fn(Bench) -> Fut) {
        for database in TestDatabase::all() {
            let sandboxes = Sandboxes::open(&database.config).await.unwrap();
            let feed = Feed::open(sandboxes.clone(), &WatchConfig::default()).await.unwrap();
            let token = CancellationToken::new();
            let (running, stop) = (feed.clone(), token.clone());
            let run = tokio::spawn(async move { running.run(Queue::default(), stop).await });
            test(Bench { sandboxes, feed, project: ProjectId::new() }).await;
            token.cancel();
            run.await.unwrap();
            database.close().await;
        }
    }

    async fn next(watch: &mut Watch) -> WatchSandboxesResponse {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        next.expect("it must be told").expect("no end").unwrap()
    }

    /// Reads until a sandbox is told to be DELETED; revisions must grow.
    async fn until_deleted(watch: &mut Watch, sandbox: &Sandbox) {
        let mut last = 0;
        loop {
            let told = next(watch).await;
            assert!(told.revision >= last, "{} after {last}", told.revision);
            last = told.revision;
            if let Some(Told::Upserted(it)) = told.event
                && it.name == sandbox.id.name()
                && it.status.unwrap().state() == SandboxState::Deleted
            {
                return;
            }
        }
    }

    #[tokio::test]
    async fn what_ends_between_two_pages_of_the_snapshot_is_told() {
        on_each_engine(|bench| async move {
            let first = bench.create().await;
            bench.create().await;
            let mut watch = bench.watch(0).await;
            let told = next(&mut watch).await;
            assert!(matches!(told.event, Some(Told::Upserted(it)) if it.name == first.id.name()));
            bench.delete(&first).await;
            bench.create().await;
            until_deleted(&mut watch, &first).await;
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_removed_while_a_watch_is_resumed_hides_no_event_before_it() {
        on_each_engine(|bench| async move {
            let (first, gone) = (bench.create().await, bench.create().await);
            bench.delete(&gone).await;
            let head = bench.sandboxes.revision().await.unwrap();
            // Both come after the head of the watch and before it looks for
            // removals.
            bench.delete(&first).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let keep = chrono::TimeDelta::milliseconds(20);
            assert_eq!(bench.sandboxes.purge(keep, 1).await.unwrap(), 1);
            let project = &bench.project;
            let known = removals(&bench.sandboxes, project, None, first.revision, head).await;
            assert!(known.unwrap().is_empty(), "the feed tells it, after what was before it");
        })
        .await;
    }
}
