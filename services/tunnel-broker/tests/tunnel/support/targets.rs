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
        socket.write_u64(super::super::path::checksum(&all)).await?;
        socket.write_all(&super::super::path::pattern(answer)).await?;
        socket.shutdown().await
    })
    .await
}

/// Sends without an end.
pub(crate) async fn talker() -> SocketAddr {
    serve(|mut socket| async move {
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
