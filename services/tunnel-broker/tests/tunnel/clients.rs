//! Clients of a port of the broker's who leave while nobody looks at their socket:
//! their target takes nothing, and every window on the way is full.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wolfpack_tunnel::AgentTunnel;
use wolfpack_tunnel::splice::Direction;

use crate::exposures::exposed_by_ours;
use crate::support::{Fleet, SOON, eventually};

/// How long a write stands still before its way counts as full.
const FULL: Duration = Duration::from_millis(400);

/// A fleet with a port that leads to a listener of the test's own.
struct Port {
    fleet: Fleet,
    agent: AgentTunnel,
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    async fn new() -> Self {
        let fleet = Fleet::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, agent) = exposed_by_ours(&fleet, listener.local_addr().unwrap()).await;
        Self { fleet, agent, listener, address }
    }

    /// A client, and where it came out.
    async fn connected(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.address).await.unwrap();
        let (reached, _) = self.listener.accept().await.unwrap();
        (client, reached)
    }

    async fn nothing_is_left(&self) {
        self.fleet.counts([Some(1), None, Some(0), Some(0)]).await;
        let left = || format!("{} at the agent", self.agent.connections());
        eventually(|| self.agent.connections() == 0, left).await;
    }
}

/// Writes until nothing more is taken; how much was.
async fn fill(client: &mut TcpStream) -> usize {
    let (chunk, mut taken) = (vec![1; 64 * 1024], 0);
    while let Ok(written) = tokio::time::timeout(FULL, client.write(&chunk)).await {
        taken += written.unwrap();
    }
    taken
}

fn leave_in_the_middle(client: TcpStream) {
    client.set_zero_linger().unwrap();
    drop(client);
}

/// Reads to the end; how much there was.
async fn read_all(reached: &mut TcpStream) -> Result<usize, ErrorKind> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(SOON, reached.read_to_end(&mut all)).await.expect("it ends");
    read.map_err(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resets_is_gone_though_its_target_reads_nothing() {
    let port = Port::new().await;
    let (mut client, mut reached) = port.connected().await;
    fill(&mut client).await;
    port.fleet.counts([Some(1), None, Some(1), None]).await;
    leave_in_the_middle(client);
    port.nothing_is_left().await;
    assert_eq!(read_all(&mut reached).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_only_finishes_has_not_left() {
    let port = Port::new().await;
    let (mut client, mut reached) = port.connected().await;
    let sent = fill(&mut client).await;
    client.shutdown().await.unwrap();
    tokio::time::sleep(FULL).await;
    port.fleet.counts([Some(1), None, Some(1), None]).await;
    assert_eq!(read_all(&mut reached).await, Ok(sent));
    reached.write_all(b"all of it").await.unwrap();
    drop(reached);
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, client.read_to_end(&mut answer)).await.expect("ends").unwrap();
    assert_eq!(answer, b"all of it");
    port.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_had_sent_to_its_end_arrives_though_it_left() {
    let port = Port::new().await;
    let (mut client, mut reached) = port.connected().await;
    let sent = 300_000;
    client.write_all(&vec![1; sent]).await.unwrap();
    client.shutdown().await.unwrap();
    let totals = &port.fleet.running.broker.totals;
    let passed = || totals.bytes(Direction::Up) >= sent as u64;
    eventually(passed, || "it is not on its way".into()).await;
    leave_in_the_middle(client);
    tokio::time::sleep(FULL).await;
    assert_eq!(read_all(&mut reached).await, Ok(sent));
    drop(reached);
    port.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pauses_for_longer_than_a_dead_path_may_take_gets_all() {
    let port = Port::new().await;
    let socket = TcpSocket::new_v4().unwrap();
    // One that does not grow, or the kernel takes a byte now and then.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(port.address).await.unwrap();
    let (mut reached, _) = port.listener.accept().await.unwrap();
    // Far more than windows and sockets hold on the way.
    let sent = 16 << 20;
    let source = tokio::spawn(async move {
        for _ in 0..sent / (64 * 1024) {
            reached.write_all(&[7; 64 * 1024]).await.unwrap();
        }
        reached.shutdown().await.unwrap();
        reached
    });
    // Of connections of our own one without an acknowledgement in 20 s is given up.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!source.is_finished(), "or this test shows nothing");
    let (mut buffer, mut read) = (vec![0; 64 * 1024], 0);
    loop {
        match client.read(&mut buffer).await.expect("a pause is no end") {
            0 => break,
            count => read += count,
        }
    }
    assert_eq!(read, sent);
    drop((client, source.await.unwrap()));
    port.nothing_is_left().await;
}
