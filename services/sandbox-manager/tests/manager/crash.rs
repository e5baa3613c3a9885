//! A manager that is killed after an effect and before it can note it: the next
//! one converges and nothing is left behind.

use wolfpack_proto::sandbox::v1::SandboxState;
use wolfpack_store::testing::TestDatabase;

use crate::harness::*;
use crate::world::{Effect, World};

/// Waits until an effect was not answered, kills the manager, and starts the
/// next one.
async fn crash_and_go_on(world: &World, database: &TestDatabase, manager: Manager) -> Manager {
    let mut stopped = world.inner.stopped.subscribe();
    tokio::time::timeout(SOON, stopped.wait_for(|count| *count > 0))
        .await
        .expect("the effect must happen")
        .unwrap();
    manager.crash();
    world.with(|state| state.stop_after = None);
    world.inner.stopped.send_replace(0);
    Manager::start(config(world, &database.config)).await
}

async fn starts_after_a_crash(database: &TestDatabase, effect: Effect) {
    println!("{}: a crash after {effect:?}", database.engine);
    let world = World::start(2).await;
    let manager = Manager::start(config(&world, &database.config)).await;
    world.with(|state| state.stop_after = Some(effect));
    let created = manager.owner().create("").await;
    let manager = crash_and_go_on(&world, database, manager).await;
    let mut owner = manager.owner();
    let running = owner.until(&created.name, SandboxState::Running).await;
    world.with(|state| {
        assert_eq!(state.containers.len(), 1, "after {effect:?}");
        let bound = state
            .reservations
            .iter()
            .filter(|it| it.reservation.state().as_str_name() == "RESERVATION_STATE_BOUND");
        assert_eq!(bound.count(), 1, "after {effect:?}");
    });
    owner.end(&running.name).await;
    nothing_left(&world).await;
}

async fn ends_after_a_crash(database: &TestDatabase, effect: Effect, settled: bool) {
    println!("{}: a crash after {effect:?}, deleted, settled before: {settled}", database.engine);
    let world = World::start(2).await;
    let manager = Manager::start(config(&world, &database.config)).await;
    let mut owner = manager.owner();
    let name = if settled {
        let name = owner.running("").await.name;
        world.with(|state| state.stop_after = Some(effect));
        owner.delete(&name).await;
        name
    } else {
        world.with(|state| state.stop_after = Some(effect));
        owner.create("").await.name
    };
    let manager = crash_and_go_on(&world, database, manager).await;
    let mut owner = manager.owner();
    if !settled {
        owner.delete(&name).await;
    }
    owner.until(&name, SandboxState::Deleted).await;
    nothing_left(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_the_way_up_converges() {
    let effects = [
        Effect::Place,
        Effect::Mint,
        Effect::Admit,
        Effect::Confirm,
        Effect::Start,
        Effect::Status,
    ];
    for effect in effects {
        for database in TestDatabase::all() {
            starts_after_a_crash(&database, effect).await;
            database.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_and_then_a_delete_leaves_nothing() {
    for effect in [Effect::Place, Effect::Admit, Effect::Confirm, Effect::Start] {
        for database in TestDatabase::all() {
            ends_after_a_crash(&database, effect, false).await;
            database.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_the_way_down_converges() {
    for effect in [Effect::Remove, Effect::Release, Effect::Revoke] {
        for database in TestDatabase::all() {
            ends_after_a_crash(&database, effect, true).await;
            database.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_long_crash_the_only_wolf_is_asked_again() {
    let database = TestDatabase::sqlite();
    let world = World::start(1).await;
    let manager = Manager::start(config(&world, &database.config)).await;
    world.with(|state| state.stop_after = Some(Effect::Admit));
    let created = manager.owner().create("").await;
    let mut stopped = world.inner.stopped.subscribe();
    tokio::time::timeout(SOON, stopped.wait_for(|count| *count > 0)).await.unwrap().unwrap();
    manager.crash();
    world.with(|state| state.stop_after = None);
    // Longer than what is not bound is held.
    tokio::time::sleep(world.inner.reservation_ttl + std::time::Duration::from_millis(200)).await;
    let manager = Manager::start(config(&world, &database.config)).await;
    let mut owner = manager.owner();
    let running = owner.until(&created.name, SandboxState::Running).await;
    assert!(world.count("place") > 1, "the first reservation was of no use any more");
    owner.end(&running.name).await;
    nothing_left(&world).await;
}
