//! The render nodes that this container was given, opened to the users of its
//! sandboxes. Their group on the machine is nobody inside a user namespace, so
//! the mode must let everybody in; who gets a node at all is decided by each
//! sandbox's device rules.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::mounts::Mount;

/// The name that start-up knows it by.
pub const STEP: &str = "devices";
const OPEN: u32 = 0o666;

/// What came of the nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Open now, or before.
    pub open: Vec<PathBuf>,
    /// Closed, and the machine's own by a bind mount: another mode would be the
    /// machine's too, so they stay as they are.
    pub foreign: Vec<PathBuf>,
}

/// Opens the nodes below `dev` through which GPUs are used.
///
/// # Errors
/// When a mode cannot be set.
pub fn open(dev: &Path, mounts: &[Mount]) -> io::Result<Opened> {
    let mut opened = Opened::default();
    for node in nodes(dev) {
        let is_open = fs::metadata(&node)?.permissions().mode() & OPEN == OPEN;
        if !is_open && !is_ours(&node, dev, mounts) {
            opened.foreign.push(node);
            continue;
        }
        if !is_open {
            fs::set_permissions(&node, Permissions::from_mode(OPEN))?;
        }
        opened.open.push(node);
    }
    Ok(opened)
}

fn nodes(dev: &Path) -> Vec<PathBuf> {
    let rendering = |name: &str| name.starts_with("renderD") || name.starts_with("card");
    let entries = fs::read_dir(dev.join("dri")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(rendering))
        .map(|entry| entry.path())
        .chain([dev.join("kfd")])
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_char_device()))
        .collect();
    found.sort();
    found
}

/// Whether a node is on a file system that only this container has: an engine
/// makes the nodes it gives on the container's own tmpfs at `dev`. A tmpfs
/// below may be the machine's, bind mounted.
fn is_ours(node: &Path, dev: &Path, mounts: &[Mount]) -> bool {
    let covering = mounts.iter().filter(|mount| node.starts_with(&mount.target));
    // Of those at the same place the newest covers the others.
    let nearest = covering.max_by_key(|mount| mount.target.components().count());
    nearest.is_some_and(|mount| {
        mount.fs_type == "tmpfs" && mount.target == dev && mount.root == Path::new("/")
    })
}

#[cfg(test)]
mod tests {
    use super::super::mounts::parse;
    use super::*;

    const MOUNTS: &str = "\
        100 99 0:50 / / rw - overlay overlay rw\n\
        101 100 0:51 / /dev rw - tmpfs tmpfs rw\n\
        102 101 0:5 /dri /dev/dri rw - devtmpfs udev rw\n";

    #[test]
    fn only_nodes_of_its_own_are_opened() {
        let mounts = parse(MOUNTS);
        let ours = |node: &str, mounts: &[Mount]| is_ours(node.as_ref(), "/dev".as_ref(), mounts);
        assert!(ours("/dev/kfd", &mounts));
        assert!(!ours("/dev/dri/renderD128", &mounts));
        let own = parse(MOUNTS.rsplit_once("102").map_or("", |(before, _)| before));
        assert!(ours("/dev/dri/renderD128", &own));
        assert!(!ours("/dev/dri/renderD128", &[]));
        // The machine is a container itself.
        let nested = parse(&MOUNTS.replace("devtmpfs udev", "tmpfs tmpfs"));
        assert!(!ours("/dev/dri/renderD128", &nested));
    }

    /// Needs the right to make nodes; a test that lacks it says so.
    #[test]
    fn a_closed_node_is_opened_and_a_file_is_not() {
        let dev = tempfile::tempdir().unwrap();
        fs::create_dir(dev.path().join("dri")).unwrap();
        fs::write(dev.path().join("dri/card0"), "").unwrap();
        let node = dev.path().join("dri/renderD128");
        // The null device, as a stand-in.
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            &node,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::from_raw_mode(0o660),
            rustix::fs::makedev(1, 3),
        );
        if made.is_err() {
            eprintln!("NOT RUN: it takes the right to make device nodes");
            return;
        }
        let mounts = [parse(&format!("1 0 0:1 / {} rw - tmpfs tmpfs rw", dev.path().display()))];
        let opened = open(dev.path(), &mounts.concat()).unwrap();
        assert_eq!(opened, Opened { open: vec![node.clone()], foreign: Vec::new() });
        assert_eq!(fs::metadata(&node).unwrap().permissions().mode() & 0o777, 0o666);
        let closed = fs::metadata(dev.path().join("dri/card0")).unwrap().permissions().mode();
        assert_ne!(closed & 0o777, 0o666);
    }
}
