//! Watches of wolves over the wire.

use std::time::Duration;

use tonic::Streaming;
use wolfpack_proto::registry::v1::watch_wolves_response::Event;
use wolfpack_proto::registry::v1::{
    GetWolfRequest, ListWolvesRequest, Role, WatchWolvesRequest, WatchWolvesResponse, WolfState,
};
use wolfpack_rpc::RpcChannel;
use wolfpack_types::Reason;

use crate::fleet::{Wolves, each, reason};

async fn watch(channel: &RpcChannel, resume: i64) -> Streaming<WatchWolvesResponse> {
    let request = WatchWolvesRequest { resume_revision: resume };
    Wolves::new(channel.without_deadline()).watch_wolves(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchWolvesResponse>) -> WatchWolvesResponse {
    let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    message.expect("an event comes").unwrap().expect("the stream goes on")
}

/// What comes until the snapshot's end: the names, and its revision.
async fn snapshot(stream: &mut Streaming<WatchWolvesResponse>) -> (Vec<String>, i64) {
    let mut names = Vec::new();
    loop {
        let message = next(stream).await;
        assert!(message.send_time.is_some());
        match message.event.unwrap() {
            Event::Upserted(wolf) => names.push(wolf.name),
            Event::Deleted(name) => panic!("{name} is no part of a snapshot"),
            Event::Bookmark(mark) => {
                assert!(mark.snapshot_complete);
                names.sort();
                return (names, message.revision);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_all_then_changes_and_can_be_resumed() {
    each(|fleet| async move {
        let one = fleet.join("").await;
        let channel = fleet.service("scheduler");
        let mut stream = watch(&channel, 0).await;
        let (names, revision) = snapshot(&mut stream).await;
        assert_eq!(names, [one.id.name()]);
        let two = fleet.join("").await;
        let mut last = revision;
        loop {
            let message = next(&mut stream).await;
            assert!(message.revision >= last, "revisions never go back");
            last = message.revision;
            if let Some(Event::Upserted(wolf)) = message.event {
                assert_eq!(wolf.name, two.id.name());
                break;
            }
        }
        // Idle, it sends marks that one can resume from.
        let mark = next(&mut stream).await;
        assert!(matches!(mark.event, Some(Event::Bookmark(mark)) if !mark.snapshot_complete));
        drop(stream);
        let (names, _) = snapshot(&mut watch(&channel, mark.revision).await).await;
        assert_eq!(names, Vec::<String>::new());
        one.register("i").await.unwrap();
        let (names, _) = snapshot(&mut watch(&channel, mark.revision).await).await;
        assert_eq!(names, [one.id.name()]);
        let mut future = Wolves::new(channel.without_deadline());
        let request = WatchWolvesRequest { resume_revision: 1_000_000 };
        let unknown = future.watch_wolves(request).await.unwrap_err();
        assert_eq!(reason(&unknown), Reason::RevisionCompacted);
        fleet
    })
    .await;
}

/// Reads until a wolf is told to be in a state. Marks of an idle watch come for
/// ever, so there is one limit around all of it.
async fn told(stream: &mut Streaming<WatchWolvesResponse>, wanted: WolfState) {
    let mut states = Vec::new();
    let reading = async {
        while states.last() != Some(&wanted) {
            if let Some(Event::Upserted(wolf)) = next(stream).await.event {
                states.push(wolf.state());
            }
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
    assert!(read.is_ok(), "never told {wanted:?}, but {states:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_change_is_told_at_once() {
    each(|fleet| async move {
        let wolf = fleet.join("").await;
        wolf.register("i").await.unwrap();
        let mut stream = watch(&fleet.service("sandbox-manager"), 0).await;
        snapshot(&mut stream).await;
        let mut beating = wolf.heart("i").await.keep();
        // Each state holds until it was told: the tunnel makes it suspect while
        // the heart beats, and only then the heart stops.
        fleet.broker.attach(&wolf.id.name(), "s");
        let alive = async {
            told(&mut stream, WolfState::Online).await;
            fleet.broker.detach("s");
            told(&mut stream, WolfState::Suspect).await;
        };
        tokio::select! {
            () = alive => {}
            ended = &mut beating => panic!("the heart stopped: {ended:?}"),
        }
        beating.abort();
        told(&mut stream, WolfState::Offline).await;
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_see_shared_wolves_and_their_own_and_wolves_themselves() {
    each(|fleet| async move {
        let (mine, other) = (fleet.member(Role::Viewer).await, fleet.member(Role::Viewer).await);
        let shared = fleet.join("").await;
        let own = fleet.join(&mine.project.name()).await;
        let foreign = fleet.join(&other.project.name()).await;
        let mut all = vec![shared.id.name(), own.id.name(), foreign.id.name()];
        all.sort();
        let mut visible = vec![shared.id.name(), own.id.name()];
        visible.sort();
        for (channel, expected) in [
            (fleet.bearer(&mine.key), &visible),
            (fleet.service("scheduler"), &all),
            (own.channel.clone(), &vec![own.id.name()]),
        ] {
            let mut client = Wolves::new(channel.clone());
            let mut names = Vec::new();
            let mut request = ListWolvesRequest { page_size: 1, ..ListWolvesRequest::default() };
            loop {
                let page = client.list_wolves(request.clone()).await.unwrap().into_inner();
                names.extend(page.wolves.into_iter().map(|wolf| wolf.name));
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            assert_eq!(&names, expected);
            assert_eq!(&snapshot(&mut watch(&channel, 0).await).await.0, expected);
            for wolf in &all {
                let answer = client.get_wolf(GetWolfRequest { name: wolf.clone() }).await;
                match answer {
                    Ok(_) => assert!(expected.contains(wolf)),
                    Err(status) => {
                        assert!(!expected.contains(wolf));
                        assert_eq!(reason(&status), Reason::WolfNotFound);
                    }
                }
            }
        }
        fleet
    })
    .await;
}
