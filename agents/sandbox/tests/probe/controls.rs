//! For every check a container in which it must report. Each is weakened by
//! what the check is about, and goes as soon as it has answered.

use std::time::{Duration, Instant};

use super::machine::{IMAGE, Network, Removed, Volume, agent, docker_ok, engine, name};
use super::probed::{BINARY, probe, probe_after};

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
    if probed.evidence["module_load"].contains("loads no modules") {
        eprintln!("NOT SHOWN: module_load: this machine's kernel loads no modules at all");
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
    let version_2 = docker_ok(&["info", "--format", "{{.CgroupVersion}}"]) == "2";
    if version_2 {
        eprintln!(
            "NOT SHOWN: devices_allow, release_agent: this machine has cgroups version 2 only"
        );
        probed.is("release_agent", "blocked");
    } else {
        probed.is("devices_allow", "allowed");
        probed.is("release_agent", "allowed");
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
    for check in checks {
        probed.is(check, "allowed");
    }
    // A node that somebody made and left there.
    if !std::path::Path::new("/sys/block/loop0/dev").exists() {
        eprintln!("NOT SHOWN: disk_nodes: this machine has no loop device");
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
    let _neighbour = neighbour();
    let flags =
        weak(&["--pid", "host", "--ipc", "host", "--network", "host", "--cap-add", "SYS_PTRACE"]);
    let checks =
        ["host_pid", "host_network", "host_ptrace", "neighbour_processes", "neighbour_sockets"];
    let only: Vec<&str> = checks.iter().flat_map(|check| ["--only", check]).collect();
    let probed = probe(&flags, &[only.as_slice(), &["--only", "host_ipc"]].concat());
    for check in checks {
        probed.is(check, "allowed");
    }
    if std::fs::read_link("/proc/self/ns/ipc").unwrap().to_string_lossy() == "ipc:[4026531839]" {
        probed.is("host_ipc", "allowed");
    } else {
        eprintln!("NOT SHOWN: host_ipc: this machine is a container itself");
    }
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

#[test]
fn neighbours_that_answer_are_reported() {
    if !engine() {
        return;
    }
    let neighbour = neighbour();
    let network = docker_ok(&[
        "inspect",
        "--format",
        "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}",
        &neighbour.0,
    ]);
    let probed = probe(&["--network", &network], &["--only", "neighbour_ports"]);
    probed.is("neighbour_ports", "allowed");
}

/// The wolf is this test, which listens on the address of a bridge of its own.
#[test]
fn what_listens_beside_the_relay_is_reported() {
    if !engine() {
        return;
    }
    let network = Network(name("wolf"));
    docker_ok(&["network", "create", &network.0]);
    let format = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway = docker_ok(&["network", "inspect", "--format", format, &network.0]);
    let listen = |port: u16| std::net::TcpListener::bind((gateway.as_str(), port)).unwrap();
    let probed = || probe(&["--network", &network.0], &["--only", "wolf_ports"]);
    let relay = listen(8443);
    probed().is("wolf_ports", "blocked");
    let metrics = listen(9090);
    probed().is("wolf_ports", "allowed");
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
fn neighbour() -> Removed {
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
    docker_ok(&[
        "run",
        "--detach",
        "--name",
        &name,
        "--user",
        "0:0",
        "--volume",
        &mount,
        "--volume",
        &folder,
        "--entrypoint",
        BINARY,
        IMAGE,
    ]);
    let limit = Instant::now() + Duration::from_secs(20);
    while !boot.path().join("agent.sock").exists() {
        assert!(Instant::now() < limit, "the neighbour did not start");
        std::thread::yield_now();
    }
    removed
}
