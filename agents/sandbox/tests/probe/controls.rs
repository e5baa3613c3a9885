//! For every check a container in which it must report. Each is weakened by
//! what the check is about, and goes as soon as it has answered.

use std::time::{Duration, Instant};

use super::machine::{IMAGE, Network, Removed, Volume, agent, docker_ok, engine, name};
use super::probed::{BINARY, probe, probe_after};
use super::unshown;

const UNCONFINED: [&str; 4] =
    ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"];

fn weak<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    UNCONFINED.iter().chain(flags).copied().collect()
}

#[test]
fn an_unmasked_kernel_is_reported() {
    if !engine() {
        return;
    }
    let flags = weak(&["--security-opt", "systempaths=unconfined"]);
    let probed = probe(&flags, &["--only", "core_pattern", "--only", "kernel_helpers"]);
    probed.is("core_pattern", "allowed");
    probed.is("kernel_helpers", "allowed");
    assert_eq!(probed.code, 1);
}

/// Where the kernel has no sysrq there is no file: a stand-in is put in place.
#[test]
fn sysrq_is_reported() {
    if !engine() {
        return;
    }
    let flags = weak(&["--cap-add", "SYS_ADMIN", "--security-opt", "systempaths=unconfined"]);
    let place = "test -w /proc/sysrq-trigger || { \
                 mkdir /tmp/proc && touch /tmp/proc/sysrq-trigger && mount --bind /tmp/proc /proc; }";
    probe_after(&flags, place, "sysrq").is("sysrq", "allowed");
}

#[test]
fn kernel_memory_is_reported() {
    if !engine() {
        return;
    }
    let flags = weak(&["--volume", "/dev/null:/dev/mem"]);
    probe(&flags, &["--only", "kernel_memory"]).is("kernel_memory", "allowed");
}

#[test]
fn the_right_to_load_into_the_kernel_is_reported() {
    if !engine() {
        return;
    }
    let flags = weak(&["--cap-add", "SYS_MODULE", "--cap-add", "SYS_ADMIN"]);
    let probed = probe(&flags, &["--only", "module_load", "--only", "bpf"]);
    probed.is("bpf", "allowed");
    // Without modules the kernel refuses by another word than without the right.
    if unshown::why("module_load").is_some() {
        let evidence = &probed.evidence["module_load"];
        assert!(evidence.contains("loads no modules"), "{evidence}");
        probed.is("module_load", "blocked");
    } else {
        probed.is("module_load", "allowed");
    }
}

#[test]
fn cgroups_that_can_be_mounted_are_reported() {
    if !engine() {
        return;
    }
    let flags = weak(&["--cap-add", "SYS_ADMIN"]);
    let probed = probe(&flags, &["--only", "devices_allow", "--only", "release_agent"]);
    for check in ["devices_allow", "release_agent"] {
        if unshown::why(check).is_some() {
            let evidence = &probed.evidence[check];
            assert!(evidence.contains("no version 1 hierarchy"), "{evidence}");
            probed.is(check, "blocked");
        } else {
            probed.is(check, "allowed");
        }
    }
}

#[test]
fn disks_are_reported() {
    if !engine() {
        return;
    }
    let flags = weak(&[
        "--cap-add",
        "SYS_ADMIN",
        "--cap-add",
        "MKNOD",
        "--device-cgroup-rule",
        "b *:* rwm",
    ]);
    let checks = ["mknod_disk", "mount_disk", "mount"];
    let only: Vec<&str> = checks.iter().flat_map(|check| ["--only", check]).collect();
    let probed = probe(&flags, &only);
    probed.is("mknod_disk", "allowed");
    probed.is("mount", "allowed");
    // Without a kind that only reads nothing is mounted, and the probe says so.
    let readable = unshown::why("mount_disk").is_none();
    probed.is("mount_disk", if readable { "allowed" } else { "unknown" });
    // A node that somebody made and left there.
    if unshown::why("disk_nodes").is_some() {
        return;
    }
    let left =
        "IFS=: read -r major minor < /sys/block/loop0/dev && mknod /dev/left b $major $minor";
    probe_after(&flags, left, "disk_nodes").is("disk_nodes", "allowed");
}

#[test]
fn shared_namespaces_are_reported() {
    if !engine() {
        return;
    }
    let _neighbour = neighbour(&[]);
    // The engine's sockets alone would do; a neighbour's are found beside them.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let flags =
        weak(&["--pid", "host", "--ipc", "host", "--network", "host", "--cap-add", "SYS_PTRACE"]);
    let checks =
        ["host_pid", "host_network", "host_ptrace", "neighbour_processes", "neighbour_sockets"];
    let only: Vec<&str> = checks.iter().flat_map(|check| ["--only", check]).collect();
    let probed = probe(&flags, &[only.as_slice(), &["--only", "host_ipc"]].concat());
    for check in checks {
        probed.is(check, "allowed");
    }
    let evidence = &probed.evidence["neighbour_sockets"];
    assert!(evidence.contains(socket.to_str().unwrap()), "{evidence}");
    let first = unshown::why("host_ipc").is_none();
    probed.is("host_ipc", if first { "allowed" } else { "blocked" });
}

