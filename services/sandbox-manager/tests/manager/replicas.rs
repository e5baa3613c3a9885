//! Several managers over one database.

use futures::future::join_all;
use wolfpack_proto::sandbox::v1::*;
use wolfpack_store::testing::TestDatabase;

use crate::harness::*;
use crate::world::{CreateFault, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_work_and_see_each_others_writes() {
    for database in TestDatabase::all() {
        let world = World::start(4).await;
        let one = Manager::start(config(&world, &database.config)).await;
        let two = Manager::start(config(&world, &database.config)).await;
        let (mut first, mut second) = (one.owner(), two.owner());
        let mut watch = second
            .sandboxes
            .watch_sandboxes(WatchSandboxesRequest::default())
            .await
            .unwrap()
            .into_inner();
        let created = first.create("").await;
        // The watch at the other replica sees it come up.
        let seen = tokio::time::timeout(SOON, async {
            while let Some(event) = watch.message().await.unwrap() {
                if let Some(watch_sandboxes_response::Event::Upserted(sandbox)) = event.event
                    && state(&sandbox) == SandboxState::Running
                {
                    return sandbox;
                }
            }
            panic!("the watch ended");
        });
        assert_eq!(seen.await.unwrap().name, created.name);
        second.end(&created.name).await;

        let calls = (0..12).map(|index| {
            let mut client = if index % 2 == 0 { one.owner() } else { two.owner() };
            let mut other = if index % 3 == 0 { one.owner() } else { two.owner() };
            async move {
                let sandbox = client.running("").await;
                other.end(&sandbox.name).await;
            }
        });
        join_all(calls).await;
        assert_eq!(world.count("create"), 13, "no sandbox was made twice");
        nothing_left(&world).await;
        one.stop().await;
        two.stop().await;
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_replica_was_at_another_goes_on_with() {
    for database in TestDatabase::all() {
        let world = World::start(1).await;
        world.with(|state| state.create_faults.push_back(CreateFault::HangInPull));
        let dying = Manager::start(config(&world, &database.config)).await;
        let living = Manager::start(config(&world, &database.config)).await;
        let created = dying.owner().create("").await;
        let mut owner = living.owner();
        owner.until(&created.name, SandboxState::Pulling).await;
        dying.crash();
        owner.until(&created.name, SandboxState::Running).await;
        assert!(world.with(|state| state.epochs[&created.name] > 1), "the owner's epoch grew");
        owner.end(&created.name).await;
        nothing_left(&world).await;
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stops_in_good_order_is_followed_at_once() {
    let database = TestDatabase::sqlite();
    let world = World::start(1).await;
    world.with(|state| state.create_faults.push_back(CreateFault::HangInPull));
    let mut slow = config(&world, &database.config);
    // Only a lease that is given back lets the next one begin in time.
    slow.reconcile.lease = SOON * 100;
    let first = Manager::start(slow.clone()).await;
    let created = first.owner().create("").await;
    first.owner().until(&created.name, SandboxState::Pulling).await;
    first.stop().await;
    let second = Manager::start(slow).await;
    second.owner().until(&created.name, SandboxState::Running).await;
}
