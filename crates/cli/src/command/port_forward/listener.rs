//! Where connections of this machine are taken.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use crate::args::forward::Local;
use crate::failure::Failure;

/// A socket that listens; dropping it ends that, and removes its file.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// A connection that was taken. Dropped before it was finished it is a reset
/// and not an end of file, where it can be one.
pub(super) struct Near {
    socket: Socket,
    finished: bool,
}

enum Socket {
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
                wolfpack_rpc::server::tune_raw(&socket);
                Ok(Near::new(Socket::Tcp(socket, from)))
            }
            Self::Unix(listener, _) => Ok(Near::new(Socket::Unix(listener.accept().await?.0))),
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
    fn new(socket: Socket) -> Self {
        Self { socket, finished: false }
    }

    /// Who it is, for errors.
    pub(super) fn name(&self) -> String {
        match &self.socket {
            Socket::Tcp(_, from) => from.to_string(),
            Socket::Unix(_) => "a local program".to_owned(),
        }
    }

    /// What is there within a moment, at most so many bytes: nothing when
    /// nothing came, or the program has finished.
    pub(super) async fn first_bytes(&self, most: usize, moment: Duration) -> io::Result<Bytes> {
        let readable = async {
            match &self.socket {
                Socket::Tcp(socket, _) => socket.readable().await,
                Socket::Unix(socket) => socket.readable().await,
            }
        };
        match timeout(moment, readable).await {
            Err(_nothing_yet) => return Ok(Bytes::new()),
            Ok(readable) => readable?,
        }
        let mut bytes = BytesMut::with_capacity(most);
        let read = match &self.socket {
            Socket::Tcp(socket, _) => socket.try_read_buf(&mut (&mut bytes).limit(most)),
            Socket::Unix(socket) => socket.try_read_buf(&mut (&mut bytes).limit(most)),
        };
        match read {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(bytes.freeze()),
        }
    }

    /// Both directions came to their end.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }

    /// Both directions.
    pub(super) fn io(&mut self) -> &mut (dyn Io + '_) {
        match &mut self.socket {
            Socket::Tcp(socket, _) => socket,
            Socket::Unix(socket) => socket,
        }
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        if let (false, Socket::Tcp(socket, _)) = (self.finished, &self.socket) {
            let _ = socket.set_zero_linger();
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
    async fn first_bytes_are_taken_as_they_are_and_what_breaks_off_is_a_reset() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = Listener::open(&Local::Port("127.0.0.1".into(), 0)).await.unwrap();
        let place = listener.place();
        let pair = async || {
            let far = TcpStream::connect(&place).await.unwrap();
            (listener.accept().await.unwrap(), far)
        };
        let long = Duration::from_secs(20);
        let (mut near, mut far) = pair().await;
        far.write_all(&[7; 100]).await.unwrap();
        let first = near.first_bytes(64, long).await.unwrap();
        assert!((1..=64).contains(&first.len()), "{}", first.len());
        let mut rest = vec![0; 100 - first.len()];
        near.io().read_exact(&mut rest).await.unwrap();
        // Nothing comes, or it has finished: none, and no error.
        assert!(near.first_bytes(64, Duration::from_millis(1)).await.unwrap().is_empty());
        far.shutdown().await.unwrap();
        assert!(near.first_bytes(64, long).await.unwrap().is_empty());
        near.finish();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "a clean end");

        let (near, mut far) = pair().await;
        drop(near);
        let error = far.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
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
