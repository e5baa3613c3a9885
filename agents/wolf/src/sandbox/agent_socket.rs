//! The way to a sandbox's agent through its unix socket.
//!
//! The socket lies in a directory that the sandbox can write: it may put a link
//! there that leads to a socket of the host. So the very inode is opened
//! without following links, found to be a socket, and connected to by its
//! descriptor; no path is looked up twice. That way also knows no limit on the
//! length of paths.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use tokio::net::UnixStream;
use wolfpack_types::SandboxId;
use wolfpack_types::sandbox_boot::AGENT_SOCKET;

/// Connects to the agent of a sandbox whose directory is under `root`.
///
/// # Errors
/// `NotFound` when it has no socket yet, `InvalidInput` when what is there is
/// no socket, and what connecting says. Cancel safe; bound it by a deadline.
pub async fn connect(root: &Path, sandbox: &SandboxId) -> io::Result<UnixStream> {
    let socket = open(root, sandbox)?;
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}

fn open(root: &Path, sandbox: &SandboxId) -> io::Result<OwnedFd> {
    let directory = rustix::fs::open(
        super::directory::path(root, sandbox),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let socket = rustix::fs::openat(
        directory.as_fd(),
        AGENT_SOCKET,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(socket.as_fd())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
        Ok(socket)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "the sandbox has put something else there"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_under_a_long_path_is_reached() {
        let root = tempfile::tempdir().unwrap();
        let short = root.path().join("s");
        let listener = UnixListener::bind(&short).unwrap();
        let long = root.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(long.join("s1")).unwrap();
        std::fs::rename(&short, long.join("s1").join(AGENT_SOCKET)).unwrap();
        let id = SandboxId::parse("s1").unwrap();
        let (client, accepted) = tokio::join!(connect(&long, &id), listener.accept());
        client.unwrap().write_all(b"hello").await.unwrap();
        let mut read = String::new();
        accepted.unwrap().0.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello");
    }

    #[tokio::test]
    async fn a_link_to_a_socket_of_the_host_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let host = root.path().join("host.sock");
        let _listener = UnixListener::bind(&host).unwrap();
        let id = SandboxId::parse("s1").unwrap();
        std::fs::create_dir(root.path().join("s1")).unwrap();
        assert_eq!(connect(root.path(), &id).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        let socket = root.path().join("s1").join(AGENT_SOCKET);
        symlink(&host, &socket).unwrap();
        assert_eq!(
            connect(root.path(), &id).await.unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        std::fs::remove_file(&socket).unwrap();
        std::fs::remove_dir(root.path().join("s1")).unwrap();
        let elsewhere = root.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::rename(&host, elsewhere.join(AGENT_SOCKET)).unwrap();
        symlink(&elsewhere, root.path().join("s1")).unwrap();
        assert!(connect(root.path(), &id).await.is_err(), "the directory may not be a link either");
    }
}
