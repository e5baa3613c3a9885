//! What the tunnels lead to: plain sockets, so that they cost as little as may be.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use futures::Stream;
use futures::future::try_join_all;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::Connected;

/// 200 bytes of body.
const BODY: [u8; 200] = [b'x'; 200];
const CHUNK: usize = 32 * 1024;
const KIB: u32 = 1024;

/// Serves targets by their names until the process ends:
///
/// * `http`: a web server with one short answer;
/// * `echo`: what comes goes back, a byte at a time;
/// * `source`: bytes for as long as they are taken;
/// * `sink`: takes bytes to their end, then ends, too;
/// * `grpc`: the health service of gRPC.
pub(super) async fn run(targets: BTreeMap<String, SocketAddr>) -> anyhow::Result<()> {
    let all = targets.into_iter().map(|(name, at)| serve(name, at));
    try_join_all(all).await.map(drop)
}

async fn serve(name: String, at: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(at).await.with_context(|| format!("{name} at {at}"))?;
    match name.as_str() {
        "http" => accept(listener, answer).await?,
        "echo" => accept(listener, one_byte).await?,
        "source" => accept(listener, source).await?,
        "sink" => accept(listener, sink).await?,
        "grpc" => grpc(TcpListenerStream::new(listener)).await?,
        _ => anyhow::bail!("there is no target {name:?}"),
    }
    Ok(())
}

/// Serves health with the windows that gRPC inside a tunnel has.
pub(super) async fn grpc<S, I>(connections: S) -> Result<(), tonic::transport::Error>
where
    S: Stream<Item = io::Result<I>>,
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (_, health) = tonic_health::server::health_reporter();
    tonic::transport::Server::builder()
        .initial_stream_window_size(256 * KIB)
        .initial_connection_window_size(4 * 1024 * KIB)
        .max_frame_size(32 * KIB)
        .add_service(health)
        .serve_with_incoming(connections)
        .await
}

async fn accept<F, Fut>(listener: TcpListener, each: F) -> io::Result<()>
where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(each(socket));
    }
}

/// Answers each request, which has no body, in the order they come.
async fn answer(mut socket: TcpStream) -> io::Result<()> {
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BODY.len()).into_bytes();
    response.extend_from_slice(&BODY);
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        if socket.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let mut out = Vec::new();
        let mut begin = 0;
        while let Some(length) = end_of_head(&buffer[begin..]) {
            begin += length;
            out.extend_from_slice(&response);
        }
        buffer.drain(..begin);
        if !out.is_empty() {
            socket.write_all(&out).await?;
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

async fn one_byte(mut socket: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while socket.read(&mut byte).await? > 0 {
        socket.write_all(&byte).await?;
    }
    Ok(())
}

async fn source(mut socket: TcpStream) -> io::Result<()> {
    let chunk = vec![b'x'; CHUNK];
    loop {
        socket.write_all(&chunk).await?;
    }
}

async fn sink(mut socket: TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while socket.read(&mut chunk).await? > 0 {}
    socket.shutdown().await
}
