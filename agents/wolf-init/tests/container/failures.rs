//! Each step of the start made to fail by its surroundings: it is named, with
//! a code of its own, and a later good start recovers.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use wolfpack_dockerd::place::nvidia::Nvidia;

use crate::image::image;
use crate::wolf::{RIGHTS, STAND_IN, Wolf, docker};

/// Starts a wolf that must fail, and then a good one on the same volumes.
async fn fails(more: &[&str], code: i32, step: &str, says: &str) {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    wolf.run(&[&STAND_IN[..], more].concat()).await;
    named(&wolf, code, step, says).await;
    recovers(&wolf).await;
}

async fn named(wolf: &Wolf, code: i32, step: &str, says: &str) {
    let ended = wolf.ended().await;
    let logs = wolf.logs().await;
    assert_eq!(ended, code, "{logs}");
    let line =
        logs.lines().find(|line| line.starts_with(&format!("wolfpack-wolf-init: {step} failed")));
    let line = line.unwrap_or_else(|| panic!("{step} is not named: {logs}"));
    assert!(line.contains(says), "{line}");
}

async fn recovers(wolf: &Wolf) {
    wolf.remove().await;
    wolf.run(&STAND_IN).await;
    wolf.healthy().await;
}

/// The rights but one. Of one that is added and dropped, Docker keeps the
/// addition.
fn without_net_admin() -> Vec<&'static str> {
    let net_admin = RIGHTS.iter().position(|right| *right == "NET_ADMIN").unwrap();
    [&RIGHTS[..net_admin - 1], &RIGHTS[net_admin + 1..]].concat()
}

/// A seccomp profile that refuses some calls and allows the rest.
fn refusing(rules: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rules}]}}"#).unwrap();
    file
}

#[tokio::test]
async fn without_the_rights() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    let volumes = wolf.volumes();
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    wolf.run_bare(&[&STAND_IN[..], &volumes].concat()).await;
    named(&wolf, 70, "isolate", "--cap-add SYS_ADMIN").await;
    recovers(&wolf).await;
}

#[tokio::test]
async fn without_the_right_to_change_networks() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    let volumes = wolf.volumes();
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    wolf.run_bare(&[&without_net_admin()[..], &volumes, &STAND_IN].concat()).await;
    named(&wolf, 77, "iptables", "--cap-add NET_ADMIN").await;
    recovers(&wolf).await;
}

#[tokio::test]
async fn masks_that_stay() {
    let profile = refusing(r#"{"names":["umount2"],"action":"SCMP_ACT_ERRNO"}"#);
    let option = format!("seccomp={}", profile.path().display());
    fails(&["--security-opt", &option], 71, "unmask", "stays").await;
}

#[tokio::test]
async fn a_sys_that_stays_read_only() {
    // Mounts with MS_REMOUNT, 32.
    let profile = refusing(
        r#"{"names":["mount"],"action":"SCMP_ACT_ERRNO",
            "args":[{"index":3,"value":32,"valueTwo":32,"op":"SCMP_CMP_MASKED_EQ"}]}"#,
    );
    let option = format!("seccomp={}", profile.path().display());
    fails(&["--security-opt", &option], 72, "sys", "read-only").await;
}

#[tokio::test]
async fn without_control_groups() {
    fails(&["--tmpfs", "/sys/fs/cgroup"], 73, "cgroup", "no control groups").await;
}

/// Off from the start, and without the right to turn it on.
#[tokio::test]
async fn forwarding_that_stays_off() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    let volumes = wolf.volumes();
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    let off = ["--sysctl", "net.ipv4.ip_forward=0"];
    wolf.run_bare(&[&without_net_admin()[..], &volumes, &STAND_IN, &off].concat()).await;
    named(&wolf, 74, "forwarding", "--sysctl net.ipv4.ip_forward=1").await;
    recovers(&wolf).await;
    assert_eq!(wolf.exec(&["cat", "/proc/sys/net/ipv4/ip_forward"]).await.trim(), "1");
}

#[tokio::test]
async fn data_without_room() {
    let small = ["--tmpfs", "/data:size=16m", "-e", "WOLFPACK_INIT__DATA_ROOT=/data"];
    fails(&small, 75, "storage", "/data has 16 MB free").await;
}

#[tokio::test]
async fn data_that_carries_no_overlay() {
    // Mounts with MS_NOSUID and MS_NODEV and nothing else, 6: only the trial's.
    let profile = refusing(
        r#"{"names":["mount"],"action":"SCMP_ACT_ERRNO",
            "args":[{"index":3,"value":6,"op":"SCMP_CMP_EQ"}]}"#,
    );
    let option = format!("seccomp={}", profile.path().display());
    fails(&["--security-opt", &option], 75, "storage", "no overlay can be mounted").await;
}

#[tokio::test]
async fn data_on_an_overlay() {
    fails(&["-e", "WOLFPACK_INIT__DATA_ROOT=/data"], 75, "storage", "overlay").await;
}

#[tokio::test]
async fn data_that_cannot_be_written() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    let read_only = format!("{}-docker:/data:ro", wolf.name);
    let root = "WOLFPACK_INIT__DATA_ROOT=/data";
    wolf.run(&[&STAND_IN[..], &["-v", &read_only, "-e", root]].concat()).await;
    named(&wolf, 75, "storage", "read-only").await;
    recovers(&wolf).await;
}

