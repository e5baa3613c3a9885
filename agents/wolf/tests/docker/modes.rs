//! Docker in sandboxes, and folders of the host, on a real engine. What takes
//! an engine that remaps users says so where it does not.

use std::process::Output;

use wolfpack_wolf_agent::mounts::MountRequest;

use super::*;

fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().expect("docker")
}

/// What a program in a sandbox says, both ways, and whether it worked.
fn inside(container: &str, script: &str) -> (bool, String) {
    let output = docker(&["exec", container, "sh", "-c", script]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_may_be_root_of_what_is_its_own_and_of_nothing_else() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket);
    let lifecycle = host.lifecycle().await;
    let ready = lifecycle.ready_now().expect("ready");
    let mut request = host.request("the-token");
    request.docker = DockerMode::Nested;
    if ready.engine.remapped_root.is_none() {
        let refused = lifecycle.create(request).await.expect_err("the engine does not remap users");
        assert_eq!(refused.reason, wolfpack_types::Reason::DockerModeUnsupported);
        eprintln!("not run: NESTED takes an engine with userns-remap");
        host.clear().await;
        return;
    }
    let before = lifecycle.footprint().await.expect("counted");
    let made = create(&lifecycle, request.clone()).await;
    let id = made.container.id.clone();
    let lines = host.log(&id, &[(false, "done")]).await;
    let out = lines.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    assert!(out.contains("token the-token"), "{out}");

    let shown = docker_inspect(&id).expect("inspected");
    let broken = hardening::violations(&shown["HostConfig"], &Policy::of(DockerMode::Nested));
    assert_eq!(broken, Vec::<String>::new());

    // Its own: mounts, its network, its volume on a real file system.
    for allowed in [
        "mkdir -p /mnt/x && mount -t tmpfs none /mnt/x && umount /mnt/x",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "mkdir -p /mnt/o && cd /var/lib/docker && mkdir -p l u w && mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w /mnt/o",
        "unshare --mount --pid --fork mount -t proc proc /proc",
    ] {
        let (worked, said) = inside(&id, allowed);
        assert!(worked, "{allowed}: {said}");
    }
    // Not its own.
    for refused in [
        "echo x > /proc/sys/kernel/core_pattern",
        "mknod /tmp/disk b 254 0 && dd if=/tmp/disk of=/dev/null count=1",
        "echo b > /proc/sysrq-trigger",
        "mount -t cgroup -o devices none /mnt && echo a > /mnt/devices.allow",
    ] {
        let (worked, said) = inside(&id, refused);
        assert!(!worked, "{refused}: {said}");
    }

    // Home answers on its own bridge, and nothing else of the wolf does.
    let home = shown["HostConfig"]["ExtraHosts"][0].as_str().expect("a name");
    let home = home.trim_start_matches("wolfpack.internal:").to_owned();
    let open = tokio::net::TcpListener::bind(format!("{home}:0")).await.expect("a port");
    let closed = open.local_addr().expect("an address").port();
    let connect =
        |port: u16| format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{home}/{port}' && echo reached");
    let (reached, said) = inside(&id, &connect(ready.ports.broker));
    assert!(reached, "the relay is not reached: {said}");
    if before.rules.is_some() {
        let (reached, said) = inside(&id, &connect(closed));
        assert!(!reached, "a port of the wolf is reached: {said}");
    }

    // A second sandbox is on another network, with another volume.
    let mut second = host.request("t");
    second.docker = DockerMode::Nested;
    let neighbour = create(&lifecycle, second.clone()).await;
    let theirs = docker_inspect(&neighbour.container.id).expect("inspected");
    let network = &theirs["HostConfig"]["NetworkMode"];
    assert_ne!(network, &shown["HostConfig"]["NetworkMode"]);
    let address = &theirs["NetworkSettings"]["Networks"][network.as_str().expect("a name")];
    let address = address["IPAddress"].as_str().expect("an address");
    let ping = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/22' 2>&1");
    let (_, said) = inside(&id, &ping);
    assert!(!said.contains("refused"), "the neighbour answers: {said}");

    for claim in [request.claim, second.claim] {
        lifecycle.remove(claim.sandbox, None, 1).await.expect("removed");
    }
    assert_eq!(lifecycle.footprint().await.expect("counted"), before);
    host.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sandbox_starts_through_its_socket_is_beside_it_and_goes_with_it() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket);
    let lifecycle = host.lifecycle().await;
    let before = lifecycle.footprint().await.expect("counted");
    let mut request = host.request("t");
    request.docker = DockerMode::Shared;
    let made = create(&lifecycle, request.clone()).await;
    let shown = docker_inspect(&made.container.id).expect("inspected");
    let broken = hardening::violations(&shown["HostConfig"], &Policy::of(DockerMode::Shared));
    assert_eq!(broken, Vec::<String>::new());
    let (there, said) = inside(&made.container.id, "test -S /run/wolfpack/docker.sock");
    assert!(there, "{said}");

    // Docker's own client, over the very socket: run, attach, exec.
    let root = directory::root(&host.data_dir);
    let path = directory::path(&root, &request.claim.sandbox).join("docker.sock");
    let over = format!("unix://{}", path.display());
    let name = format!("wolfpack-test-{}", request.claim.sandbox);
    let client = |arguments: &[&str]| {
        let output = docker(&[&["-H", &over], arguments].concat());
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    };
    let (worked, said) = client(&["run", "--name", &name, IMAGE, "echo", "from beside"]);
    assert!(worked && said == "from beside", "{said}");
    let (worked, said) = client(&["run", "-d", "-v", &format!("{name}:/d"), IMAGE, "sleep", "600"]);
    assert!(worked, "{said}");
    let beside = said.lines().last().unwrap_or_default().to_owned();
    let (worked, said) = client(&["exec", &beside, "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert!(!worked && said.contains("out") && said.contains("err"), "{said}");
    let (worked, said) = client(&["network", "create", &name]);
    assert!(worked, "{said}");

    let seen = lifecycle.footprint().await.expect("counted");
    assert_eq!((seen.siblings, seen.networks - before.networks), (2, 1));
    assert_eq!(docker_inspect(&beside).expect("beside")["State"]["Running"], true);
    lifecycle.remove(request.claim.sandbox, None, 1).await.expect("removed");
    assert_eq!(lifecycle.footprint().await.expect("counted"), before);
    assert!(docker_inspect(&beside).is_none(), "it is still there");
    let _ = docker(&["volume", "rm", &name]);
    host.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_the_host_is_seen_as_it_changes() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket);
    let allowed = host.dir.path().join("allowed");
    std::fs::create_dir_all(allowed.join("code")).expect("a folder");
    std::fs::set_permissions(&allowed, Permissions::from_mode(0o700)).expect("a mode");
    std::fs::write(allowed.join("code/file"), "before").expect("a file");
    let lifecycle = host.lifecycle().await;
    let before = lifecycle.footprint().await.expect("counted");
    let mut request = host.request("t");
    let mount = |target: &str, read_only| MountRequest {
        source: allowed.join("code"),
        target: target.to_owned(),
        read_only,
    };
    request.mounts = vec![mount("/work", true), mount("/shared", false)];
    let made = create(&lifecycle, request.clone()).await;
    let id = &made.container.id;
    assert_eq!(inside(id, "cat /work/file"), (true, "before".to_owned()));
    std::fs::write(allowed.join("code/file"), "after").expect("a file");
    assert_eq!(inside(id, "cat /work/file"), (true, "after".to_owned()));
    assert!(!inside(id, "echo x > /work/new").0, "it is read-only");
    // Where root in a sandbox is nobody on the host, only what others may.
    std::fs::set_permissions(allowed.join("code"), Permissions::from_mode(0o777)).expect("a mode");
    let (worked, said) = inside(id, "echo x > /shared/new");
    assert!(worked, "{said}");
    assert_eq!(std::fs::read_to_string(allowed.join("code/new")).expect("written"), "x\n");
    lifecycle.remove(request.claim.sandbox, None, 1).await.expect("removed");
    assert_eq!(lifecycle.footprint().await.expect("counted"), before);
    assert_eq!(std::fs::read_to_string(allowed.join("code/file")).expect("kept"), "after");
    host.clear().await;
}

