//! Other sandboxes of the wolf, and its engine.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::sockopt::PeerCredentials;
use wolfpack_types::sandbox_boot::{DOCKER_DATA, DOCKER_SOCKET};

use super::facts::{AGENT, field};
use super::namespaces::foreign_sockets;
use super::{Facts, Finding};

/// An agent that is PID 1 of a namespace below this one is another sandbox's.
pub(super) fn processes(_: &Facts) -> Finding {
    let mut agents = Vec::new();
    let mut count = 0;
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        count += 1;
        if foreign_agent(&status) {
            agents.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    if agents.is_empty() {
        Finding::blocked(format!("{count} processes, no agent of another sandbox among them"))
    } else {
        Finding::allowed(format!("agents of other sandboxes: processes {}", agents.join(", ")))
    }
}

fn foreign_agent(status: &str) -> bool {
    let ids: Vec<&str> = field(status, "NSpid").unwrap_or_default().split_whitespace().collect();
    field(status, "Name") == Some(AGENT) && ids.len() > 1 && ids.last() == Some(&"1")
}

pub(super) fn sockets(_: &Facts) -> Finding {
    let unix = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut found = foreign_sockets(&unix);
    let agents = unix
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|path| path.ends_with("/agent.sock") && *path != "/run/wolfpack/agent.sock");
    found.extend(agents.map(str::to_owned));
    if found.is_empty() {
        Finding::blocked(format!(
            "{} unix sockets, all its own",
            unix.lines().count().saturating_sub(1)
        ))
    } else {
        Finding::allowed(format!("sockets that are not its own: {}", found.join(", ")))
    }
}

/// Where engines and wolves keep what belongs to sandboxes, below any mount.
const STORES: [&str; 5] = [
    "docker/volumes",
    "lib/docker/volumes",
    "var/lib/docker/volumes",
    "lib/wolfpack-wolf",
    "var/lib/wolfpack-wolf",
];

pub(super) fn volumes(_: &Facts) -> Finding {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut looked = 0;
    for place in places(&mounts) {
        for store in STORES {
            let path = place.join(store);
            if path == Path::new(DOCKER_DATA).join("volumes") && own_data(&mounts) {
                continue;
            }
            looked += 1;
            let Ok(entries) = std::fs::read_dir(&path) else { continue };
            if let Some(entry) = entries.flatten().find(|entry| entry.path().is_dir()) {
                return Finding::allowed(format!("{} can be listed", entry.path().display()));
            }
        }
    }
    Finding::blocked(format!("none of {looked} places where wolves keep them is there"))
}

/// Every mount, as `/mnt` may be the host's `/var`.
fn places(mountinfo: &str) -> Vec<PathBuf> {
    let at = |line: &str| Some(PathBuf::from(line.split(' ').nth(4)?));
    let mut all: Vec<PathBuf> = mountinfo.lines().filter_map(at).collect();
    all.extend(all.clone().iter().filter_map(|place| place.parent().map(Path::to_owned)));
    all.retain(|place| !place.starts_with("/proc") && !place.starts_with("/sys"));
    all.sort();
    all.dedup();
    all
}

/// Whether the data of its own engine is a volume of its own.
fn own_data(mountinfo: &str) -> bool {
    mountinfo.lines().any(|line| {
        let mut parts = line.split(' ').skip(3);
        let (root, at) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        at == DOCKER_DATA && (root == "/" || root.ends_with("/_data") || root.contains("/volumes/"))
    })
}

/// Connects and says nothing: who listens is known by then, and an engine of
/// the sandbox's own is not started by it.
pub(super) fn docker_socket(_: &Facts) -> Finding {
    let places = [
        DOCKER_SOCKET,
        "/run/docker.sock",
        "/run/wolfpack/docker.sock",
        "/run/containerd/containerd.sock",
        "/host/var/run/docker.sock",
        "/host/run/docker.sock",
    ];
    let mut own = None;
    let mut evidence = Vec::new();
    for place in places {
        match UnixStream::connect(place) {
            Err(error) => evidence.push(format!("{place}: {error}")),
            Ok(stream) => {
                // Zero when the peer has no number here: it is outside.
                let asked = nix::sys::socket::getsockopt(&stream, PeerCredentials);
                let peer = asked.map(|peer| peer.pid()).unwrap_or_default();
                if peer == 1 && agent_is_first() {
                    own = Some(place);
                } else {
                    return Finding::allowed(format!(
                        "{place} is served, and not by the sandbox's own agent"
                    ));
                }
            }
        }
    }
    match own {
        Some(place) => Finding::own(format!("{place} is served by the sandbox's own agent")),
        None => Finding::blocked(evidence.join("; ")),
    }
}

fn agent_is_first() -> bool {
    std::fs::read_to_string("/proc/1/comm").is_ok_and(|comm| comm.trim() == AGENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_agent_below_is_a_neighbour() {
        let status = |name: &str, ids: &str| format!("Name:\t{name}\nNSpid:\t{ids}\n");
        assert!(foreign_agent(&status(AGENT, "4711\t1")));
        assert!(foreign_agent(&status(AGENT, "4711\t12\t1")));
        assert!(!foreign_agent(&status(AGENT, "1")), "its own");
        assert!(!foreign_agent(&status(AGENT, "4711\t7")), "a helper");
        assert!(!foreign_agent(&status("sh", "4711\t1")), "a container of its own");
    }

    #[test]
    fn a_volume_of_its_own_is_told_from_the_hosts_folder() {
        let line = |root: &str| format!("9 8 254:0 {root} /var/lib/docker rw - ext4 /dev/vda rw\n");
        assert!(own_data(&line("/var/lib/docker/volumes/x/_data")));
        assert!(!own_data(&line("/var/lib/docker")));
        assert!(!own_data("9 8 254:0 /x /y rw - ext4 d rw\n"));
        let places = places("1 0 0:1 / /mnt/host rw - ext4 d rw\n2 1 0:2 / /proc rw - proc p rw\n");
        assert_eq!(places, [PathBuf::from("/"), "/mnt".into(), "/mnt/host".into()]);
    }
}
