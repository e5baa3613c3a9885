//! What goes wrong on the way, and how it ends.

use std::time::Duration;

use wolfpack_proto::agent::v1::{ContainerState, ContainerStatus};
use wolfpack_proto::sandbox::v1::SandboxState;
use wolfpack_proto::scheduler::v1::ReservationState;
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::{ExecutionId, SandboxId, WolfId};

use crate::harness::*;
use crate::on_each_engine;
use crate::world::{CreateFault, World};

fn the_wolf(world: &World) -> WolfId {
    world.with(|state| state.wolves.keys().next().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wolf_that_refuses_is_released_as_refused_and_another_is_taken() {
    on_each_engine(2, |world, manager| async move {
        world.with(|state| state.create_faults.push_back(CreateFault::Refuse));
        let mut owner = manager.owner();
        let sandbox = owner.running("").await;
        world.with(|state| {
            let first = &state.reservations[0].reservation;
            assert_eq!(first.state(), ReservationState::Refused);
            let second = &state.reservations[1];
            assert_eq!(second.request.excluded_wolves, std::slice::from_ref(&first.wolf));
            assert_eq!(second.reservation.wolf, sandbox.status.as_ref().unwrap().wolf);
        });
        owner.end(&sandbox.name).await;
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_wolf_is_asked_again_after_it_refused() {
    on_each_engine(1, |world, manager| async move {
        world.with(|state| state.create_faults.push_back(CreateFault::Refuse));
        let mut owner = manager.owner();
        let sandbox = owner.running("").await;
        owner.end(&sandbox.name).await;
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wolf_that_broke_off_a_long_pull_is_shown_the_bound_reservation() {
    on_each_engine(1, |world, manager| async move {
        world.with(|state| state.create_faults.push_back(CreateFault::HangInPull));
        let wolf = the_wolf(&world);
        let mut owner = manager.owner();
        let created = owner.create("").await;
        owner.until(&created.name, SandboxState::Pulling).await;
        // Its agent starts anew, later than what is not bound is held.
        world.detach(&wolf.name());
        tokio::time::sleep(world.inner.reservation_ttl + Duration::from_millis(200)).await;
        world.attach(&wolf.name(), "", "");
        owner.until(&created.name, SandboxState::Running).await;
        assert_eq!(world.count("place"), 1, "its first placement is as good as ever");
        owner.end(&created.name).await;
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_not_asked_again_for_every_tunnel_of_others() {
    let database = TestDatabase::sqlite();
    let world = World::start(1).await;
    let manager = Manager::start(config(&world, &database.config)).await;
    let mut owner = manager.owner();
    world.with(|state| state.agents_ready = false);
    let created = owner.create("").await;
    eventually("it is asked", || world.count("status") > 0).await;
    let (before, begin) = (world.count("status"), tokio::time::Instant::now());
    for _ in 0..200 {
        world.attach(&SandboxId::new().name(), "", "");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let asked = world.count("status") - before;
    let most = 20 + usize::try_from(begin.elapsed().as_millis() / 50).unwrap();
    assert!(asked <= most, "asked {asked} times, at most {most} would do");
    world.with(|state| state.agents_ready = true);
    owner.until(&created.name, SandboxState::Running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_wait_for_an_image_or_an_agent_keep_no_others_waiting() {
    let database = TestDatabase::sqlite();
    let world = World::start(1).await;
    let mut config = config(&world, &database.config);
    config.reconcile.starts = 1;
    config.reconcile.ends = 1;
    let manager = Manager::start(config).await;
    let mut owner = manager.owner();
    world.with(|state| state.create_faults.push_back(CreateFault::HangInPull));
    let pulling = owner.create("").await;
    owner.until(&pulling.name, SandboxState::Pulling).await;
    world.with(|state| state.agents_ready = false);
    let starting = owner.create("").await;
    owner.until(&starting.name, SandboxState::Starting).await;
    let other = owner.create("").await;
    owner.until(&other.name, SandboxState::Starting).await;
    world.with(|state| state.agents_ready = true);
    owner.until(&other.name, SandboxState::Running).await;
    assert_eq!(state(&owner.get(&pulling.name).await.unwrap()), SandboxState::Pulling);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_everywhere_it_fails_and_holds_nothing() {
    let database = TestDatabase::sqlite();
    let world = World::start(6).await;
    world.with(|state| state.create_faults.extend([CreateFault::Refuse; 6]));
    let mut config = config(&world, &database.config);
    config.reconcile.placements = 3;
    let manager = Manager::start(config).await;
    let mut owner = manager.owner();
    let created = owner.create("").await;
    let failed = owner.until(&created.name, SandboxState::Failed).await.status.unwrap();
    assert_eq!(failed.reason, "NO_WOLF_FITS");
    assert!(failed.message.contains("3 placements"), "{}", failed.message);
    assert_eq!(world.count("create"), 3);
    nothing_left(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_it_waits_and_says_why_until_there_is_some() {
    on_each_engine(0, |world, manager| async move {
        let mut owner = manager.owner();
        let created = owner.create("").await;
        let waiting = owner
            .until_it(&created.name, "waiting with a message", |it| {
                it.status.as_ref().unwrap().message.contains("all wolves are full")
            })
            .await;
        assert_eq!(state(&waiting), SandboxState::Scheduling);
        world.add_wolf(1);
        owner.until(&created.name, SandboxState::Running).await;
        owner.end(&created.name).await;
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_too_long_it_fails() {
    let database = TestDatabase::sqlite();
    let world = World::start(0).await;
    let mut config = config(&world, &database.config);
    config.reconcile.wait_for_wolf = Duration::from_millis(700);
    let manager = Manager::start(config).await;
    let mut owner = manager.owner();
    let created = owner.create("").await;
    let failed = owner.until(&created.name, SandboxState::Failed).await.status.unwrap();
    assert_eq!(failed.reason, "NO_WOLF_FITS");
    assert!(failed.message.contains("all wolves are full"), "{}", failed.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_not_there_fails_it_and_gives_the_goods_back() {
    on_each_engine(1, |world, manager| async move {
        world.with(|state| state.create_faults.push_back(CreateFault::ImageNotFound));
        let mut owner = manager.owner();
        let created = owner.create("").await;
        let failed = owner.until(&created.name, SandboxState::Failed).await.status.unwrap();
        assert_eq!(
            (failed.reason.as_str(), failed.message.as_str()),
            ("IMAGE_NOT_FOUND", "as the test wants it")
        );
        nothing_left(&world).await;
        owner.end(&created.name).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_may_fail_twice_but_not_for_ever() {
    on_each_engine(1, |world, manager| async move {
        world.with(|state| state.create_faults.extend([CreateFault::EngineFails; 2]));
        let mut owner = manager.owner();
        let sandbox = owner.running("").await;
        owner.end(&sandbox.name).await;
        world.with(|state| state.create_faults.extend([CreateFault::EngineFails; 3]));
        let created = owner.create("").await;
        let failed = owner.until(&created.name, SandboxState::Failed).await.status.unwrap();
        assert_eq!(failed.reason, "ENGINE_FAILED");
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_never_ready_fails_it_with_its_last_words() {
    let database = TestDatabase::sqlite();
    let world = World::start(1).await;
    world.with(|state| state.agents_ready = false);
    let mut config = config(&world, &database.config);
    config.reconcile.start = Duration::from_millis(800);
    let manager = Manager::start(config).await;
    let mut owner = manager.owner();
    let created = owner.create("").await;
    let failed = owner.until(&created.name, SandboxState::Failed).await.status.unwrap();
    assert_eq!(failed.reason, "START_TIMEOUT");
    assert!(failed.last_logs.contains("last words"), "{:?}", failed.last_logs);
    nothing_left(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_has_its_code_its_reason_and_its_last_words() {
    on_each_engine(1, |world, manager| async move {
        let mut owner = manager.owner();
        for (code, out_of_memory, reason) in
            [(3, false, "SANDBOX_EXITED"), (137, true, "SANDBOX_OUT_OF_MEMORY")]
        {
            let sandbox = owner.running("").await;
            world.end_container(&sandbox.name, code, out_of_memory);
            let failed = owner.until(&sandbox.name, SandboxState::Failed).await.status.unwrap();
            assert_eq!((failed.reason.as_str(), failed.exit_code), (reason, Some(code)));
            assert!(failed.last_logs.contains("last words"), "{:?}", failed.last_logs);
            // The container is removed although nobody deleted the sandbox.
            nothing_left(&world).await;
        }
        let sandbox = owner.running("").await;
        world.end_container_for(&sandbox.name, "SANDBOX_DISK_EXCEEDED");
        let failed = owner.until(&sandbox.name, SandboxState::Failed).await.status.unwrap();
        assert_eq!(
            (failed.reason.as_str(), failed.exit_code),
            ("SANDBOX_DISK_EXCEEDED", Some(137))
        );
        assert!(!failed.message.contains("restarted"), "{}", failed.message);
        nothing_left(&world).await;
        // The same while it starts.
        let exits = CreateFault::Exits { code: 9, out_of_memory: false };
        world.with(|state| state.create_faults.push_back(exits));
        let created = owner.create("").await;
        let failed = owner.until(&created.name, SandboxState::Failed).await.status.unwrap();
        assert_eq!((failed.reason.as_str(), failed.exit_code), ("SANDBOX_EXITED", Some(9)));
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_vanishes_fails_it() {
    on_each_engine(1, |world, manager| async move {
        let mut owner = manager.owner();
        let sandbox = owner.running("").await;
        let gone = world.with(|state| state.containers.pop_first().unwrap());
        let ((wolf, _), mut container) = gone;
        container.set_state(ContainerState::Removed);
        let _ = world.inner.container_events.send((wolf, container));
        let failed = owner.until(&sandbox.name, SandboxState::Failed).await.status.unwrap();
        assert_eq!(failed.reason, "CONTAINER_GONE");
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wolf_that_is_away_loses_its_sandboxes_and_brings_them_back() {
    on_each_engine(1, |world, manager| async move {
        let wolf = the_wolf(&world);
        let mut owner = manager.owner();
        let (one, two) = (owner.running("").await, owner.running("").await);
        world.take_away(&wolf);
        let lost = owner.until(&one.name, SandboxState::Lost).await.status.unwrap();
        assert_eq!(lost.reason, "WOLF_AWAY");
        owner.until(&two.name, SandboxState::Lost).await;
        // One of them is gone when the wolf is back, the other is not.
        world.with(|state| state.containers.retain(|(_, name), _| *name == one.name));
        world.bring_back(&wolf);
        let back = owner.until(&one.name, SandboxState::Running).await.status.unwrap();
        assert_eq!(back.execution_id, one.status.unwrap().execution_id, "the same boot");
        assert!(back.reason.is_empty());
        let gone = owner.until(&two.name, SandboxState::Failed).await.status.unwrap();
        assert_eq!(gone.reason, "CONTAINER_GONE");
        // By that the broker has nobody wait for it any more.
        let no_boot = (two.name.clone(), String::new());
        eventually("no boot is expected", || world.with(|state| state.revoked.contains(&no_boot)))
            .await;
        owner.end(&one.name).await;
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_waits_for_a_wolf_that_is_away_and_not_for_one_that_is_gone() {
    on_each_engine(2, |world, manager| async move {
        let mut owner = manager.owner();
        let sandbox = owner.running("").await;
        let wolf = WolfId::from_name(&sandbox.status.as_ref().unwrap().wolf).unwrap();
        world.take_away(&wolf);
        owner.until(&sandbox.name, SandboxState::Lost).await;
        owner.delete(&sandbox.name).await;
        // Its tokens are void at once, its goods and row stay.
        eventually("the tokens are void", || world.with(|state| !state.revoked.is_empty())).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(state(&owner.get(&sandbox.name).await.unwrap()), SandboxState::Deleting);
        assert_eq!(world.leaks().len(), 2, "{:?}", world.leaks());
        world.bring_back(&wolf);
        owner.until(&sandbox.name, SandboxState::Deleted).await;
        nothing_left(&world).await;

        let sandbox = owner.running("").await;
        let wolf = WolfId::from_name(&sandbox.status.as_ref().unwrap().wolf).unwrap();
        world.take_away(&wolf);
        owner.until(&sandbox.name, SandboxState::Lost).await;
        owner.delete(&sandbox.name).await;
        world.remove_wolf(&wolf);
        owner.until(&sandbox.name, SandboxState::Deleted).await;
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_ends_a_pull_that_would_take_for_ever() {
    on_each_engine(1, |world, manager| async move {
        world.with(|state| state.create_faults.push_back(CreateFault::HangInPull));
        let mut owner = manager.owner();
        let created = owner.create("").await;
        let pulling = owner
            .until_it(&created.name, "pulling with progress", |it| {
                it.status.as_ref().unwrap().message == "fetching (25%)"
            })
            .await;
        assert_eq!(state(&pulling), SandboxState::Pulling);
        owner.end(&created.name).await;
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_of_nobody_is_removed_and_no_other() {
    on_each_engine(1, |world, manager| async move {
        let wolf = the_wolf(&world);
        let mut owner = manager.owner();
        let sandbox = owner.running("").await;
        let stray = SandboxId::new().name();
        let mut container = ContainerStatus {
            sandbox: stray.clone(),
            execution_id: ExecutionId::new().to_string(),
            ..ContainerStatus::default()
        };
        container.set_state(ContainerState::Running);
        world.with(|state| {
            state.containers.insert((wolf.clone(), stray.clone()), container.clone());
        });
        let _ = world.inner.container_events.send((wolf.clone(), container));
        eventually("the stray is gone", || {
            world.with(|state| !state.containers.contains_key(&(wolf.clone(), stray.clone())))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!(state(&owner.get(&sandbox.name).await.unwrap()), SandboxState::Running);
        assert_eq!(world.with(|state| state.containers.len()), 1);
        assert!(manager.scrape().await.contains("wolfpack_sandbox_orphans_removed"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wolf_that_hangs_does_not_keep_strays_on_others() {
    let database = TestDatabase::sqlite();
    let world = World::start(9).await;
    let wolves: Vec<WolfId> = world.with(|state| state.wolves.keys().cloned().collect());
    let manager = Manager::start(config(&world, &database.config)).await;
    let mut owner = manager.owner();
    // With one container seen, the wolves are watched.
    owner.running("").await;
    let (fine, hanging) = wolves.split_last().unwrap();
    let stray = SandboxId::new().name();
    for wolf in &wolves {
        let mut container = ContainerStatus {
            sandbox: stray.clone(),
            execution_id: ExecutionId::new().to_string(),
            ..ContainerStatus::default()
        };
        container.set_state(ContainerState::Running);
        world.with(|state| {
            state.containers.insert((wolf.clone(), stray.clone()), container.clone());
        });
        let _ = world.inner.container_events.send((wolf.clone(), container));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.with(|state| state.black_holes.extend(hanging.iter().map(WolfId::name)));
    let gone =
        || world.with(|state| !state.containers.contains_key(&(fine.clone(), stray.clone())));
    let begin = tokio::time::Instant::now();
    eventually("the stray on the wolf that answers is gone", gone).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "it waited for others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_tunnel_of_its_own_it_runs_through_its_wolf() {
    on_each_engine(1, |world, manager| async move {
        world.with(|state| state.own_tunnels = false);
        let mut owner = manager.owner();
        let sandbox = owner.running("").await;
        owner.end(&sandbox.name).await;
        nothing_left(&world).await;
    })
    .await;
}
