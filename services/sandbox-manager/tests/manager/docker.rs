//! Docker in sandboxes: who may have it, what is said of it, what they started.

use wolfpack_proto::sandbox::v1::*;
use wolfpack_proto::types::v1::{DockerMode, EncoderRequest};
use wolfpack_types::Reason;

use crate::harness::*;
use crate::on_each_engine;
use crate::world::CreateFault;

fn with(docker: DockerMode) -> SandboxSpec {
    SandboxSpec { docker: docker.into(), ..SandboxSpec::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_is_for_admins_and_every_mode_says_what_it_is() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let refused = owner.create_with(with(DockerMode::Shared)).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RoleTooLow);
        let mut admin = manager.client("wp_a_admin");
        for (mode, words, image) in [
            (DockerMode::Unspecified, "no docker", "wolfpack/sandbox-base:latest"),
            (DockerMode::Nested, "out of its reach", "wolfpack/sandbox-docker:latest"),
            (DockerMode::Shared, "NOT ISOLATED", "wolfpack/sandbox-docker:latest"),
        ] {
            let made = admin.create_with(with(mode)).await.unwrap();
            let docker = made.status.unwrap().docker.unwrap();
            let said = if mode == DockerMode::Unspecified { DockerMode::None } else { mode };
            assert_eq!(docker.mode(), said);
            assert!(docker.isolation.contains(words), "{}", docker.isolation);
            assert_eq!(made.spec.unwrap().image, image);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheduler_is_told_all_that_matters() {
    on_each_engine(1, |world, manager| async move {
        let mut owner = manager.owner();
        let spec = SandboxSpec {
            mounts: vec![Mount { source: "/src".into(), target: "/work".into(), read_only: true }],
            encoder: Some(EncoderRequest { sessions: 1, ..EncoderRequest::default() }),
            ..with(DockerMode::Nested)
        };
        let made = owner.create_with(spec).await.unwrap();
        owner.until(&made.name, SandboxState::Running).await;
        let shape = world.with(|state| state.reservations[0].request.shape.clone()).unwrap();
        assert_eq!(shape.docker(), DockerMode::Nested);
        assert_eq!(shape.mount_sources, ["/src"]);
        assert_eq!(shape.encoder.unwrap().sessions, 1);
        assert_eq!(shape.image, "wolfpack/sandbox-docker:latest");
        let bad = SandboxSpec {
            mounts: vec![Mount {
                source: "/src".into(),
                target: "/proc/1".into(),
                read_only: true,
            }],
            ..SandboxSpec::default()
        };
        let refused = owner.create_with(bad).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RequestInvalid);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_wolf_never_takes_another_may() {
    for never in [Reason::DockerModeUnsupported, Reason::MountForbidden] {
        on_each_engine(2, |world, manager| async move {
            let mut owner = manager.owner();
            world.with(|state| state.create_faults.push_back(CreateFault::Never(never)));
            let made = owner.create_with(with(DockerMode::Nested)).await.unwrap();
            let runs = owner.until(&made.name, SandboxState::Running).await;
            let status = runs.status.unwrap();
            assert_eq!(status.reason, "");
            let asked = world.with(|state| {
                state.reservations.iter().map(|it| it.reservation.wolf.clone()).collect::<Vec<_>>()
            });
            assert_eq!(asked.len(), 2);
            assert_ne!(asked[0], asked[1]);
            owner.end(&made.name).await;
            nothing_left(&world).await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_wolf_takes_fails_with_the_wolfs_reason() {
    on_each_engine(2, |world, manager| async move {
        let mut owner = manager.owner();
        let never = CreateFault::Never(Reason::MountForbidden);
        world.with(|state| state.create_faults.extend([never; 2]));
        let made = owner.create_with(SandboxSpec::default()).await.unwrap();
        let failed = owner.until(&made.name, SandboxState::Failed).await;
        let status = failed.status.unwrap();
        assert_eq!(status.reason, "MOUNT_FORBIDDEN");
        assert!(status.message.contains("as the test wants it"), "{}", status.message);
        assert_eq!(world.count("create"), 2, "each wolf is asked once");
        nothing_left(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_the_image_is_can_be_read_while_it_comes() {
    on_each_engine(1, |world, manager| async move {
        let mut owner = manager.owner();
        world.with(|state| state.create_faults.push_back(CreateFault::HangInPull));
        let made = owner.create("").await;
        let told = |it: &Sandbox| it.status.as_ref().unwrap().pull.is_some();
        let pulls = owner.until_it(&made.name, "pulling with progress", told).await;
        let pull = pulls.status.unwrap().pull.unwrap();
        assert_eq!((pull.current_bytes, pull.total_bytes, pull.bytes_per_second), (1, 4, 7));
        assert_eq!(pull.layers[0].state, "Downloading");
        let deleting = owner.delete(&made.name).await;
        assert_eq!(deleting.status.unwrap().pull, None, "only while it is PULLING");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_asked_for_where_they_stand() {
    on_each_engine(1, |world, manager| async move {
        let mut admin = manager.client("wp_a_admin");
        let mut asked = Vec::new();
        for mode in [DockerMode::None, DockerMode::Nested, DockerMode::Shared] {
            let made = admin.create_with(with(mode)).await.unwrap();
            admin.until(&made.name, SandboxState::Running).await;
            asked.push(made.name);
        }
        let list = |name: &String| ListContainersRequest { sandbox: name.clone() };
        let none = admin.containers.list_containers(list(&asked[0])).await.unwrap_err();
        assert_eq!(reason(&none), Reason::DockerAbsent);
        for (name, relation) in
            [(&asked[1], ContainerRelation::Nested), (&asked[2], ContainerRelation::Sibling)]
        {
            let listed = admin.containers.list_containers(list(name)).await.unwrap().into_inner();
            assert_eq!(listed.containers[0].relation(), relation);
            assert_eq!(&listed.containers[0].id, name);
            let mut other = manager.client("wp_b_admin");
            let refused = other.containers.list_containers(list(name)).await.unwrap_err();
            assert_eq!(reason(&refused), Reason::SandboxNotFound);
        }
        world.with(|state| state.black_holes.insert(asked[1].clone()));
        let mut viewer = manager.client("wp_a_viewer");
        let around = viewer.containers.list_containers(list(&asked[1])).await;
        assert_eq!(around.unwrap().into_inner().containers.len(), 1, "through the wolf");
    })
    .await;
}
