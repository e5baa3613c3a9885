//! What sandboxes have beside their container: Docker, folders of the host.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};

use wolfpack_proto::agent::v1::ListContainersRequest;
use wolfpack_proto::agent::v1::container_service_server::ContainerService as _;
use wolfpack_proto::sandbox::v1::{Container, ContainerRelation, Mount};
use wolfpack_proto::types::v1::DockerMode as ProtoMode;
use wolfpack_types::DockerMode;

use super::*;

impl Host {
    /// An engine that remaps users, to ourselves.
    fn remap(&self) {
        let us = std::fs::metadata(self.dir.path()).unwrap();
        self.fake.remap_users(Some((us.uid(), us.gid())));
    }

    fn docker(&self, sandbox: &str, execution: &str, mode: ProtoMode) -> CreateSandboxRequest {
        let mut request = self.request(sandbox, execution);
        request.spec.as_mut().unwrap().docker = mode.into();
        request
    }

    fn told(&self, sandbox: &str) -> SandboxBoot {
        let dir = self.container(sandbox).unwrap().mounted("/run/wolfpack").unwrap();
        serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
    }

    fn hardened(&self, sandbox: &str, docker: DockerMode, mounts: Vec<PathBuf>) {
        let made = self.container(sandbox).unwrap();
        let policy = hardening::Policy { docker, mounts };
        let broken = hardening::violations(&made.request["HostConfig"], &policy);
        assert_eq!(broken, Vec::<String>::new());
    }
}

impl Wolf {
    async fn siblings(&self, sandbox: &str) -> Result<Vec<Container>, Reason> {
        let request = ListContainersRequest { sandbox: format!("sandboxes/{sandbox}") };
        let rpcs = SiblingRpcs::new(self.lifecycle.clone());
        let listed = rpcs.list_containers(Request::new(request)).await;
        listed
            .map(|listed| listed.into_inner().containers)
            .map_err(|status| from_status(&status).reason)
    }
}

#[tokio::test]
async fn an_engine_of_its_own_comes_with_a_network_and_a_volume_and_goes_with_them() {
    let host = Host::new();
    host.remap();
    let wolf = host.start().await;
    let before = wolf.lifecycle.footprint().await.unwrap();
    let mut request = host.docker("s1", "e1", ProtoMode::Nested);
    let resources = request.reservation.as_mut().unwrap().resources.as_mut().unwrap();
    resources.disk_bytes = Some(5 << 30);
    wolf.create(request).await.1.unwrap();

    host.hardened("s1", DockerMode::Nested, Vec::new());
    let made = host.container("s1").unwrap();
    assert_eq!(made.label("wolfpack.docker"), Some("nested"));
    let config = &made.request["HostConfig"];
    let network = config["NetworkMode"].as_str().unwrap();
    assert!(network.starts_with("wolfpack-s1-"), "{network}");
    assert_eq!(config["MaskedPaths"], json!([]));
    assert_eq!(config["ReadonlyPaths"], json!([]));
    let volume = config["Mounts"].as_array().unwrap().iter();
    let volume = volume.clone().find(|mount| mount["Target"] == "/var/lib/docker").unwrap();
    assert_eq!(
        (volume["Type"].as_str(), volume["Source"].as_str()),
        (Some("volume"), Some(network))
    );
    assert_eq!(host.fake.volumes(), [network]);
    assert_eq!(host.fake.networks().len(), 2);
    // Home is on its own bridge, on the ports of the shared one.
    let ready = wolf.lifecycle.ready_now().unwrap();
    let home =
        config["ExtraHosts"][0].as_str().unwrap().strip_prefix("wolfpack.internal:").unwrap();
    assert_ne!(home, ready.network.gateway.to_string());
    for port in [ready.ports.gateway, ready.ports.broker] {
        tokio::net::TcpStream::connect((home, port)).await.unwrap();
    }
    let told = host.told("s1");
    assert_eq!(told.docker, DockerMode::Nested);
    let nested = told.nested.unwrap();
    assert_eq!((nested.depth, nested.disk_bytes), (2, Some(5 << 30)));
    assert_eq!(wolf.siblings("s1").await.unwrap_err(), Reason::DockerAbsent);

    // Another one has a network of its own.
    wolf.create(host.docker("s2", "e1", ProtoMode::Nested)).await.1.unwrap();
    assert_eq!((host.fake.networks().len(), host.fake.volumes().len()), (3, 2));
    assert_eq!(host.told("s2").nested.unwrap().disk_bytes, None);
    for sandbox in ["s1", "s2"] {
        wolf.remove(sandbox, "", 1).await.unwrap();
    }
    assert_eq!(wolf.lifecycle.footprint().await.unwrap(), before);
    assert!(tokio::net::TcpStream::connect((home, ready.ports.gateway)).await.is_err());
    host.assert_nothing_left(&wolf);
    wolf.stop().await;
}

