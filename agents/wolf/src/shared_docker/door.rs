//! The socket's file. Blocking: call from a blocking thread.
//!
//! The sandbox may write to the directory, so the socket is made ready in a
//! folder that only we write and then put there by one rename, which follows
//! no link and replaces whatever the sandbox has put in its place.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use wolfpack_types::SandboxId;
use wolfpack_types::sandbox_boot::SHARED_DOCKER_SOCKET;

use crate::sandbox::directory;

/// Any user of the sandbox may use it, as its root could give it to them; the
/// folders above keep everybody else of the host out.
const MODE: u32 = 0o666;

/// Listens on the socket in the sandbox's directory under `root`.
pub(super) fn bind(
    root: &Path,
    sandbox: &SandboxId,
    owner: Option<(u32, u32)>,
) -> io::Result<UnixListener> {
    let folder = tempfile::Builder::new().prefix(".docker-").tempdir_in(root)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let ours = rustix::fs::openat(CWD, folder.path(), flags, Mode::empty())?;
    // By its descriptor: a path to a socket has a limit that ours may exceed.
    let at = Path::new("/proc/self/fd").join(ours.as_raw_fd().to_string());
    let listener = UnixListener::bind(at.join(SHARED_DOCKER_SOCKET))?;
    let made = folder.path().join(SHARED_DOCKER_SOCKET);
    fs::set_permissions(&made, Permissions::from_mode(MODE))?;
    if let Some((uid, gid)) = owner {
        chown(&made, Some(uid), Some(gid))?;
    }
    let theirs = rustix::fs::openat(CWD, directory::path(root, sandbox), flags, Mode::empty())?;
    rustix::fs::renameat(ours.as_fd(), SHARED_DOCKER_SOCKET, theirs.as_fd(), SHARED_DOCKER_SOCKET)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, symlink};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn whatever_lies_there_is_replaced_and_nothing_else_is_touched() {
        let root = tempfile::tempdir().unwrap();
        let id = SandboxId::parse("s1").unwrap();
        let dir = root.path().join("s1");
        fs::create_dir(&dir).unwrap();
        let outside = root.path().join("outside");
        fs::write(&outside, "x").unwrap();
        fs::set_permissions(&outside, Permissions::from_mode(0o600)).unwrap();
        let socket = dir.join(SHARED_DOCKER_SOCKET);
        symlink(&outside, &socket).unwrap();
        for _ in 0..2 {
            let _listener = bind(root.path(), &id, None).unwrap();
            let found = fs::symlink_metadata(&socket).unwrap();
            assert!(found.file_type().is_socket());
            assert_eq!(found.permissions().mode() & 0o777, MODE);
            UnixStream::connect(&socket).unwrap();
        }
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(directory::list(root.path()).unwrap().len(), 2, "the staging folder is gone");
        fs::remove_file(&socket).unwrap();
        fs::remove_dir(&dir).unwrap();
        symlink(outside.parent().unwrap(), &dir).unwrap();
        assert!(bind(root.path(), &id, None).is_err(), "the directory may not be a link");
    }
}
