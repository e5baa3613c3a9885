//! Feeds over rows that the test writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason};

use super::*;
use crate::store;

#[derive(Clone, Default)]
struct Rows(Arc<Mutex<Vec<(String, i64, bool)>>>, Arc<Mutex<i64>>, Arc<AtomicU8>);

/// How a store can be: well, refusing, or never answering.
const FAILS: u8 = 1;
const HANGS: u8 = 2;

impl Rows {
    fn put(&self, key: &str, revision: i64, deleted: bool) {
        let mut rows = self.0.lock();
        rows.retain(|(other, ..)| other != key);
        rows.push((key.to_owned(), revision, deleted));
    }

    fn turn(&self, how: u8) {
        self.2.store(how, Ordering::SeqCst);
    }

    async fn answers(&self) -> Result<(), store::Error> {
        match self.2.load(Ordering::SeqCst) {
            FAILS => Err(Fault::new(Reason::DependencyUnavailable, "the test broke it").into()),
            HANGS => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Source for Rows {
    type Row = ();

    async fn current(&self) -> Result<i64, store::Error> {
        self.answers().await?;
        Ok(self.0.lock().iter().map(|row| row.1).max().unwrap_or(0))
    }

    async fn after(&self, revision: i64) -> Result<Vec<Change<()>>, store::Error> {
        let mut rows: Vec<_> =
            self.0.lock().iter().filter(|row| row.1 > revision).cloned().collect();
        rows.sort_by_key(|row| row.1);
        Ok(rows
            .into_iter()
            .map(|(key, revision, deleted)| Change { key, revision, row: Arc::new(()), deleted })
            .collect())
    }

    async fn floor(&self) -> Result<i64, store::Error> {
        Ok(*self.1.lock())
    }

    fn is_over(&self, change: &Change<()>) -> bool {
        change.key == "over"
    }
}

const BOUNDS: FeedConfig = FeedConfig {
    poll: Duration::from_millis(5),
    queue: 3,
    bookmark: Duration::from_millis(50),
    blind: Duration::from_secs(60),
};

async fn feed(rows: &Rows) -> (Arc<Feed<Rows>>, CancellationToken) {
    let feed = Feed::open(rows.clone(), BOUNDS).await.unwrap();
    let token = CancellationToken::new();
    let (running, stop) = (Arc::clone(&feed), token.clone());
    tokio::spawn(async move { running.run(stop).await.unwrap() });
    (feed, token)
}

/// A feed that is started again when it fails, and is soon blind.
async fn frail_feed(rows: &Rows) -> (Arc<Feed<Rows>>, CancellationToken) {
    let bounds = FeedConfig { blind: Duration::from_secs(1), ..BOUNDS };
    let feed = Feed::open(rows.clone(), bounds).await.unwrap();
    let token = CancellationToken::new();
    let (running, stop) = (Arc::clone(&feed), token.clone());
    tokio::spawn(async move {
        while !stop.is_cancelled() {
            // As the supervisor has it: again, and each attempt ends.
            let run = running.run(stop.clone());
            let _ = tokio::time::timeout(Duration::from_millis(50), run).await;
        }
    });
    (feed, token)
}

/// Events as short text: `a@1`, `-a@2` for a deletion, `=3` and `.3` for marks.
async fn watch(feed: &Arc<Feed<Rows>>, resume: i64) -> Result<WatchStream<String>, Reason> {
    WatchStream::begin(Arc::clone(feed), resume, |event| {
        Ok(Some(match event {
            Event::Change(change) => {
                let sign = if change.deleted { "-" } else { "" };
                format!("{sign}{}@{}", change.key, change.revision)
            }
            Event::Bookmark { revision, snapshot_complete: true } => format!("={revision}"),
            Event::Bookmark { revision, .. } => format!(".{revision}"),
        }))
    })
    .await
    .map_err(|fault| fault.reason)
}

async fn next(stream: &mut WatchStream<String>) -> String {
    let item = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
    item.expect("an event comes").expect("the stream goes on").expect("no error")
}

#[tokio::test]
async fn snapshot_then_changes_then_marks() {
    let rows = Rows::default();
    rows.put("a", 1, false);
    rows.put("gone", 2, true);
    rows.put("b", 3, false);
    let (feed, token) = feed(&rows).await;
    let mut stream = watch(&feed, 0).await.unwrap();
    assert_eq!([next(&mut stream).await, next(&mut stream).await], ["a@1", "b@3"]);
    assert_eq!([next(&mut stream).await, next(&mut stream).await], ["=3", ".3"]);
    rows.put("a", 4, true);
    rows.put("c", 5, false);
    let mut told = vec![next(&mut stream).await];
    while told.last().is_some_and(|last| last != "c@5") {
        told.push(next(&mut stream).await);
    }
    told.retain(|event| !event.starts_with('.'));
    assert_eq!(told, ["-a@4", "c@5"]);
    token.cancel();
}

#[tokio::test]
async fn resuming_tells_what_changed_since_deletions_too() {
    let rows = Rows::default();
    rows.put("a", 1, false);
    rows.put("gone", 2, true);
    rows.put("b", 3, false);
    let (feed, token) = feed(&rows).await;
    let mut stream = watch(&feed, 1).await.unwrap();
    assert_eq!([next(&mut stream).await, next(&mut stream).await], ["-gone@2", "b@3"]);
    assert_eq!(next(&mut stream).await, "=3");
    // From the newest on, nothing is sent twice.
    assert_eq!(next(&mut watch(&feed, 3).await.unwrap()).await, "=3");
    *rows.1.lock() = 2;
    assert_eq!(watch(&feed, 1).await.err(), Some(Reason::RevisionCompacted));
    assert!(watch(&feed, 2).await.is_ok());
    feed.forget().await.unwrap();
    assert_eq!(next(&mut watch(&feed, 2).await.unwrap()).await, "b@3");
    token.cancel();
}

#[tokio::test]
async fn a_watch_begins_with_all_that_is_committed_and_refuses_the_future() {
    let rows = Rows::default();
    let (feed, token) = feed(&rows).await;
    for revision in 1..100 {
        rows.put("a", revision, false);
        let mut stream = watch(&feed, 0).await.unwrap();
        assert_eq!(next(&mut stream).await, format!("a@{revision}"));
        assert_eq!(watch(&feed, revision + 1).await.err(), Some(Reason::RevisionCompacted));
    }
    token.cancel();
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_others_are_not() {
    let rows = Rows::default();
    let (feed, token) = feed(&rows).await;
    let mut slow = watch(&feed, 0).await.unwrap();
    let mut quick = watch(&feed, 0).await.unwrap();
    assert_eq!([next(&mut slow).await, next(&mut quick).await], ["=0", "=0"]);
    for revision in 1..=10 {
        rows.put(&format!("k{revision}"), revision, false);
        while next(&mut quick).await != format!("k{revision}@{revision}") {}
    }
    let fault = from_status(&slow.next().await.unwrap().unwrap_err());
    assert_eq!(fault.reason, Reason::WatcherTooSlow);
    assert!(slow.next().await.is_none());
    assert_eq!(feed.watchers(), 1);
    drop(quick);
    assert_eq!(feed.forget().await.unwrap(), 0);
    assert_eq!(feed.watchers(), 0);
    token.cancel();
}

#[tokio::test]
async fn what_is_over_is_forgotten() {
    let rows = Rows::default();
    rows.put("over", 1, false);
    rows.put("stays", 2, false);
    let (feed, token) = feed(&rows).await;
    assert!(feed.get("over").is_some());
    assert_eq!(feed.forget().await.unwrap(), 1);
    assert!(feed.get("over").is_none() && feed.get("stays").is_some());
    token.cancel();
}

#[tokio::test]
async fn a_feed_that_cannot_read_says_so_and_does_not_call_it_silence() {
    for how in [FAILS, HANGS] {
        let rows = Rows::default();
        rows.put("a", 1, false);
        let (feed, token) = frail_feed(&rows).await;
        let mut stream = watch(&feed, 0).await.unwrap();
        assert_eq!([next(&mut stream).await, next(&mut stream).await], ["a@1", "=1"]);
        rows.turn(how);
        // Marks may still come while what is known is fresh.
        let end = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                match stream.next().await.expect("it ends with a reason") {
                    Ok(mark) => assert_eq!(mark, ".1"),
                    Err(status) => break from_status(&status),
                }
            }
        });
        let end = end.await.expect("not told for ever that nothing is new");
        assert_eq!(end.reason, Reason::DependencyUnavailable);
        assert!(end.retry_after.is_some());
        assert!(stream.next().await.is_none());
        assert_eq!(watch(&feed, 1).await.err(), Some(Reason::DependencyUnavailable));
        // It sees again, and what was missed is told.
        rows.put("b", 2, false);
        rows.turn(0);
        let mut again = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                match watch(&feed, 1).await {
                    Ok(stream) => break stream,
                    Err(reason) => assert_eq!(reason, Reason::DependencyUnavailable),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("a feed that reads again is watched again");
        assert_eq!([next(&mut again).await, next(&mut again).await], ["b@2", "=2"]);
        token.cancel();
    }
}