#[test]
fn files_and_sockets_of_the_engine_are_reported() {
    if !engine() {
        return;
    }
    // An engine that is new has no volume yet, and nothing to find.
    let neighbour = Volume(name("volume"));
    docker_ok(&["volume", "create", &neighbour.0]);
    let root = docker_ok(&["info", "--format", "{{.DockerRootDir}}"]);
    // Not where an engine of its own would keep its data: that may be a file system of its own, and then is no neighbour's.
    let data = format!("{root}:/mnt/docker:ro");
    let flags =
        ["--volume", data.as_str(), "--volume", "/var/run/docker.sock:/var/run/docker.sock"];
    let probed = probe(&flags, &["--only", "neighbour_volumes", "--only", "docker_socket"]);
    probed.is("docker_socket", "allowed");
    probed.is("neighbour_volumes", "allowed");
}

/// In a network of its own, where nobody else's container answers.
#[test]
fn neighbours_that_answer_are_reported() {
    if !engine() {
        return;
    }
    let network = Network(name("neighbours"));
    docker_ok(&["network", "create", &network.0]);
    let flags = ["--network", network.0.as_str()];
    let probed = || probe(&flags, &["--only", "neighbour_ports"]);
    probed().is("neighbour_ports", "blocked");
    let neighbour = neighbour(&flags);
    probed().is("neighbour_ports", "allowed");
    drop(neighbour);
}

/// A network with nothing else in it, and the address of this machine there.
fn network_here(what: &str) -> (Network, String) {
    let network = Network(name(what));
    docker_ok(&["network", "create", &network.0]);
    let format = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway = docker_ok(&["network", "inspect", "--format", format, &network.0]);
    (network, gateway)
}

/// The wolf is this test, which listens on the address of a bridge of its own.
/// Its firewall stands in the container: it drops what is not for these ports,
/// as the wolf's does at the other end.
#[test]
fn what_listens_beside_the_relay_is_reported() {
    if !engine() {
        return;
    }
    let (network, gateway) = network_here("wolf");
    let (_other_network, other) = network_here("uplink");
    let listen = |port: u16| std::net::TcpListener::bind((gateway.as_str(), port)).unwrap();
    let flags = ["--network", network.0.as_str(), "--cap-add", "NET_ADMIN"];
    let let_in = |ports: &str| {
        let rule = format!("OUTPUT -d {gateway} -p tcp -m multiport ! --dports {ports} -j DROP");
        format!("iptables-nft -A {rule} 2>/dev/null || iptables-legacy -A {rule}")
    };
    // Nobody listens and nothing keeps it away: the wolf's own refusal tells.
    let bare = probe(&flags, &["--only", "wolf_ports"]);
    bare.is("wolf_ports", "allowed");
    let evidence = &bare.evidence["wolf_ports"];
    assert!(!evidence.contains(" 0 refused"), "{evidence}");

    let relay = listen(8443);
    probe_after(&flags, &let_in("8443,8444"), "wolf_ports").is("wolf_ports", "blocked");
    let metrics = listen(9090);
    let open = probe_after(&flags, &let_in("8443,8444,9090"), "wolf_ports");
    open.is("wolf_ports", "allowed");
    let evidence = &open.evidence["wolf_ports"];
    assert!(evidence.contains(&format!("1 open [{gateway}:9090], 0 refused")), "{evidence}");

    // An address of the wolf's that its firewall forgot.
    let also = format!("wolf_ports --wolf-address {other}");
    let forgotten = probe_after(&flags, &let_in("8443,8444"), &also);
    forgotten.is("wolf_ports", "allowed");
    let evidence = &forgotten.evidence["wolf_ports"];
    assert!(evidence.contains(&format!("[{other}:")), "{evidence}");
    drop((relay, metrics));
}

/// The cloud is in the container itself, which nothing leads out of.
#[test]
fn metadata_that_answers_is_reported() {
    if !engine() {
        return;
    }
    let cloud = "ip link set lo up\nip addr add 169.254.169.254/32 dev lo\n\
        perl -MIO::Socket::INET -e 'my $listens = IO::Socket::INET->new(LocalAddr => \"169.254.169.254\", \
        LocalPort => 80, Listen => 9) or die; close STDOUT; sleep 60' &\n\
        until perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(\"169.254.169.254:80\")'; do sleep 0.05; done";
    let flags = ["--network", "none", "--cap-add", "NET_ADMIN"];
    probe_after(&flags, cloud, "metadata").is("metadata", "allowed");
}

/// A container whose PID 1 is the agent.
fn neighbour(flags: &[&str]) -> Removed {
    let mount = format!("{}:{BINARY}:ro", agent().display());
    let name = name("neighbour");
    let boot = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "sandbox": "sandbox-1", "project": "project-1", "execution": "boot-1", "argv": [],
        "user": "", "env": {}, "cwd": "/", "desktop": false, "broker": "https://127.0.0.1:9",
        "gateway": "https://127.0.0.1:9", "socket_uid": 0,
    });
    std::fs::write(boot.path().join("config.json"), config.to_string()).unwrap();
    let folder = format!("{}:/run/wolfpack", boot.path().display());
    let removed = Removed(name.clone());
    let mut args = vec!["run", "--detach", "--name", &name, "--user", "0:0"];
    args.extend(["--volume", &mount, "--volume", &folder]);
    args.extend(flags);
    args.extend(["--entrypoint", BINARY, IMAGE]);
    docker_ok(&args);
    let limit = Instant::now() + Duration::from_secs(20);
    while !boot.path().join("agent.sock").exists() {
        assert!(Instant::now() < limit, "the neighbour did not start");
        std::thread::yield_now();
    }
    removed
}