#[tokio::test]
async fn what_a_wolf_does_not_give_is_refused_before_anything_begins() {
    let host = Host::new();
    let wolf = host.start().await;
    for mode in [ProtoMode::Nested, ProtoMode::Shared] {
        let refused = wolf.create(host.docker("s1", "e1", mode)).await.1.unwrap_err();
        assert_eq!(refused.reason, Reason::DockerModeUnsupported, "{refused}");
    }
    assert_eq!(wolf.lifecycle.holding(), 0);
    assert_eq!((host.fake.calls(Call::Create), host.fake.calls(Call::CreateVolume)), (0, 0));
    wolf.create(host.docker("s1", "e1", ProtoMode::None)).await.1.unwrap();
    host.hardened("s1", DockerMode::None, Vec::new());
    assert_eq!(host.told("s1").nested, None);
    assert_eq!(wolf.siblings("s1").await.unwrap_err(), Reason::DockerAbsent);
    assert_eq!(wolf.siblings("s2").await.unwrap_err(), Reason::SandboxNotFound);
    wolf.stop().await;
}

#[tokio::test]
async fn a_create_that_fails_leaves_nothing_at_whatever_step() {
    let host = Host::new();
    host.remap();
    let wolf = host.start().await;
    let before = wolf.lifecycle.footprint().await.unwrap();
    for call in [Call::CreateNetwork, Call::CreateVolume, Call::Create, Call::Start] {
        for fault in [Fault::Status(500, "no"), Fault::DoneAnd(500, "done, but")] {
            host.fake.script(call, fault.clone());
            let failed = wolf.create(host.docker("s1", "e1", ProtoMode::Nested)).await.1;
            assert_eq!(failed.unwrap_err().reason, Reason::EngineFailed, "{call:?} {fault:?}");
            assert_eq!(wolf.lifecycle.footprint().await.unwrap(), before, "{call:?} {fault:?}");
            host.assert_nothing_left(&wolf);
        }
    }
    // A network that went away in between is made again.
    host.fake.script(Call::Create, Fault::Status(404, "network wolfpack-s1 not found"));
    wolf.create(host.docker("s1", "e1", ProtoMode::Nested)).await.1.unwrap();
    wolf.stop().await;
}

#[tokio::test]
async fn a_new_agent_takes_up_the_bridges_and_removes_what_nobody_has() {
    let host = Host::new();
    host.remap();
    let wolf = host.start().await;
    wolf.create(host.docker("s1", "e1", ProtoMode::Nested)).await.1.unwrap();
    wolf.create(host.docker("s2", "e1", ProtoMode::Nested)).await.1.unwrap();
    let config = host.container("s1").unwrap().request["HostConfig"].clone();
    let home =
        config["ExtraHosts"][0].as_str().unwrap().strip_prefix("wolfpack.internal:").unwrap();
    let ports = wolf.lifecycle.ready_now().unwrap().ports;
    wolf.stop().await;
    // Killed between the container and the rest.
    host.fake.destroy(&host.container("s2").unwrap().id);
    assert_eq!((host.fake.networks().len(), host.fake.volumes().len()), (3, 2));

    let wolf = host.start().await;
    assert_eq!((host.fake.networks().len(), host.fake.volumes().len()), (2, 1));
    assert_eq!(wolf.lifecycle.ready_now().unwrap().ports, ports);
    tokio::net::TcpStream::connect((home, ports.broker)).await.unwrap();
    wolf.remove("s1", "", 1).await.unwrap();
    assert_eq!((host.fake.networks().len(), host.fake.volumes().len()), (1, 0));
    wolf.stop().await;
}

