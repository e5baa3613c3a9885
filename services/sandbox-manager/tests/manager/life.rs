//! Create, get, list, delete.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use wolfpack_proto::sandbox::v1::*;
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::Reason;

use crate::harness::*;
use crate::on_each_engine;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_comes_up_step_by_step_and_leaves_nothing() {
    on_each_engine(1, |world, manager| async move {
        let mut owner = manager.owner();
        let sandbox = owner.running("first").await;
        let status = sandbox.status.clone().unwrap();
        let states: Vec<_> = status.transitions.iter().map(StateTransition::state).collect();
        assert_eq!(
            states,
            [
                SandboxState::Pending,
                SandboxState::Scheduling,
                SandboxState::Pulling,
                SandboxState::Starting,
                SandboxState::Running
            ]
        );
        assert!(status.transitions.iter().all(|it| it.time.is_some()));
        assert_eq!(
            (sandbox.creator.as_str(), sandbox.project.as_str()),
            ("users/ada", "projects/a")
        );
        assert_eq!(sandbox.spec.unwrap().image, "wolfpack/sandbox-base:latest");
        assert!(status.wolf.starts_with("wolves/") && status.reason.is_empty());
        world.with(|state| {
            assert_eq!(state.containers.len(), 1);
            let held = &state.reservations[0].reservation;
            assert_eq!(held.state().as_str_name(), "RESERVATION_STATE_BOUND");
            assert_eq!(held.name, status.reservation);
        });
        owner.end(&sandbox.name).await;
        nothing_left(&world).await;
        // It can still be read, and deleting it again changes nothing.
        let again = owner.delete(&sandbox.name).await;
        assert_eq!(state(&again), SandboxState::Deleted);
        manager.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_over_with_the_sandbox_that_it_made() {
    for database in TestDatabase::all() {
        let world = World::start(1).await;
        let mut config = config(&world, &database.config);
        config.retention.deleted = Duration::from_millis(400);
        config.retention.sweep = Duration::from_millis(100);
        let manager = Manager::start(config).await;
        let mut owner = manager.owner();
        let request = create_request("again");
        let mut names = Vec::new();
        for _ in 0..3 {
            let created = owner.sandboxes.create_sandbox(request.clone()).await.unwrap();
            let created = created.into_inner().sandbox.unwrap();
            assert!(!names.contains(&created.name), "it is gone");
            owner.until(&created.name, SandboxState::Running).await;
            let again = owner.sandboxes.create_sandbox(request.clone()).await.unwrap();
            assert_eq!(again.into_inner().sandbox.unwrap().name, created.name);
            owner.end(&created.name).await;
            let begin = tokio::time::Instant::now();
            while owner.get(&created.name).await.is_ok() {
                assert!(begin.elapsed() < SOON, "never removed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            names.push(created.name);
        }
        nothing_left(&world).await;
        drop(manager);
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_many_times_at_once_has_one_effect() {
    on_each_engine(1, |world, manager| async move {
        let request = create_request("once");
        let calls = (0..24).map(|_| {
            let (mut client, request) = (manager.owner(), request.clone());
            async move { client.sandboxes.create_sandbox(request).await }
        });
        let names: Vec<String> = join_all(calls)
            .await
            .into_iter()
            .map(|answer| answer.unwrap().into_inner().sandbox.unwrap().name)
            .collect();
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
        let mut owner = manager.owner();
        owner.until(&names[0], SandboxState::Running).await;
        let mut other = request.clone();
        other.sandbox.as_mut().unwrap().labels.insert("a".into(), "b".into());
        let refused = owner.sandboxes.create_sandbox(other).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RequestIdReused);
        // Another project may use the same id.
        let mut stranger = manager.client("wp_b_developer");
        let theirs = stranger.sandboxes.create_sandbox(request).await.unwrap().into_inner();
        assert_ne!(theirs.sandbox.unwrap().name, names[0]);
        assert_eq!(world.count("create"), world.with(|state| state.containers.len()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_taken_while_its_sandbox_lives() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let calls = (0..8).map(|_| {
            let mut client = manager.owner();
            async move { client.sandboxes.create_sandbox(create_request("one")).await }
        });
        let (won, lost): (Vec<_>, Vec<_>) =
            join_all(calls).await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for refused in lost {
            assert_eq!(reason(&refused.unwrap_err()), Reason::DisplayNameTaken);
        }
        let mut stranger = manager.client("wp_b_developer");
        stranger.create("one").await;
        let first = won.into_iter().next().unwrap().unwrap().into_inner().sandbox.unwrap();
        owner.delete(&first.name).await;
        owner.create("one").await;
        // Nameless ones are as many as one likes.
        owner.create("").await;
        owner.create("").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_newest_first_and_filtered_by_labels() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let mut made = Vec::new();
        for index in 0..7 {
            let mut request = create_request(&format!("n{index}"));
            let labels = &mut request.sandbox.as_mut().unwrap().labels;
            labels.insert("parity".into(), (index % 2).to_string());
            labels.insert("all".into(), "yes".into());
            let created = owner.sandboxes.create_sandbox(request).await.unwrap().into_inner();
            made.push(created.sandbox.unwrap().name);
        }
        made.reverse();
        let mut request = ListSandboxesRequest { page_size: 3, ..ListSandboxesRequest::default() };
        let mut seen = Vec::new();
        loop {
            let page = owner.sandboxes.list_sandboxes(request.clone()).await.unwrap().into_inner();
            assert!(page.sandboxes.len() <= 3);
            seen.extend(page.sandboxes.into_iter().map(|it| it.name));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(seen, made);

        let selector: BTreeMap<String, String> =
            [("parity".to_owned(), "1".to_owned()), ("all".to_owned(), "yes".to_owned())].into();
        let odd =
            ListSandboxesRequest { label_selector: selector, ..ListSandboxesRequest::default() };
        let page = owner.sandboxes.list_sandboxes(odd.clone()).await.unwrap().into_inner();
        assert_eq!(page.sandboxes.len(), 3);
        let named = ListSandboxesRequest { display_name: "n4".into(), ..odd };
        let page = owner.sandboxes.list_sandboxes(named.clone()).await.unwrap().into_inner();
        assert!(page.sandboxes.is_empty(), "n4 is even");

        // A token belongs to its query and its project.
        let reused = ListSandboxesRequest { page_token: request.page_token.clone(), ..named };
        let refused = owner.sandboxes.list_sandboxes(reused).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::PageTokenInvalid);
        let mut stranger = manager.client("wp_b_developer");
        let refused = stranger.sandboxes.list_sandboxes(request).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::PageTokenInvalid);

        owner.end(&made[0]).await;
        let mut all = ListSandboxesRequest::default();
        let page = owner.sandboxes.list_sandboxes(all.clone()).await.unwrap().into_inner();
        assert_eq!(page.sandboxes.len(), 6);
        all.show_deleted = true;
        let page = owner.sandboxes.list_sandboxes(all).await.unwrap().into_inner();
        assert_eq!(page.sandboxes.len(), 7);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_with_an_old_etag_changes_nothing() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let created = owner.create("").await;
        let running = owner.until(&created.name, SandboxState::Running).await;
        let delete =
            |etag: &str| DeleteSandboxRequest { name: created.name.clone(), etag: etag.to_owned() };
        let refused = owner.sandboxes.delete_sandbox(delete(&created.etag)).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::EtagMismatch);
        assert_eq!(state(&owner.get(&created.name).await.unwrap()), SandboxState::Running);
        owner.sandboxes.delete_sandbox(delete(&running.etag)).await.unwrap();
        owner.until(&created.name, SandboxState::Deleted).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shape_that_no_wolf_could_hold_is_refused_at_once() {
    on_each_engine(1, |_, manager| async move {
        let mut request = create_request("");
        let gpu = wolfpack_proto::types::v1::GpuRequest {
            count: 2,
            share_milli: 500,
            ..Default::default()
        };
        request.sandbox.as_mut().unwrap().spec =
            Some(SandboxSpec { gpu: Some(gpu), ..SandboxSpec::default() });
        let refused = manager.owner().sandboxes.create_sandbox(request).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::ShapeInvalid);
    })
    .await;
}
