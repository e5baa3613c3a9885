//! A TCP relay that stops passing bytes, one way or both, and goes on.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    to_server: watch::Sender<bool>,
    to_client: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to_server, up) = watch::channel(true);
        let (to_client, down) = watch::channel(true);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (up, down) = (up.clone(), down.clone());
                open.spawn(async move {
                    let Ok(server) = TcpStream::connect(to).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (cr, cw) = client.into_split();
                    let (sr, sw) = server.into_split();
                    tokio::join!(pump(cr, sw, up), pump(sr, cw, down));
                });
            }
        });
        Self { address, to_server, to_client, task }
    }

    /// Passes bytes to the server, and to the client, or holds them; what is
    /// open stays open.
    pub(crate) fn pass(&self, to_server: bool, to_client: bool) {
        self.to_server.send_replace(to_server);
        self.to_client.send_replace(to_client);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut passing: watch::Receiver<bool>,
) {
    let (sender, mut queue) = mpsc::channel::<Vec<u8>>(4096);
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length) = from.read(&mut buffer).await {
            if length == 0 || sender.send(buffer[..length].to_vec()).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some(bytes) = queue.recv().await {
            if passing.wait_for(|passing| *passing).await.is_err()
                || to.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
