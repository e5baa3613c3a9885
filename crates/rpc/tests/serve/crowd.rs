//! Many callers without a credential, who ask and then send nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use h2::client::{ResponseFuture, SendRequest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wolfpack_proto::registry::v1::RegisterWolfRequest;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_rpc::Profile;
use wolfpack_types::Reason;

use crate::world::{World, eventually, get, reason};

/// Anyone may call it.
const OPEN: &str = "http://h/wolfpack.registry.v1.WolfService/RegisterWolf";
const RESOURCE_EXHAUSTED: i32 = 8;
const DEADLINE_EXCEEDED: i32 = 4;

/// A connection from one of this machine's addresses.
pub(crate) async fn connect(to: SocketAddr, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// One HTTP/2 connection that ends with this.
struct Crowd {
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    bodies: Vec<h2::SendStream<Bytes>>,
}

impl Crowd {
    async fn new(to: SocketAddr, from: Ipv4Addr) -> Self {
        let socket = connect(to, from).await;
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        Self { sender, connection: tokio::spawn(connection), bodies: Vec::new() }
    }

    /// Asks without a credential, for as long as can be; the message follows
    /// or does not.
    async fn ask(&mut self, message: bool) -> ResponseFuture {
        let request = http::Request::post(OPEN)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "99999999H")
            .body(())
            .unwrap();
        self.sender = self.sender.clone().ready().await.unwrap();
        let (response, mut body) = self.sender.send_request(request, false).unwrap();
        if message {
            body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        }
        self.bodies.push(body);
        response
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The status that the headers of an answer have; a good answer's has none yet.
async fn status(response: ResponseFuture) -> Option<i32> {
    let answer = timeout(Duration::from_secs(60), response).await.expect("an end").unwrap();
    Some(answer.headers().get("grpc-status")?.to_str().unwrap().parse().unwrap())
}

/// One call on a connection of its own, which lasts as long as what comes with
/// the status.
pub(crate) async fn ask(
    to: SocketAddr,
    from: Ipv4Addr,
    message: bool,
) -> (BoxFuture<'static, Option<i32>>, impl Sized) {
    let mut crowd = Crowd::new(to, from).await;
    let response = crowd.ask(message).await;
    (Box::pin(status(response)), crowd)
}

/// Four connections fill as many places as all unary calls have together.
#[tokio::test]
async fn strangers_take_no_place_of_a_caller_with_a_key_and_leave_soon() {
    let world = World::plain(|profile| *profile = Profile::public()).await;
    let mut crowds = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..4 {
        let mut crowd = Crowd::new(world.address, Ipv4Addr::LOCALHOST).await;
        for _ in 0..256 {
            answers.push(crowd.ask(false).await);
        }
        crowds.push(crowd);
    }
    let method = ["RegisterWolf"];
    let came = || {
        world.metric("rpc_server_active_calls", &method)
            + world.metric("rpc_server_calls_total", &method)
    };
    eventually(came, |came| *came >= 1024.0).await;
    for _ in 0..10 {
        let answer = world.client().get_wolf(get("wolves/ok")).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
    // Nobody holds a place for as long as they asked for.
    let mut ends = BTreeMap::new();
    for end in join_all(answers.into_iter().map(status)).await {
        *ends.entry(end).or_insert(0) += 1;
    }
    let shed = ends.remove(&Some(RESOURCE_EXHAUSTED));
    let late = ends.remove(&Some(DEADLINE_EXCEEDED));
    assert!(shed.is_some() && late.is_some() && ends.is_empty(), "{shed:?} {late:?} {ends:?}");
    assert_eq!(world.probe.ran(), 10, "none of them reached a handler");
    // And who means it is let in again.
    let joins =
        WolfServiceClient::new(world.channel()).register_wolf(RegisterWolfRequest::default()).await;
    assert!(joins.is_ok(), "{joins:?}");
    drop(crowds);
    world.stop().await;
}

#[tokio::test]
async fn one_address_leaves_places_to_the_strangers_of_others() {
    let world = World::plain(|profile| {
        profile.max_stranger_calls = 4;
        profile.strangers_per_address = Some(2);
        profile.stranger_message = Duration::from_secs(100);
    })
    .await;
    let (one, two) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let mut crowd = Crowd::new(world.address, one).await;
    let held = [crowd.ask(false).await, crowd.ask(false).await];
    let active = || world.metric("rpc_server_active_calls", &["RegisterWolf"]);
    eventually(active, |active| *active >= 2.0).await;
    assert_eq!(status(crowd.ask(true).await).await, Some(RESOURCE_EXHAUSTED), "its share is held");
    let (answer, _connection) = ask(world.address, two, true).await;
    assert_eq!(answer.await, None, "another's is not");
    let mut more = Crowd::new(world.address, two).await;
    let held_too = [more.ask(false).await, more.ask(false).await];
    eventually(active, |active| *active >= 4.0).await;
    let (answer, _connection) = ask(world.address, Ipv4Addr::new(127, 0, 0, 3), true).await;
    assert_eq!(answer.await, Some(RESOURCE_EXHAUSTED), "all of the strangers' are held");
    assert!(world.client().get_wolf(get("wolves/ok")).await.is_ok(), "and no other");
    drop((held, held_too, crowd, more));
    eventually(active, |active| *active == 0.0).await;
    let (answer, _connection) = ask(world.address, one, true).await;
    assert_eq!(answer.await, None, "who leaves gives its place back");
    world.stop().await;
}

/// A message that came in time is the end of the hurry.
#[tokio::test]
async fn only_the_message_is_hurried_and_only_of_strangers() {
    let world = World::plain(|profile| profile.stranger_message = Duration::from_millis(300)).await;
    let mut client = world.client();
    let slow = tokio::spawn(async move { client.get_wolf(get("wolves/slow")).await });
    eventually(|| world.probe.running(), |running| *running == 1).await;
    let (late, _connection) = ask(world.address, Ipv4Addr::LOCALHOST, false).await;
    assert_eq!(late.await, Some(DEADLINE_EXCEEDED));
    assert_eq!(world.probe.running(), 1, "a caller with a key goes on");
    slow.abort();
    let viewers = world.channel();
    let nobody = WolfServiceClient::new(viewers).get_wolf(get("wolves/ok")).await;
    assert_eq!(reason(nobody), Reason::CredentialMissing, "who may not call is told so");
    world.stop().await;
}