#[tokio::test]
async fn fifty_come_and_go_without_a_trace() {
    let mut host = Host::new();
    host.shared = true;
    host.remap();
    let wolf = host.start().await;
    let before = wolf.lifecycle.footprint().await.unwrap();
    for round in 0..50 {
        let mode = [ProtoMode::None, ProtoMode::Nested, ProtoMode::Shared][round % 3];
        wolf.create(host.docker("s1", &format!("e{round}"), mode)).await.1.unwrap();
        assert_ne!(wolf.lifecycle.footprint().await.unwrap(), before);
        wolf.remove("s1", "", 1).await.unwrap();
    }
    assert_eq!(wolf.lifecycle.footprint().await.unwrap(), before);
    host.assert_nothing_left(&wolf);
    wolf.stop().await;
}

#[tokio::test]
async fn what_a_sandbox_starts_on_the_wolfs_engine_is_its_sibling_and_goes_with_it() {
    use crate::engine::DockerEngine;

    let mut host = Host::new();
    host.shared = true;
    let wolf = host.start().await;
    wolf.create(host.docker("s1", "e1", ProtoMode::Shared)).await.1.unwrap();
    host.hardened("s1", DockerMode::Shared, Vec::new());
    assert_eq!(host.told("s1").docker, DockerMode::Shared);
    let dir = host.container("s1").unwrap().mounted("/run/wolfpack").unwrap();
    let socket = dir.join("docker.sock");
    assert!(std::fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!(mode(&socket), 0o666);

    // A client in the sandbox, with the labels of somebody else.
    let client = DockerEngine::new(&socket);
    let theirs = BTreeMap::from([("dev.wolfpack.sibling-of".to_owned(), "s2".to_owned())]);
    client.ensure_network("mine", &theirs).await.unwrap_err();
    client.ensure_volume("data", &theirs, None).await.unwrap_err();
    let ours = BTreeMap::from([("dev.wolfpack.sibling-of".to_owned(), "s1".to_owned())]);
    client.ensure_network("mine", &ours).await.unwrap();
    client.ensure_volume("data", &ours, None).await.unwrap();
    for name in ["one", "two"] {
        let body = json!({"Image": "debian:bookworm-slim", "HostConfig": {"NetworkMode": "mine"}});
        post(&socket, &format!("/v1.41/containers/create?name={name}"), &body.to_string()).await;
    }
    let found = wolf.siblings("s1").await.unwrap();
    let names: Vec<_> = found.iter().map(|found| found.names[0].as_str()).collect();
    assert_eq!(names, ["two", "one"], "newest first");
    assert!(found.iter().all(|found| found.relation() == ContainerRelation::Sibling));
    assert_eq!(
        (found[0].state.as_str(), found[0].image.as_str()),
        ("created", "debian:bookworm-slim")
    );
    assert_eq!(wolf.list().await.len(), 1, "a sibling is no sandbox");

    // The next agent serves the socket again.
    wolf.stop().await;
    let wolf = host.start().await;
    client.siblings("dev.wolfpack.sibling-of", Some("s1")).await.unwrap();
    wolf.remove("s1", "", 1).await.unwrap();
    host.assert_nothing_left(&wolf);
    assert!(host.fake.volumes().is_empty());
    assert_eq!(host.fake.networks(), ["wolfpack-test"]);
    assert!(client.info().await.is_err(), "the socket is closed");
    wolf.stop().await;
}

/// Posts to a socket and waits for the answer.
async fn post(socket: &Path, path: &str, body: &str) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test]
async fn folders_of_the_host_are_shown_as_allowed_and_refused_by_rule() {
    let host = Host::new();
    let allowed = host.dir.path().join("allowed");
    std::fs::create_dir_all(allowed.join("code")).unwrap();
    std::fs::write(allowed.join("code/file"), "here").unwrap();
    symlink("/etc", allowed.join("out")).unwrap();
    let wolf = host.start().await;
    let with = |source: &str, target: &str| {
        let mut request = host.request("s1", "e1");
        request.spec.as_mut().unwrap().mounts =
            vec![Mount { source: source.to_owned(), target: target.to_owned(), read_only: true }];
        request
    };
    let at = |rest: &str| allowed.join(rest).to_string_lossy().into_owned();
    for (source, target, rule) in [
        ("/etc".to_owned(), "/work", "not_allowed"),
        (at("../x"), "/work", "source_odd"),
        (at("code"), "/run/wolfpack/bin", "target_reserved"),
        (at("out"), "/work", "symbolic_link"),
        (at("out/ssl"), "/work", "symbolic_link"),
        (at("none"), "/work", "absent"),
    ] {
        let refused = wolf.create(with(&source, target)).await.1.unwrap_err();
        assert_eq!(refused.reason, Reason::MountForbidden, "{refused}");
        assert_eq!(refused.metadata["rule"], rule, "{refused}");
        host.assert_nothing_left(&wolf);
    }
    wolf.create(with(&at("code"), "/work")).await.1.unwrap();
    let made = host.container("s1").unwrap();
    let source = made.mounted("/work").unwrap();
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "here");
    host.hardened("s1", DockerMode::None, vec![source.clone()]);
    let mounts = made.request["HostConfig"]["Mounts"].as_array().unwrap();
    assert_eq!(mounts.last().unwrap()["ReadOnly"], true);
    wolf.remove("s1", "", 1).await.unwrap();
    host.assert_nothing_left(&wolf);
    assert_eq!(wolf.lifecycle.footprint().await.unwrap().mounts, 0);
    assert_eq!(std::fs::read_to_string(allowed.join("code/file")).unwrap(), "here");
    wolf.stop().await;
}

