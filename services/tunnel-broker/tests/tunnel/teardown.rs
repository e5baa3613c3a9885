//! The end of connections that are full: whoever cannot be told by a frame is
//! told all the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use wolfpack_proto::tunnel::v1::{AttachRequest, Hello, attach_request};
use wolfpack_tunnel::grpc::ATTACH_PATH;
use wolfpack_tunnel::protocol::encode;
use wolfpack_tunnel::{AgentTunnel, TunnelStream};
use wolfpack_types::{Endpoint, Fault, ProjectId, Reason, SandboxId, WolfId};

use crate::support::{Fleet, SOON, Tcp, attached, eventually, talker};

/// How long a write stands still before its way counts as full.
const FULL: Duration = Duration::from_millis(400);

/// A target that reads nothing until it is told to; then it reads to the end,
/// and says how that was.
struct Deaf {
    read: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
    address: std::net::SocketAddr,
}

impl Deaf {
    async fn new(talks: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (read, may_read) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let (mut reader, mut writer) = socket.into_split();
            let talk = tokio::spawn(async move {
                while talks && writer.write_all(&[7; 64 * 1024]).await.is_ok() {}
                // A target that says nothing keeps its half open all the same.
                writer
            });
            may_read.await.unwrap();
            let mut buffer = vec![0; 64 * 1024];
            while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
            let _ = ends.send(());
            drop(talk);
        });
        Self { read: Some(read), ended, address }
    }

    /// Waits until the agent has closed the socket.
    async fn closed(mut self) {
        self.read.take().unwrap().send(()).unwrap();
        tokio::time::timeout(SOON, self.ended).await.expect("the agent closes it").unwrap();
    }
}

async fn wolf_to(fleet: &Fleet, tcp: std::net::SocketAddr) -> (Endpoint, AgentTunnel) {
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("port", Arc::new(Tcp(tcp)));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    (Endpoint::Wolf(wolf), agent)
}

/// Writes until nothing more is taken.
async fn fill(stream: &mut TunnelStream) {
    let chunk = vec![1; 64 * 1024];
    while let Ok(written) = tokio::time::timeout(FULL, stream.write_all(&chunk)).await {
        written.unwrap();
    }
}

async fn nothing_is_left(fleet: &Fleet, agent: &AgentTunnel) {
    fleet.counts([None, None, Some(0), Some(0)]).await;
    eventually(|| agent.connections() == 0, || format!("{} at the agent", agent.connections()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_a_target_which_reads_nothing_takes_all_with_it() {
    let fleet = Fleet::start().await;
    let deaf = Deaf::new(false).await;
    let (endpoint, agent) = wolf_to(&fleet, deaf.address).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    fill(&mut stream).await;
    drop(stream);
    nothing_is_left(&fleet, &agent).await;
    deaf.closed().await;
    let session = fleet.running.broker.find(&endpoint).expect("the tunnel is as it was");
    assert_eq!(session.connections(), 0, "its permit came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_with_both_ways_full_takes_all_with_it() {
    let fleet = Fleet::start().await;
    let deaf = Deaf::new(true).await;
    let (endpoint, agent) = wolf_to(&fleet, deaf.address).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    fill(&mut stream).await;
    drop(stream);
    nothing_is_left(&fleet, &agent).await;
    deaf.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_takes_full_connections_from_its_agent() {
    let fleet = Fleet::start().await;
    let (endpoint, agent) = wolf_to(&fleet, talker().await).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    // The caller reads nothing, until every window on the way is full.
    let totals = &fleet.running.broker.totals;
    let mut last = 0;
    loop {
        tokio::time::sleep(FULL).await;
        let now = totals.bytes(wolfpack_tunnel::splice::Direction::Down);
        if now == last {
            break;
        }
        last = now;
    }
    assert_eq!(agent.connections(), 1);
    // The agent's connection to the broker stays: it attaches over it again.
    let session = fleet.running.broker.find(&endpoint).unwrap();
    fleet.running.broker.detach(&session, &Fault::new(Reason::TunnelLost, "ended by the test"));
    eventually(|| agent.connections() == 0, || format!("{} at the agent", agent.connections()))
        .await;
    // What was on its way is still there for the caller, and then the reason.
    let read = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => panic!("an end, and not an error"),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(SOON, read).await.expect("ends");
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).unwrap();
    assert_eq!(fault.reason, Reason::TunnelLost);
    drop(stream);
    fleet.counts([None, None, Some(0), Some(0)]).await;
}

/// It lets the broker send nothing, so it hears of no end: its stream is cut all the same,
/// or streams of sessions that are over would add up on its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_of_an_agent_without_room_ends_with_its_session() {
    let fleet = Fleet::start().await;
    let broker = fleet.run_plain().await;
    let socket = TcpStream::connect(broker.addresses.agents).await.unwrap();
    let (sender, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let (sandbox, project) = (SandboxId::new(), ProjectId::new());
    let hello = Hello {
        endpoint: Endpoint::Sandbox(sandbox.clone()).to_string(),
        instance_id: uuid::Uuid::now_v7().to_string(),
        agent_version: "test".to_owned(),
        max_connections: 1,
        ..Hello::default()
    };
    let hello = AttachRequest { message: Some(attach_request::Message::Hello(hello)) };
    let request = Request::post(format!("http://broker{ATTACH_PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer sandbox.{sandbox}.{project}"))
        .body(())
        .unwrap();
    let mut sender = sender.ready().await.unwrap();
    let (response, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(encode::message(&hello), false).unwrap();
    let mut response = response.await.unwrap().into_body();
    eventually(|| broker.broker.counts()[0] == 1, || "it attaches".to_owned()).await;
    // It leaves, and cannot be told goodbye.
    body.send_data(Bytes::new(), true).unwrap();
    let end = tokio::time::timeout(SOON, response.data()).await.expect("its stream ends");
    assert!(end.is_none_or(|end| end.is_err()));
    assert_eq!(broker.broker.counts()[0], 0);
    connection.abort();
}
