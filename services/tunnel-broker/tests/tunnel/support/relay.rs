//! A TCP relay that delays every byte, or stops passing any.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    passing: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn start(to: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passing, watched) = watch::channel(true);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let watched = watched.clone();
                open.spawn(async move {
                    let Ok(server) = TcpStream::connect(to).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (cr, cw) = client.into_split();
                    let (sr, sw) = server.into_split();
                    tokio::join!(
                        pump(cr, sw, delay, watched.clone()),
                        pump(sr, cw, delay, watched)
                    );
                });
            }
        });
        Self { address, passing, task }
    }

    /// Stops passing bytes; what is open stays open.
    pub(crate) fn blackhole(&self) {
        self.passing.send_replace(false);
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
    delay: Duration,
    passing: watch::Receiver<bool>,
) {
    let (sender, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length) = from.read(&mut buffer).await {
            if length == 0
                || sender.send((Instant::now() + delay, buffer[..length].to_vec())).await.is_err()
            {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = queue.recv().await {
            tokio::time::sleep_until(due).await;
            if !*passing.borrow() {
                std::future::pending::<()>().await;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
