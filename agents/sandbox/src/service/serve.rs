//! The two ways in: the tunnel, and the socket in the directory of the boot.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use wolfpack_proto::agent::v1::container_service_server::ContainerServiceServer;
use wolfpack_proto::agent::v1::sandbox_agent_service_server::SandboxAgentServiceServer;
use wolfpack_tunnel::TunnelListener;

use super::layer::{Guard, LocalPeer};
use super::{SandboxAgent, SandboxAgentService};

/// Windows of gRPC that runs inside a tunnel, whose own are larger.
const WINDOW: u32 = 256 * 1024;
const MAX_STREAMS: u32 = 512;
const MAX_LOCAL_RESETS: usize = 1024;
const MAX_HEADERS: u32 = 16 * 1024;
/// The largest answer is a screenshot.
const MAX_ANSWER: usize = 33 << 20;
/// An accept that failed for want of descriptors fails again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the socket; only `owner` and the superuser can connect. One that an
/// earlier agent left is replaced.
///
/// # Errors
/// When it cannot be made there.
pub fn bind_socket(path: &Path, owner: u32) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Between here and chmod the umask of the agent (077) keeps it closed.
    let listener = UnixListener::bind(path)?;
    rustix::fs::chmod(path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    if rustix::process::geteuid().as_raw() != owner {
        rustix::fs::chown(path, Some(rustix::fs::Uid::from_raw(owner)), None)?;
    }
    Ok(listener)
}

/// Serves the socket until `stop`, then until its calls have ended.
///
/// # Errors
/// When the server fails.
pub async fn serve_socket(
    agent: SandboxAgent,
    listener: UnixListener,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = UnixListenerStream::new(listener).then(|accepted| async {
        if accepted.is_err() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted.map(|stream| Local { stream })
    });
    serve(agent, incoming, stop).await
}

/// Serves the tunnel's target until `stop`, then until its calls have ended.
///
/// # Errors
/// When the server fails.
pub async fn serve_tunnel(
    agent: SandboxAgent,
    listener: TunnelListener,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    serve(agent, listener, stop).await
}

async fn serve<I, S>(
    agent: SandboxAgent,
    incoming: I,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    SandboxAgent: SandboxAgentService,
    I: Stream<Item = io::Result<S>>,
    S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let containers = ContainerServiceServer::new(agent.clone());
    let service = SandboxAgentServiceServer::new(agent).max_encoding_message_size(MAX_ANSWER);
    Server::builder()
        .layer(Guard)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
        .http2_max_header_list_size(MAX_HEADERS)
        .add_service(service)
        .add_service(containers)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

/// A connection to the socket.
struct Local {
    stream: UnixStream,
}

impl Connected for Local {
    type ConnectInfo = LocalPeer;

    fn connect_info(&self) -> LocalPeer {
        LocalPeer
    }
}

impl AsyncRead for Local {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
