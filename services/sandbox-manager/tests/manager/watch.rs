//! Watching: snapshot, bookmark, changes, resuming.

use std::time::Duration;

use tonic::Streaming;
use wolfpack_proto::sandbox::v1::watch_sandboxes_response::Event;
use wolfpack_proto::sandbox::v1::*;
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::Reason;

use crate::harness::*;
use crate::on_each_engine;
use crate::world::World;

async fn next(watch: &mut Streaming<WatchSandboxesResponse>) -> WatchSandboxesResponse {
    tokio::time::timeout(SOON, watch.message()).await.expect("an event").unwrap().expect("no end")
}

async fn open(client: &mut Client, name: &str, resume: i64) -> Streaming<WatchSandboxesResponse> {
    let request = WatchSandboxesRequest { name: name.to_owned(), resume_revision: resume };
    client.sandboxes.watch_sandboxes(request).await.unwrap().into_inner()
}

/// The events of a snapshot, and its revision.
async fn snapshot(watch: &mut Streaming<WatchSandboxesResponse>) -> (Vec<Event>, i64) {
    let mut events = Vec::new();
    let mut last = 0;
    loop {
        let event = next(watch).await;
        assert!(event.revision >= last, "{} after {last}", event.revision);
        last = event.revision;
        match event.event.unwrap() {
            Event::Bookmark(mark) if mark.snapshot_complete => return (events, last),
            event => events.push(event),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_sends_what_is_there_then_each_change_in_order() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let there = owner.running("").await;
        manager.client("wp_b_developer").create("").await;
        let mut watch = open(&mut owner, "", 0).await;
        let (events, at) = snapshot(&mut watch).await;
        assert!(matches!(&events[..], [Event::Upserted(sandbox)] if sandbox.name == there.name));

        let created = owner.create("").await;
        let mut states = Vec::new();
        let mut last = at;
        while states.last() != Some(&SandboxState::Running) {
            let event = next(&mut watch).await;
            assert!(event.revision >= last);
            last = event.revision;
            if let Some(Event::Upserted(sandbox)) = event.event {
                assert_eq!(sandbox.name, created.name, "only this project's");
                states.push(state(&sandbox));
            }
        }
        assert!(states.is_sorted(), "{states:?}");

        // A second watch goes on where the first one was.
        drop(watch);
        owner.end(&there.name).await;
        let mut watch = open(&mut owner, "", last).await;
        let (events, _) = snapshot(&mut watch).await;
        assert!(
            matches!(&events[..], [Event::Upserted(sandbox)] if state(sandbox) == SandboxState::Deleted),
            "{events:?}"
        );
        // While nothing happens there are bookmarks to resume from.
        assert!(matches!(next(&mut watch).await.event, Some(Event::Bookmark(_))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sandbox_can_be_watched_to_its_end() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let (wanted, _) = (owner.create("").await, owner.create("").await);
        let mut watch = open(&mut owner, &wanted.name, 0).await;
        owner.until(&wanted.name, SandboxState::Running).await;
        owner.delete(&wanted.name).await;
        let mut last = SandboxState::Unspecified;
        while last != SandboxState::Deleted {
            if let Some(Event::Upserted(sandbox)) = next(&mut watch).await.event {
                assert_eq!(sandbox.name, wanted.name);
                last = state(&sandbox);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_is_told_and_a_revision_before_the_memory_is_refused() {
    for database in TestDatabase::all() {
        let world = World::start(1).await;
        let mut config = config(&world, &database.config);
        config.retention.deleted = Duration::from_millis(400);
        config.retention.sweep = Duration::from_millis(100);
        let manager = Manager::start(config).await;
        let mut owner = manager.owner();
        let sandbox = owner.running("").await;
        let mut watch = open(&mut owner, "", 0).await;
        let (_, at) = snapshot(&mut watch).await;
        owner.end(&sandbox.name).await;
        loop {
            if let Some(Event::Removed(name)) = next(&mut watch).await.event {
                assert_eq!(name, sandbox.name);
                break;
            }
        }
        assert_eq!(reason(&owner.get(&sandbox.name).await.unwrap_err()), Reason::SandboxNotFound);
        // The removal itself is forgotten after a while, and then it shows.
        let begin = tokio::time::Instant::now();
        loop {
            let request = WatchSandboxesRequest { name: String::new(), resume_revision: at };
            match owner.sandboxes.watch_sandboxes(request).await {
                Err(refused) => {
                    assert_eq!(reason(&refused), Reason::RevisionCompacted);
                    break;
                }
                Ok(_) => assert!(begin.elapsed() < SOON, "never compacted"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let ahead = WatchSandboxesRequest { name: String::new(), resume_revision: i64::MAX };
        let refused = owner.sandboxes.watch_sandboxes(ahead).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RevisionCompacted);
        drop(manager);
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_cut_off_and_nobody_else_waits() {
    let database = TestDatabase::sqlite();
    let world = World::start(1).await;
    let mut config = config(&world, &database.config);
    config.watch.lag = 16;
    // Rows that are large and change often fill the stream's window.
    config.reconcile.place_again = Duration::from_millis(5);
    let manager = Manager::start(config).await;
    let mut owner = manager.owner();
    let mut slow = open(&mut owner, "", 0).await;
    let (_, _) = snapshot(&mut slow).await;
    let env = (0..200).map(|index| (format!("K{index}"), "x".repeat(30_000))).collect();
    let mut request = create_request("");
    request.sandbox.as_mut().unwrap().spec = Some(SandboxSpec { env, ..SandboxSpec::default() });
    // Nobody reads `slow` while these come and go.
    for _ in 0..6 {
        request.request_id = uuid::Uuid::new_v4().to_string();
        let mut sent = request.clone();
        sent.sandbox.as_mut().unwrap().spec.as_mut().unwrap().env.truncate_to(100);
        let sandbox =
            owner.sandboxes.create_sandbox(sent).await.unwrap().into_inner().sandbox.unwrap();
        owner.until(&sandbox.name, SandboxState::Running).await;
        owner.end(&sandbox.name).await;
    }
    let refused = loop {
        match tokio::time::timeout(SOON, slow.message()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a slow watcher must be told"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&refused), Reason::WatcherTooSlow);
}

trait Truncate {
    fn truncate_to(&mut self, len: usize);
}

impl Truncate for std::collections::BTreeMap<String, String> {
    fn truncate_to(&mut self, len: usize) {
        while self.len() > len {
            self.pop_last();
        }
    }
}
