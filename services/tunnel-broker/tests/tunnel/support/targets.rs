//! Sockets behind an agent.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wolfpack_tunnel::{TargetDialer, TargetStream, TunnelPeer};
use wolfpack_types::{Fault, Reason, Target};

/// Dials one address, whatever the target is called.
pub(crate) struct Tcp(pub(crate) SocketAddr);

#[async_trait]
impl TargetDialer for Tcp {
    async fn dial(&self, _: &Target, _: &TunnelPeer) -> Result<TargetStream, Fault> {
        let socket = TcpStream::connect(self.0).await.map_err(|error| {
            Fault::new(Reason::TargetUnreachable, "nothing listens there").caused_by(error)
        })?;
        let _ = socket.set_nodelay(true);
        let (reader, writer) = socket.into_split();
        Ok(TargetStream::new(reader, writer))
    }
}

async fn serve<F, Fut>(each: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = socket.set_nodelay(true);
            tokio::spawn(each(socket));
        }
    });
    address
}

/// Gives back what it gets, and closes after the other side did.
pub(crate) async fn echo() -> SocketAddr {
    serve(|mut socket| async move {
        let (mut reader, mut writer) = socket.split();
        tokio::io::copy(&mut reader, &mut writer).await?;
        writer.shutdown().await
    })
    .await
}

/// Reads to the end, answers with the checksum and length of what it read and
/// then `answer` bytes, and closes.
pub(crate) async fn sink_then_send(answer: usize) -> SocketAddr {
    serve(move |mut socket| async move {
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await?;
        socket.write_u64(all.len() as u64).await?;
        socket.write_u64(checksum(&all)).await?;
        socket.write_all(&pattern(answer)).await?;
        socket.shutdown().await
    })
    .await
}

/// Sends that many bytes and closes.
pub(crate) async fn source(length: usize) -> SocketAddr {
    serve(move |mut socket| async move {
        let chunk = vec![7; 64 * 1024];
        let mut left = length;
        while left > 0 {
            let now = left.min(chunk.len());
            socket.write_all(&chunk[..now]).await?;
            left -= now;
        }
        socket.shutdown().await
    })
    .await
}

/// Sends without an end. What the kernel takes ahead is bounded: of a thousand who
/// are not read it would be all that it has for TCP.
pub(crate) async fn talker() -> SocketAddr {
    serve(|mut socket| async move {
        socket2::SockRef::from(&socket).set_send_buffer_size(32 * 1024)?;
        let chunk = vec![7; 64 * 1024];
        loop {
            socket.write_all(&chunk).await?;
        }
    })
    .await
}

/// Accepts and never says or reads anything.
pub(crate) async fn silent() -> SocketAddr {
    serve(|socket| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(socket);
        Ok(())
    })
    .await
}

/// Bytes that look like nothing else, always the same.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Tells one content from another.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
