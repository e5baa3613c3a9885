//! Does what was planned, to the namespaces of this process. All of it is
//! blocking and short; it is meant for a start.

use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::cgroup::{self, Plan};
use super::device_nodes::{self, Opened};
use super::{StepFailed, mounts};

/// The kernel's text of what is mounted.
const MOUNTINFO: &str = "/proc/self/mountinfo";
/// What a container lacks when a mount is refused.
const MAY_MOUNT: &str = "start the container with --cap-add SYS_ADMIN --security-opt \
    seccomp=unconfined --security-opt apparmor=unconfined";
/// Masks can be stacked, and unmounting one shows another.
const ROUNDS: usize = 8;

/// Gives this thread, and what it starts, a cgroup and a mount namespace of
/// its own; what is mounted outside later is still seen. Call it before there
/// are other threads: they stay outside.
///
/// # Errors
/// Step `isolate`, without the right to.
pub fn isolate() -> Result<(), StepFailed> {
    let failed = |what: &str, why: std::io::Error| {
        StepFailed::new("isolate", format!("{what}: {why}"), MAY_MOUNT)
    };
    unshare(CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| failed("no namespaces of its own", errno.into()))?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave)
        .map_err(|errno| failed("mounts stay shared", errno.into()))
}

/// Unmounts what hides parts of `/proc` and `/sys`, and answers what that was.
///
/// # Errors
/// Step `unmask`, with the first that stays.
pub fn unmask() -> Result<Vec<PathBuf>, StepFailed> {
    let failed = |why: String| StepFailed::new("unmask", why, MAY_MOUNT);
    let mut gone = Vec::new();
    for _ in 0..ROUNDS {
        let masks = mounts::masks(&mounts_now().map_err(failed)?);
        if masks.is_empty() {
            return Ok(gone);
        }
        for mask in masks {
            rustix::mount::unmount(&mask, UnmountFlags::DETACH)
                .map_err(|errno| failed(format!("{} stays: {errno}", mask.display())))?;
            gone.push(mask);
        }
    }
    Err(failed("something mounts over /proc or /sys again and again".to_owned()))
}

/// Makes `/sys` writable where it is not.
///
/// # Errors
/// Step `sys`, when it stays read-only.
pub fn writable_sys() -> Result<(), StepFailed> {
    let failed = |why: String| StepFailed::new("sys", why, MAY_MOUNT);
    let mounts = mounts_now().map_err(failed)?;
    let sys = Path::new("/sys");
    match mounts::holding(&mounts, sys) {
        Some(mount) if mount.target == sys && mount.read_only => writable(sys).map_err(failed),
        _ => Ok(()),
    }
}

/// Makes the control groups writable for an engine, and on v2 hands their
/// controllers down. Answers what was done in words.
///
/// # Errors
/// Step `cgroup`, with the tree that cannot be used.
pub fn cgroups() -> Result<String, StepFailed> {
    let failed = |why: String| StepFailed::new("cgroup", why, MAY_MOUNT);
    let mounts = mounts_now().map_err(failed)?;
    match cgroup::plan(&mounts).map_err(failed)? {
        Plan::V1 { remount } => {
            for tree in &remount {
                writable(tree).map_err(failed)?;
            }
            Ok(format!("v1, {} trees made writable", remount.len()))
        }
        Plan::V2 { mount, remount } => {
            let top = Path::new(cgroup::TOP);
            if mount {
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                rustix::mount::mount("cgroup2", top, "cgroup2", flags, None)
                    .map_err(|errno| failed(format!("a tree of its own: {errno}")))?;
            } else if remount {
                writable(top).map_err(failed)?;
            }
            let handed = cgroup::hand_down(top)
                .map_err(|error| failed(format!("controllers are not handed down: {error}")))?;
            Ok(format!("v2, handed down: {}", handed.join(" ")))
        }
    }
}

/// Has the kernel forward between networks. An engine that finds it so leaves
/// the policy for forwarded packets alone.
///
/// # Errors
/// Step `forwarding`, when it stays off.
pub fn forwarding() -> Result<(), StepFailed> {
    let switch = "/proc/sys/net/ipv4/ip_forward";
    if std::fs::read_to_string(switch).is_ok_and(|text| text.trim() == "1") {
        return Ok(());
    }
    std::fs::write(switch, "1").map_err(|error| {
        let fix = "start the container with --cap-add NET_ADMIN, or with --sysctl \
            net.ipv4.ip_forward=1";
        StepFailed::new("forwarding", format!("{switch}: {error}"), fix)
    })
}

/// Opens the GPUs' nodes that are this container's own.
///
/// # Errors
/// When a mode cannot be set.
pub fn device_nodes() -> Result<Opened, StepFailed> {
    let failed = |why: String| {
        StepFailed::new(
            device_nodes::STEP,
            why,
            "start the container with --device /dev/dri, as root, or without its devices",
        )
    };
    let mounts = mounts_now().map_err(&failed)?;
    device_nodes::open(Path::new("/dev"), &mounts).map_err(|error| failed(error.to_string()))
}

/// What is mounted now.
fn mounts_now() -> Result<Vec<mounts::Mount>, String> {
    let text =
        std::fs::read_to_string(MOUNTINFO).map_err(|error| format!("{MOUNTINFO}: {error}"))?;
    Ok(mounts::parse(&text))
}

/// Takes the read-only flag from one mount; not from its filesystem, which
/// others share and which is busy.
fn writable(target: &Path) -> Result<(), String> {
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_remount(target, flags, "")
        .map_err(|errno| format!("{} stays read-only: {errno}", target.display()))
}