#[tokio::test]
async fn a_pool_that_is_in_use() {
    let pool = "WOLFPACK_INIT__POOL=172.17.0.0/16";
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    // Whatever the outer bridge has: the pool is everything it could be.
    let own =
        docker(&["network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Subnet}}"]).await;
    let pool = own.trim().parse::<ipnet::Ipv4Net>().map_or_else(
        |_| pool.to_owned(),
        |subnet| format!("WOLFPACK_INIT__POOL={}", subnet.trunc()),
    );
    wolf.run(&[&STAND_IN[..], &["-e", &pool]].concat()).await;
    named(&wolf, 76, "network", "WOLFPACK_INIT__POOL").await;
    recovers(&wolf).await;
}

#[tokio::test]
async fn an_engine_that_copies_whole_images() {
    fails(&["-e", "WOLFPACK_INIT__ENGINE__STORAGE_DRIVER=vfs"], 78, "engine", "vfs").await;
}

#[tokio::test]
async fn no_engine() {
    fails(&["-e", "WOLFPACK_INIT__ENGINE__PROGRAM=/none"], 78, "engine", "/none").await;
}

#[tokio::test]
async fn an_engine_that_does_not_start() {
    // A driver it does not know ends it: its own words must be told.
    fails(&["-e", "WOLFPACK_INIT__ENGINE__STORAGE_DRIVER=none"], 78, "engine", "driver").await;
}

#[tokio::test]
async fn a_port_for_names_that_is_taken() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    // One that has the port on every address, in the network that they share.
    let holder = Wolf::new(image);
    let hold = "use Socket; socket(S, PF_INET, SOCK_DGRAM, 17) or die; \
                bind(S, sockaddr_in(53, INADDR_ANY)) or die; print STDERR qq(held\\n); sleep 1000";
    docker(&["run", "-d", "--name", &holder.name, "--entrypoint", "perl", image, "-e", hold]).await;
    let began = std::time::Instant::now();
    while !holder.logs().await.contains("held") {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{}", holder.logs().await);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let network = format!("container:{}", holder.name);
    wolf.run(&[&STAND_IN[..], &["--network", &network]].concat()).await;
    named(&wolf, 79, "dns", "172.").await;
    recovers(&wolf).await;
}

#[tokio::test]
async fn no_agent() {
    fails(&["-e", "WOLFPACK_INIT__AGENT__PROGRAM=/none"], 80, "agent", "/none").await;
}

#[tokio::test]
async fn an_agent_that_is_told_nothing() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    // The real one: without a server it has nothing to do.
    wolf.run(&[]).await;
    named(&wolf, 64, "agent", "configuration").await;
    assert!(wolf.logs().await.contains("server"), "the agent says what is missing");
    recovers(&wolf).await;
}

#[tokio::test]
async fn a_configuration_with_faults() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    wolf.run(&["-e", "WOLFPACK_INIT__DEPTH=99", "-e", "WOLFPACK_INIT__NONSENSE=1"]).await;
    assert_eq!(wolf.ended().await, 64);
    let logs = wolf.logs().await;
    assert!(logs.to_lowercase().contains("nonsense"), "{logs}");
    recovers(&wolf).await;
}

/// A stand-in for NVIDIA's device and its programs, of a version.
fn toolkit(folder: &Path, version: &str) {
    std::fs::write(folder.join("nvidiactl"), "").unwrap();
    for program in ["nvidia-ctk", "nvidia-container-runtime"] {
        let script = format!("#!/bin/sh\necho NVIDIA Container Toolkit CLI version {version}\n");
        let file = folder.join(program);
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }
}

/// The wolf goes on without: only the engine is not told of it.
#[tokio::test]
async fn a_gpu_toolkit_that_lets_root_out() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    let folder = tempfile::tempdir().unwrap();
    let mount = format!("{}:/nvidia:ro", folder.path().display());
    let mut arguments = STAND_IN.to_vec();
    arguments.extend(["-v", &mount]);
    for variable in [
        "WOLFPACK_INIT__NVIDIA__CONTROL_DEVICE=/nvidia/nvidiactl",
        "WOLFPACK_INIT__NVIDIA__TOOLKIT=/nvidia/nvidia-ctk",
        "WOLFPACK_INIT__NVIDIA__RUNTIME=/nvidia/nvidia-container-runtime",
    ] {
        arguments.extend(["-e", variable]);
    }
    let runtimes = ["info", "-f", "{{json .Runtimes}}"];

    toolkit(folder.path(), "1.17.7");
    wolf.run(&arguments).await;
    let status = wolf.healthy().await;
    let degraded: Vec<_> = status.degraded().collect();
    assert_eq!(degraded.len(), 1, "{degraded:?}");
    assert_eq!(degraded[0].name, "nvidia");
    assert!(degraded[0].note.contains("1.17.7"), "{degraded:?}");
    assert!(degraded[0].note.contains("install nvidia-container-toolkit"), "{degraded:?}");
    assert!(matches!(status.nvidia, Some(Nvidia::Refused { .. })), "{:?}", status.nvidia);
    let known = wolf.inner(&runtimes).await;
    assert!(!known.contains("nvidia"), "{known}");

    // A newer one, and the wolf started again.
    toolkit(folder.path(), "1.17.8");
    wolf.remove().await;
    wolf.run(&arguments).await;
    let status = wolf.healthy().await;
    assert_eq!(status.degraded().count(), 0, "{status:?}");
    assert!(
        matches!(&status.nvidia, Some(Nvidia::Ready { version, .. }) if version == "1.17.8"),
        "{:?}",
        status.nvidia
    );
    let known = wolf.inner(&runtimes).await;
    assert!(known.contains("nvidia"), "{known}");
}