#[tokio::test]
async fn what_ended_unseen_says_why() {
    let host = Host::new();
    let wolf = host.start().await;
    for sandbox in ["s1", "s2", "s3"] {
        wolf.create(host.request(sandbox, "e1")).await.1.unwrap();
    }
    let of = |all: Vec<ContainerStatus>, sandbox: &str| {
        all.into_iter().find(|one| one.sandbox == format!("sandboxes/{sandbox}")).unwrap()
    };
    host.fake.exit(&host.container("s1").unwrap().id, 3, false);
    let seen = of(wolf.list().await, "s1");
    assert_eq!((seen.state(), seen.message.as_str()), (ContainerState::Exited, ""));
    // The engine goes, and a container with it.
    until("followed", || host.fake.calls(Call::Events) > 0).await;
    let followed = host.fake.calls(Call::Events);
    host.fake.lose_events(true);
    host.fake.exit(&host.container("s2").unwrap().id, 137, false);
    host.fake.break_events();
    until("followed again", || host.fake.calls(Call::Events) > followed).await;
    let ended = || {
        let seen = wolf.lifecycle.observer().of_sandbox(&SandboxId::parse("s2").unwrap()).unwrap();
        seen.container.exit_code == Some(137)
    };
    until("seen", ended).await;
    let seen = of(wolf.list().await, "s2");
    assert!(seen.message.contains("engine was restarted"), "{seen:?}");
    wolf.stop().await;
    host.fake.exit(&host.container("s3").unwrap().id, 137, false);
    let wolf = host.start().await;
    let seen = of(wolf.list().await, "s3");
    assert_eq!((seen.state(), seen.exit_code), (ContainerState::Exited, Some(137)));
    assert!(seen.message.contains("wolf was stopped or restarted"), "{seen:?}");
    wolf.stop().await;
}