/// Takes a command that kills the engine and starts it again, in
/// `WOLFPACK_TEST_RESTART_ENGINE`: nobody's engine is killed unasked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandboxes_outlive_a_killed_engine_or_say_why_they_ended() {
    let Some(socket) = socket().await else { return };
    let Ok(restart) = std::env::var("WOLFPACK_TEST_RESTART_ENGINE") else {
        eprintln!(
            "not run: set WOLFPACK_TEST_RESTART_ENGINE to a command that kills the engine and starts it again"
        );
        return;
    };
    let host = Host::new(&socket);
    let lifecycle = host.lifecycle().await;
    let remaps = lifecycle.ready_now().expect("ready").engine.remapped_root.is_some();
    let before = lifecycle.footprint().await.expect("counted");
    let mut made = Vec::new();
    for docker in [DockerMode::None, DockerMode::Nested, DockerMode::Shared] {
        let mut request = host.request("t");
        request.docker = docker;
        if docker != DockerMode::Nested || remaps {
            create(&lifecycle, request.clone()).await;
            made.push(request.claim.sandbox);
        }
    }
    let killed = Command::new("sh").args(["-c", &restart]).status().expect("a shell");
    assert!(killed.success(), "{restart}");
    let back = || async { host.engine.info().await.is_ok() };
    until("the engine is back", back).await;
    let observer = lifecycle.observer();
    for sandbox in &made {
        let settled = || async {
            let seen = observer.of_sandbox(sandbox);
            let Some(seen) = seen else { return false };
            let shown = docker_inspect(&seen.container.id);
            let runs = shown.is_some_and(|shown| shown["State"]["Running"] == true);
            match seen.container.state {
                ContainerState::Running => runs,
                ContainerState::Exited => !runs,
                ContainerState::Created => false,
            }
        };
        until("what became of it is seen", settled).await;
        let seen = observer.of_sandbox(sandbox).expect("seen");
        eprintln!(
            "{sandbox}: {:?} {:?} {}",
            seen.container.state, seen.container.exit_code, seen.message
        );
        if seen.container.state == ContainerState::Exited {
            assert!(seen.message.contains("engine was restarted"), "{seen:?}");
        }
    }
    for sandbox in made {
        lifecycle.remove(sandbox, None, 1).await.expect("removed");
    }
    assert_eq!(lifecycle.footprint().await.expect("counted"), before);
    host.clear().await;
}
