//! How much is done at a time, and that what waits for its turn is not stuck.

use std::time::Duration;

use wolfpack_proto::sandbox::v1::SandboxState;
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::WolfId;

use crate::harness::*;
use crate::world::{CreateFault, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_are_done_a_few_at_a_time_and_keep_no_start_waiting() {
    let database = TestDatabase::sqlite();
    let world = World::start(1).await;
    let mut config = config(&world, &database.config);
    // Two of them on one wolf.
    config.reconcile.removals = 32;
    let manager = Manager::start(config).await;
    let mut owner = manager.owner();
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(owner.running("").await.name);
    }
    world.with(|state| state.removals_hang = true);
    for name in &names {
        owner.delete(name).await;
    }
    eventually("two are removed", || world.count("removing") == 2).await;
    owner.running("").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.count("removing"), 2, "the others wait for their turn");
    world.with(|state| state.removals_hang = false);
    for name in &names {
        owner.until(name, SandboxState::Deleted).await;
    }
    assert_eq!(world.count("remove"), 6, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wolf_whose_pulls_hang_holds_up_no_other_wolf_and_no_delete() {
    let database = TestDatabase::sqlite();
    let world = World::start(2).await;
    let slow: WolfId = world.with(|state| state.wolves.keys().next().unwrap().clone());
    let mut config = config(&world, &database.config);
    // One of them on one wolf.
    config.reconcile.creates = 2;
    let manager = Manager::start(config).await;
    let mut owner = manager.owner();
    world.with(|state| state.create_faults.push_back(CreateFault::HangInPull));
    let pulling = owner.create("").await.name;
    owner.until(&pulling, SandboxState::Pulling).await;
    let waiting = owner.create("").await.name;
    let placed =
        owner.until_it(&waiting, "placed", |it| !it.status.as_ref().unwrap().wolf.is_empty()).await;
    assert_eq!(placed.status.unwrap().wolf, slow.name());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.count("create"), 1, "the second waits for its turn");
    // It is deleted although its turn has not come.
    owner.end(&waiting).await;
    world.with(|state| state.room.insert(slow.clone(), 1));
    let other = owner.running("").await;
    assert_ne!(other.status.unwrap().wolf, slow.name());
    assert_eq!(state(&owner.get(&pulling).await.unwrap()), SandboxState::Pulling);
    assert_eq!(world.count("create"), 2);
    owner.end(&other.name).await;
    owner.end(&pulling).await;
    nothing_left(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_that_is_never_bound_fails_it_in_time_and_says_why() {
    let database = TestDatabase::sqlite();
    let world = World::start(1).await;
    world.with(|state| state.binds_nothing = true);
    let mut config = config(&world, &database.config);
    config.reconcile.start = Duration::from_millis(800);
    let manager = Manager::start(config).await;
    let mut owner = manager.owner();
    let created = owner.create("").await;
    let failed = owner.until(&created.name, SandboxState::Failed).await.status.unwrap();
    assert_eq!(failed.reason, "START_TIMEOUT");
    assert!(failed.message.contains("bind its reservation"), "{}", failed.message);
    nothing_left(&world).await;
}
