//! Control groups: what must be done so that an engine can make its own, from
//! the text of a mountinfo; and on v2 the handing down of the controllers.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mounts::Mount;

/// Where control groups are mounted.
pub const TOP: &str = "/sys/fs/cgroup";
/// The group that this container's own processes are moved to. A group that
/// hands controllers down must hold no processes itself.
const OWN: &str = "init";
/// A fork may put a new process where its parent was; so often is looked again.
const SWEEPS: usize = 20;

/// What must be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "version")]
pub enum Plan {
    /// One tree for each controller: make these writable.
    V1 {
        /// Mounts that are read-only now.
        remount: Vec<PathBuf>,
    },
    /// One tree: make it writable, then hand its controllers down.
    V2 {
        /// Whether what is mounted is not this namespace's own tree, so that
        /// one of its own must be mounted over it.
        mount: bool,
        /// Whether it is read-only now.
        remount: bool,
    },
}

/// What must be done, as seen from inside a cgroup namespace of its own.
///
/// # Errors
/// When no control groups are mounted.
pub fn plan(mounts: &[Mount]) -> Result<Plan, String> {
    let top = Path::new(TOP);
    // The newest on the top is the one that is seen.
    if let Some(tree) = mounts.iter().rfind(|mount| mount.target == top)
        && tree.fs_type == "cgroup2"
    {
        let mount = tree.root != Path::new("/");
        return Ok(Plan::V2 { mount, remount: tree.read_only && !mount });
    }
    let trees = || {
        mounts.iter().filter(|mount| {
            mount.target.parent() == Some(top)
                && matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2")
        })
    };
    if trees().next().is_none() {
        return Err(format!("no control groups are mounted below {TOP}"));
    }
    let remount = trees().filter(|tree| tree.read_only).map(|tree| tree.target.clone()).collect();
    Ok(Plan::V1 { remount })
}

/// Moves every process of a v2 tree's top into a group below it and enables
/// all its controllers for the groups that an engine will make. Answers those
/// that were enabled; it may be done again.
///
/// # Errors
/// When a process cannot be moved, or nothing can be enabled though there is
/// something.
pub fn hand_down(top: &Path) -> io::Result<Vec<String>> {
    let own = top.join(OWN);
    match std::fs::create_dir(&own) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    for _ in 0..SWEEPS {
        let text = std::fs::read_to_string(top.join("cgroup.procs"))?;
        // Those of other pid namespaces read as 0 and are not ours to move.
        let mut here = text.split_whitespace().filter(|pid| *pid != "0").peekable();
        if here.peek().is_none() {
            break;
        }
        for pid in here {
            match std::fs::write(own.join("cgroup.procs"), pid) {
                // It ended meanwhile.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                other => other?,
            }
        }
    }
    let there = std::fs::read_to_string(top.join("cgroup.controllers"))?;
    let mut enabled = Vec::new();
    let mut refused = None;
    for controller in there.split_whitespace() {
        // One at a time: the kernel takes all or none of a line.
        match std::fs::write(top.join("cgroup.subtree_control"), format!("+{controller}")) {
            Ok(()) => enabled.push(controller.to_owned()),
            Err(error) => {
                tracing::warn!(controller, %error, "a cgroup controller is not handed down");
                refused = Some(error);
            }
        }
    }
    match refused {
        Some(error) if enabled.is_empty() => Err(error),
        _ => Ok(enabled),
    }
}

#[cfg(test)]
mod tests {
    use super::super::mounts::parse;
    use super::*;

    fn planned(mountinfo: &str) -> Result<Plan, String> {
        plan(&parse(mountinfo))
    }

    #[test]
    fn v1_trees_that_are_read_only_are_remounted() {
        let text = "\
1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw
2 1 0:2 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
3 1 0:3 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
4 1 0:4 / /sys/fs/cgroup/systemd ro - cgroup cgroup rw,name=systemd
5 1 0:5 / /sys/fs/cgroup/unified ro - cgroup2 cgroup rw
6 2 0:6 / /sys/fs/cgroup/memory/deep ro - cgroup cgroup rw,memory
";
        let remount = ["memory", "systemd", "unified"].map(|name| Path::new(TOP).join(name));
        assert_eq!(planned(text), Ok(Plan::V1 { remount: remount.to_vec() }));
    }

    #[test]
    fn a_v2_tree_is_remounted_or_mounted_anew() {
        let of = |root: &str, options: &str| {
            planned(&format!("1 0 0:1 {root} /sys/fs/cgroup {options} - cgroup2 cgroup rw\n"))
        };
        assert_eq!(of("/", "ro"), Ok(Plan::V2 { mount: false, remount: true }));
        assert_eq!(of("/", "rw"), Ok(Plan::V2 { mount: false, remount: false }));
        // With the host's cgroup namespace Docker shows the host's tree.
        assert_eq!(of("/../..", "ro"), Ok(Plan::V2 { mount: true, remount: false }));
    }

    #[test]
    fn without_control_groups_it_says_so() {
        assert!(planned("1 0 0:1 / / rw - overlay overlay rw\n").is_err());
        assert!(planned("1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n").is_err());
    }

    #[test]
    fn processes_move_before_controllers_are_enabled() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        std::fs::create_dir(top.join(OWN)).unwrap();
        // The kernel empties this file as they go; files on a disk do not.
        std::fs::write(top.join("cgroup.procs"), "1\n0\n").unwrap();
        std::fs::write(top.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        assert_eq!(hand_down(top).unwrap(), ["cpu", "memory", "pids"]);
        assert_eq!(std::fs::read_to_string(top.join("init/cgroup.procs")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(top.join("cgroup.subtree_control")).unwrap(), "+pids");
        // Again, as after a restart.
        hand_down(top).unwrap();
    }

    #[test]
    fn a_tree_that_takes_nothing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu\n").unwrap();
        std::fs::create_dir(dir.path().join("cgroup.subtree_control")).unwrap();
        assert!(hand_down(dir.path()).is_err());
        std::fs::write(dir.path().join("cgroup.controllers"), "").unwrap();
        assert_eq!(hand_down(dir.path()).unwrap(), Vec::<String>::new());
    }
}
