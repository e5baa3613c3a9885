//! Streams that carry one connection after the other: nothing of one reaches the
//! next, and only what ended well goes on.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wolfpack_proto::tunnel::v1::{
    CarryRequest, CarryResponse, Fin, Open, Opened, Park, carry_request, carry_response,
};
use wolfpack_rpc::from_status;
use wolfpack_tunnel_broker::domain::exposure::{ExposureLimits, ExposureSpec};
use wolfpack_types::{Endpoint, ExposureId, Fault, Reason, WolfId};

use crate::identity::{Hand, attach};
use crate::support::{Fleet, SOON, echo, eventually, pattern, target};

/// Each of these rests in the broker's answer to `Carry`, by hand.
struct Stream {
    frames: mpsc::Sender<CarryRequest>,
    answers: Streaming<CarryResponse>,
}

impl Stream {
    async fn open(hand: &mut Hand) -> Self {
        let (frames, queue) = mpsc::channel(64);
        let park = Park { session_id: hand.session.clone(), dial_id: Bytes::new() };
        send(&frames, carry_request::Frame::Park(park)).await;
        let answers = hand.client.carry(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Self { frames, answers }
    }

    async fn send(&self, frame: carry_request::Frame) {
        send(&self.frames, frame).await;
    }

    async fn next(&mut self) -> Result<Option<carry_response::Frame>, tonic::Status> {
        let answer = tokio::time::timeout(SOON, self.answers.message()).await;
        answer.expect("something comes").map(|answer| answer.and_then(|answer| answer.frame))
    }

    async fn opened(&mut self) -> Open {
        let Ok(Some(carry_response::Frame::Open(open))) = self.next().await else {
            panic!("no open");
        };
        self.send(carry_request::Frame::Opened(Opened {})).await;
        open
    }

    /// Serves one connection as an echo, up to the last frame before it is parked.
    async fn echo(&mut self) {
        let open = self.opened().await;
        assert!(open.may_park_again);
        if !open.early_data.is_empty() {
            self.send(carry_request::Frame::Data(open.early_data)).await;
        }
        loop {
            match self.next().await.unwrap().unwrap() {
                carry_response::Frame::Data(data) => {
                    self.send(carry_request::Frame::Data(data)).await;
                }
                carry_response::Frame::Fin(_) => break,
                frame => panic!("{frame:?}"),
            }
        }
        self.send(carry_request::Frame::Fin(Fin {})).await;
    }

    async fn park(&self) {
        self.send(carry_request::Frame::Park(Park::default())).await;
    }
}

async fn send(frames: &mpsc::Sender<CarryRequest>, frame: carry_request::Frame) {
    frames.send(CarryRequest { frame: Some(frame) }).await.unwrap();
}

/// A port of the broker for the endpoint.
fn front(fleet: &Fleet, endpoint: &Endpoint) -> SocketAddr {
    let exposure = ExposureSpec {
        id: ExposureId::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        endpoint: endpoint.clone(),
        target: target("port"),
        limits: ExposureLimits::default(),
        origin: None,
    };
    fleet.running.exposures.open(exposure).unwrap().address
}

/// Sends something that only it sends, and expects that and nothing else.
async fn echoes(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    at: usize,
) -> Vec<u8> {
    let own = pattern(1000 + at)[at..].to_vec();
    stream.write_all(&own).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert!(back == own, "{at}: {} bytes came back of {}", back.len(), own.len());
    back
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_carries_connections_of_both_kinds_one_after_the_other() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let agents = fleet.running.addresses.agents;
    let mut hand = attach(fleet.wolf_channel(&wolf, agents), &wolf.name()).await.unwrap();
    let mut stream = Stream::open(&mut hand).await;
    let endpoint = Endpoint::Wolf(wolf);
    fleet.registry.followed().await;
    let front = front(&fleet, &endpoint);
    fleet.counts([Some(1), Some(1), None, None]).await;
    let agent = tokio::spawn(async move {
        for _ in 0..60 {
            stream.echo().await;
            stream.park().await;
        }
        stream
    });
    for at in 0..60 {
        if at % 2 == 0 {
            echoes(fleet.dial(&endpoint).await.unwrap(), at).await;
        } else {
            echoes(TcpStream::connect(front).await.unwrap(), at).await;
        }
        // No stream was asked for: the one that there is came back.
        fleet.counts([Some(1), Some(1), Some(0), Some(0)]).await;
    }
    let mut stream = agent.await.unwrap();
    // The end of the session ends what is parked.
    let session = fleet.running.broker.find(&endpoint).unwrap();
    fleet.running.broker.detach(&session, &Fault::new(Reason::TunnelLost, "ended by the test"));
    assert!(stream.next().await.is_err(), "with the reason of the session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_did_not_end_well_is_not_used_again() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let agents = fleet.running.addresses.agents;
    let mut hand = attach(fleet.wolf_channel(&wolf, agents), &wolf.name()).await.unwrap();
    let endpoint = Endpoint::Wolf(wolf);
    fleet.registry.followed().await;
    let front = front(&fleet, &endpoint);

    // Parked before the caller has finished: both kinds of callers see an error.
    for dialed in [true, false] {
        let mut stream = Stream::open(&mut hand).await;
        fleet.counts([Some(1), Some(1), None, None]).await;
        let early = async {
            stream.opened().await;
            stream.send(carry_request::Frame::Fin(Fin {})).await;
            stream.park().await;
            while matches!(stream.next().await, Ok(Some(_))) {}
        };
        let caller = async {
            let mut read = Vec::new();
            if dialed {
                let mut caller = fleet.dial(&endpoint).await.unwrap();
                caller.read_to_end(&mut read).await.unwrap();
                caller.close().await.expect_err("it is not known what the target took");
            } else {
                let mut caller = TcpStream::connect(front).await.unwrap();
                // Its end was said before; then writes fail.
                let _ = caller.read_to_end(&mut read).await;
                let deaf = async { while caller.write_all(&[1]).await.is_ok() {} };
                tokio::time::timeout(SOON, deaf).await.expect("a reset");
            }
        };
        tokio::join!(early, caller);
        fleet.counts([Some(1), Some(0), Some(0), Some(0)]).await;
    }

    // A caller that leaves in the midst: the stream is reset, whatever the agent says.
    let mut stream = Stream::open(&mut hand).await;
    fleet.counts([Some(1), Some(1), None, None]).await;
    let (opened, caller) = tokio::join!(stream.opened(), fleet.dial(&endpoint));
    assert!(!opened.connection_id.is_empty());
    drop(caller.unwrap());
    while matches!(stream.next().await, Ok(Some(_))) {}
    fleet.counts([Some(1), Some(0), Some(0), Some(0)]).await;

    // What it says while it is parked ends it, and reaches nobody.
    let mut stream = Stream::open(&mut hand).await;
    fleet.counts([Some(1), Some(1), None, None]).await;
    let first = async { echoes(fleet.dial(&endpoint).await.unwrap(), 1).await };
    let agent = async {
        stream.echo().await;
        stream.park().await;
        stream.send(carry_request::Frame::Data(Bytes::from_static(b"stray"))).await;
    };
    tokio::join!(first, agent);
    fleet.counts([Some(1), Some(0), Some(0), Some(0)]).await;
    let told = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an end without a word"),
            Err(status) => break from_status(&status).reason,
        }
    };
    assert_eq!(told, Reason::RequestInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_connections_of_an_agent_take_few_streams() {
    let fleet = Fleet::start().await;
    let endpoint = fleet.wolf_to(echo().await).await;
    fleet.registry.followed().await;
    let front = front(&fleet, &endpoint);
    let carried = || ended(&fleet.running.context.telemetry.prometheus(), "Carry");
    for at in 0..300 {
        if at % 2 == 0 {
            echoes(fleet.dial(&endpoint).await.unwrap(), at).await;
        } else {
            echoes(TcpStream::connect(front).await.unwrap(), at).await;
        }
    }
    assert_eq!(ended(&fleet.running.context.telemetry.prometheus(), "Dial"), 150, "it counts");
    // A pool that has grown is made smaller after a minute, and not before.
    assert!(carried() < 100, "{} streams", carried());
    // A caller that does not finish takes its stream with it.
    let before = carried();
    drop(fleet.dial(&endpoint).await.unwrap());
    eventually(|| carried() == before + 1, || format!("{} of {before}", carried())).await;
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

/// Calls of a method that have ended.
fn ended(metrics: &str, method: &str) -> u64 {
    let of = format!("/{method}\"");
    let lines = metrics.lines().filter(|line| line.starts_with("rpc_server_calls_total"));
    let counts = lines.filter(|line| line.contains(&of)).filter_map(|line| line.rsplit(' ').next());
    counts.filter_map(|count| count.parse::<u64>().ok()).sum()
}
