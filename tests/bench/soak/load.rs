//! Work of all kinds, steady and well below what the machine can do, so that
//! what grows is not a queue.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use secrecy::SecretString;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use wolfpack_tunnel::Dialer;
use wolfpack_types::{Endpoint, SandboxId, Target};

use crate::parts::agent;
use crate::parts::broker::Broker;

/// How long one piece of work may take.
const PATIENCE: Duration = Duration::from_secs(30);
const TRANSFER: usize = 16 * 1024 * 1024;
const SLOW_FOR: Duration = Duration::from_secs(10);

/// Ports of the broker by the names of what they lead to.
pub(super) type Fronts = BTreeMap<&'static str, SocketAddr>;

/// Pieces of work.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Counts {
    pub(super) done: u64,
    pub(super) failed: u64,
}

/// What runs; dropping it ends the work where it is.
pub(super) struct Load {
    counters: BTreeMap<&'static str, Arc<Counter>>,
    workers: JoinSet<()>,
}

#[derive(Default)]
struct Counter {
    done: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    pub(super) fn start(
        fronts: &Fronts,
        broker: &Broker,
        sandbox: &SandboxId,
    ) -> anyhow::Result<Self> {
        let mut load = Self { counters: BTreeMap::new(), workers: JoinSet::new() };
        let ms = Duration::from_millis;
        let (echo, http) = (fronts["echo"], fronts["http"]);
        let (source, sink) = (fronts["source"], fronts["sink"]);
        load.workers("connections", 4, ms(10), move |_| short(echo));
        load.workers("requests", 4, ms(20), move |_| requests(http));
        load.workers("slow_readers", 8, ms(10), move |_| slow(source));
        load.workers("downloads", 1, ms(500), move |_| download(source));
        load.workers("uploads", 1, ms(500), move |_| upload(sink));
        let dialer = Dialer::new(agent::channel(broker.internal, None)?)
            .with_bearer(SecretString::from(broker.known.api_key.clone()));
        let (endpoint, target) = (Endpoint::Sandbox(sandbox.clone()), Target::parse("tcp:7")?);
        load.workers("dials_cancelled", 2, ms(20), move |count| {
            given_up(dialer.clone(), endpoint.clone(), target.clone(), count)
        });
        Ok(load)
    }

    /// Workers that do a piece of work again and again, with a pause after each.
    fn workers<F, Fut>(&mut self, name: &'static str, count: usize, pause: Duration, piece: F)
    where
        F: Fn(u64) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send,
    {
        let counter: Arc<Counter> = self.counters.entry(name).or_default().clone();
        for _ in 0..count {
            let (piece, counter) = (piece.clone(), counter.clone());
            self.workers.spawn(async move {
                for at in 0.. {
                    let ended = tokio::time::timeout(PATIENCE, piece(at)).await;
                    let good = matches!(ended, Ok(Ok(())));
                    let count = if good { &counter.done } else { &counter.failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, Counts> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.counters
            .iter()
            .map(|(name, one)| (*name, Counts { done: read(&one.done), failed: read(&one.failed) }))
            .collect()
    }

    pub(super) async fn stop(mut self) {
        self.workers.shutdown().await;
    }
}

/// Waits until a connection reaches its target.
pub(super) async fn attached(fronts: &Fronts) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let tried = tokio::time::timeout(PATIENCE, short(fronts["echo"])).await;
        match tried.context("no answer")? {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A connection, a byte there and back, and both ends.
async fn short(to: SocketAddr) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(to).await?;
    socket.write_all(b"x").await?;
    socket.read_exact(&mut [0]).await?;
    socket.shutdown().await?;
    anyhow::ensure!(socket.read(&mut [0]).await? == 0, "more came back");
    Ok(())
}

/// A hundred requests over one connection, which is then left as it is.
async fn requests(to: SocketAddr) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(to).await?;
    let mut buffer = [0; 4096];
    for _ in 0..100 {
        socket.write_all(b"GET / HTTP/1.1\r\nhost: soak\r\n\r\n").await?;
        anyhow::ensure!(socket.read(&mut buffer).await? > 0, "no answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A download whose reader hardly reads, and goes in the middle.
async fn slow(from: SocketAddr) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(from).await?;
    let (begun, mut buffer) = (Instant::now(), [0; 4096]);
    while begun.elapsed() < SLOW_FOR {
        anyhow::ensure!(socket.read(&mut buffer).await? > 0, "the source ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn download(from: SocketAddr) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(from).await?;
    let mut buffer = vec![0; 64 * 1024];
    let mut left = TRANSFER;
    while left > 0 {
        let read = socket.read(&mut buffer).await?;
        anyhow::ensure!(read > 0, "the source ended");
        left = left.saturating_sub(read);
    }
    Ok(())
}

async fn upload(to: SocketAddr) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(to).await?;
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..TRANSFER / chunk.len() {
        socket.write_all(&chunk).await?;
    }
    socket.shutdown().await?;
    anyhow::ensure!(socket.read(&mut [0]).await? == 0, "the sink answers");
    Ok(())
}

/// A dial that is taken back after up to 6 ms, before or after its answer.
async fn given_up(
    dialer: Dialer,
    endpoint: Endpoint,
    target: Target,
    count: u64,
) -> anyhow::Result<()> {
    let patience = Duration::from_micros(count % 97 * 60);
    let dial = dialer.dial(&endpoint, &target, PATIENCE);
    match tokio::time::timeout(patience, dial).await {
        Ok(Err(fault)) => anyhow::bail!("{fault}"),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
