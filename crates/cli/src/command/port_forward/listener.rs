//! Where connections of this machine are taken.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::args::forward::Local;
use crate::failure::Failure;

/// A socket that listens; dropping it ends that, and removes its file.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// A connection that was taken.
pub(super) enum Near {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// Our socket in the file system.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: one that another process put there stays.
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // There is nobody left to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Listener {
    pub(super) async fn open(local: &Local) -> Result<Self, Failure> {
        match local {
            Local::Port(host, port) => {
                let listener = TcpListener::bind((host.as_str(), *port)).await;
                let listener =
                    listener.map_err(|error| taken(&format!("{host}:{port}"), &error))?;
                let address = listener.local_addr()?;
                Ok(Self::Tcp(listener, address))
            }
            Local::Socket(path) => {
                remove_stale(path)?;
                let listener = bind_private(path)
                    .map_err(|error| taken(&path.display().to_string(), &error))?;
                let file = SocketFile { path: path.clone(), identity: identity(path) };
                Ok(Self::Unix(listener, file))
            }
        }
    }

    /// The address as others write it.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Tcp(_, address) => address.to_string(),
            Self::Unix(_, file) => file.path.display().to_string(),
        }
    }

    /// Whether other machines may connect.
    pub(super) fn is_open_to_others(&self) -> bool {
        matches!(self, Self::Tcp(_, address) if !address.ip().is_loopback())
    }

    pub(super) async fn accept(&self) -> io::Result<Near> {
        match self {
            Self::Tcp(listener, _) => {
                let (socket, from) = listener.accept().await?;
                // Small answers at once; that it cannot be is no failure.
                let _ = socket.set_nodelay(true);
                Ok(Near::Tcp(socket, from))
            }
            Self::Unix(listener, _) => Ok(Near::Unix(listener.accept().await?.0)),
        }
    }
}

fn taken(place: &str, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; give another, or 0 for a free port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are root's, give another",
        _ => "",
    };
    Failure::Local(format!("cannot listen at {place}: {error}{hint}"))
}

/// A socket that nobody listens at any more, such as after a kill, is in the
/// way of the next one.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let stale = found.file_type().is_socket()
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if !stale {
        return Err(Failure::Local(format!(
            "{} is there already; give another path",
            path.display()
        )));
    }
    fs::remove_file(path).map_err(|error| Failure::file(path, &error))
}

/// Binds it so that only its owner can connect, from the first moment on.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    bound
}

impl Near {
    /// Who it is, for errors.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Tcp(_, from) => from.to_string(),
            Self::Unix(_) => "a local program".to_owned(),
        }
    }

    /// Makes the end of it a reset and not an end of file, where it can be one.
    pub(super) fn reset(self) {
        if let Self::Tcp(socket, _) = self {
            let _ = socket.set_zero_linger();
        }
    }

    /// Both directions.
    pub(super) fn io(&mut self) -> &mut (dyn Io + '_) {
        match self {
            Self::Tcp(socket, _) => socket,
            Self::Unix(socket) => socket,
        }
    }
}

/// A byte stream of either kind.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn a_unix_socket_is_private_replaces_a_stale_one_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.sock");
        let open = || async { Listener::open(&Local::Socket(path.clone())).await };
        let first = open().await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let Err(Failure::Local(words)) = open().await else { panic!("two on one path") };
        assert!(words.contains("there already"), "{words}");
        drop(first);
        assert!(!path.exists());
        // As after a kill: the file is there and nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(open().await.unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(open().await.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let local = |port| Local::Port("127.0.0.1".into(), port);
        let first = Listener::open(&local(0)).await.unwrap();
        let Listener::Tcp(_, address) = &first else { panic!() };
        assert!(!first.is_open_to_others());
        let Err(Failure::Local(words)) = Listener::open(&local(address.port())).await else {
            panic!("two on one port")
        };
        assert!(words.contains(&address.to_string()) && words.contains("free port"), "{words}");
    }
}
