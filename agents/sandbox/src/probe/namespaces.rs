//! Whether its namespaces are its own.

use std::path::Path;

use nix::mount::MsFlags;

use super::facts::{AGENT, field};
use super::opening::{Opening, for_reading};
use super::{Facts, Finding, private, target};

/// Inodes that the kernel gives to the namespaces it starts with.
const FIRST_IPC: &str = "ipc:[4026531839]";
const FIRST_PID: &str = "pid:[4026531836]";

pub(super) fn mount(facts: &Facts) -> Finding {
    let Some(at) = target::directory() else {
        return Finding::unknown("no directory to mount on");
    };
    let tried = private::mounts(false, || {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let mounted =
            nix::mount::mount(Some("probe"), &at, Some("tmpfs"), flags, Some("size=4096"));
        if mounted.is_ok() {
            let _ = nix::mount::umount(&at);
        }
        mounted
    });
    match tried {
        Err(private::Refused(why)) => Finding::blocked(why),
        Ok(Err(errno)) => Finding::blocked(format!("mount of a tmpfs: {}", errno.desc())),
        Ok(Ok(())) if facts.host_root => {
            Finding::allowed("a tmpfs can be mounted by the host's own root")
        }
        Ok(Ok(())) => Finding::own(
            "a tmpfs can be mounted in a mount namespace of its own user namespace, seen by nobody else",
        ),
    }
}

/// What is known of the processes that can be seen.
#[derive(Debug, Default)]
struct Seen {
    first: String,
    count: usize,
    kernel_threads: usize,
}

fn seen() -> Seen {
    let comm = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
    };
    let mut seen = Seen { first: comm("1"), ..Seen::default() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return seen };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        seen.count += 1;
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let kernels =
            field(&status, "Kthread") == Some("1") || (pid == "2" && comm("2") == "kthreadd");
        seen.kernel_threads += usize::from(kernels);
    }
    seen
}

pub(super) fn pid(_: &Facts) -> Finding {
    let seen = seen();
    let inode = link("pid");
    let evidence = format!(
        "{inode}, PID 1 is {:?}, {} processes, {} of the kernel",
        seen.first, seen.count, seen.kernel_threads
    );
    if inode == FIRST_PID || seen.kernel_threads > 0 || seen.first != AGENT {
        Finding::allowed(evidence)
    } else {
        Finding::blocked(evidence)
    }
}

/// Which namespace it is can be read, whose it is cannot: beside the kernel's
/// first one, what other users left in it tells.
pub(super) fn ipc(_: &Facts) -> Finding {
    let inode = link("ipc");
    let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let segments = segments.lines().count().saturating_sub(1);
    let evidence = format!("{inode}, {segments} shared memory segments");
    if inode == FIRST_IPC {
        Finding::allowed(format!("{evidence}: the host's own namespace"))
    } else if inode.is_empty() {
        Finding::unknown("/proc/self/ns/ipc cannot be read")
    } else {
        Finding::blocked(format!("{evidence}: not the kernel's first namespace"))
    }
}

pub(super) fn network(_: &Facts) -> Finding {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let outer = foreign_sockets(&sockets);
    let inode = link("net");
    let bridged: Vec<String> = list(Path::new("/sys/class/net"))
        .into_iter()
        .filter(|name| Path::new("/sys/class/net").join(name).join("device").exists())
        .collect();
    if !outer.is_empty() {
        return Finding::allowed(format!("{inode} holds {}", outer.join(", ")));
    }
    if !bridged.is_empty() {
        return Finding::allowed(format!(
            "{inode} holds the machine's devices {}",
            bridged.join(", ")
        ));
    }
    Finding::blocked(format!("{inode} holds no socket of an engine and no device of the machine"))
}

/// Sockets of engines that are not the sandbox's own, by `/proc/net/unix`.
pub(super) fn foreign_sockets(unix: &str) -> Vec<String> {
    let own = crate::docker::RUNTIME_DIR;
    let mut found: Vec<String> = unix
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|path| {
            let engine = ["/containerd/", "containerd-shim", "/dockershim", "/podman/", "/crio/"];
            engine.iter().any(|mark| path.contains(mark))
                || path.ends_with("/docker.sock")
                || path.ends_with("/containerd.sock")
        })
        .filter(|path| {
            // The agent listens at docker's usual place; its engine's shims are at theirs.
            !path.starts_with(own)
                && !matches!(*path, "/var/run/docker.sock" | "/run/docker.sock")
                && !path.starts_with("/run/containerd/s/")
        })
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found.truncate(5);
    found
}

/// Opening a process's memory is asked the same as attaching to it, and stops
/// nothing.
pub(super) fn ptrace(_: &Facts) -> Finding {
    let seen = seen();
    if seen.first == AGENT && link("pid") != FIRST_PID && seen.kernel_threads == 0 {
        return Finding::blocked("no process is seen that is not the sandbox's own");
    }
    const MOST: usize = 64;
    let mut refusals = Vec::new();
    for pid in list(Path::new("/proc")) {
        let own = pid == std::process::id().to_string();
        if own || !pid.bytes().all(|b| b.is_ascii_digit()) || refusals.len() >= MOST {
            continue;
        }
        let folder = Path::new("/proc").join(&pid);
        // The kernel's own have no program and no memory.
        if std::fs::read(folder.join("cmdline")).is_ok_and(|line| line.is_empty()) {
            continue;
        }
        match for_reading(&folder.join("mem")) {
            Opening::Opened => {
                return Finding::allowed(format!("the memory of process {pid} opens"));
            }
            Opening::Refused(why) => refusals.push(format!("{pid}: {why}")),
            Opening::Absent => {}
        }
    }
    refusals.truncate(5);
    Finding::blocked(refusals.join("; "))
}

fn link(name: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{name}"))
        .map(|inode| inode.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn list(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_of_its_own_is_no_stranger() {
        let unix = "Num RefCount Protocol Flags Type St Inode Path\n\
0: 2 0 10000 1 1 11 /run/wolfpack-docker/docker/containerd/containerd.sock\n\
0: 2 0 10000 1 1 12 /run/containerd/s/abc\n\
0: 2 0 10000 1 1 13 /var/run/docker.sock\n\
0: 2 0 10000 1 1 14 /run/user/1000/sway.sock\n";
        assert!(foreign_sockets(unix).is_empty());
        let more = format!(
            "{unix}0: 2 0 10000 1 1 15 /run/containerd/containerd.sock\n0: 2 0 10000 1 1 16 @/containerd-shim/moby/x/shim.sock@\n"
        );
        assert_eq!(foreign_sockets(&more).len(), 2);
    }
}
