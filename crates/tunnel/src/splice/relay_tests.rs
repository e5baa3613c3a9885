use super::*;
use futures::task::noop_waker_ref;
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use wolfpack_proto::tunnel::v1::{CarryRequest, carry_request};
use wolfpack_rpc::ByteBudget;

use crate::protocol::DataMode;
use crate::splice::link::LINGER;
use crate::splice::{LinkEnd, Throttle, Totals};

/// What a peer sends: frames by hand; dropping the sender ends the stream.
pub(in crate::splice) struct Sent(pub(in crate::splice) mpsc::Receiver<Result<Bytes, Status>>);

impl Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(cx).map(|item| item.map(|item| item.map(Frame::data)))
    }
}

/// A connection with both peers in the test's hands.
struct Spliced {
    caller: Option<mpsc::Sender<Result<Bytes, Status>>>,
    agent: Option<mpsc::Sender<Result<Bytes, Status>>>,
    up: Option<RelayBody>,
    down: Option<RelayBody>,
    end: Arc<Mutex<Option<LinkEnd>>>,
}

/// What a body gave.
#[derive(Debug, PartialEq)]
enum Got {
    Nothing,
    Frame(Bytes),
    End(Option<Reason>),
    /// An error, which resets the stream.
    Reset,
}

fn poll(body: &mut Option<RelayBody>) -> Got {
    let mut cx = Context::from_waker(noop_waker_ref());
    match Pin::new(body.as_mut().unwrap()).poll_frame(&mut cx) {
        Poll::Pending => Got::Nothing,
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(bytes) => Got::Frame(bytes),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap();
                let fault = crate::grpc::failure(&trailers)
                    .map(|status| wolfpack_rpc::error::from_status(&status).reason);
                Got::End(fault)
            }
        },
        Poll::Ready(Some(Err(_))) => Got::Reset,
        Poll::Ready(None) => panic!("an end without trailers"),
    }
}

impl Spliced {
    fn new() -> Self {
        Self::throttled(None)
    }

    fn throttled(throttle: Option<Arc<Throttle>>) -> Self {
        let (caller, from_caller) = mpsc::channel(8);
        let (agent, from_agent) = mpsc::channel(8);
        let end = Arc::<Mutex<Option<LinkEnd>>>::default();
        let ended = end.clone();
        let totals = Arc::<Totals>::default();
        let link = Link::throttled(totals, throttle, move |end| *ended.lock() = Some(end));
        let body = |receiver, direction| {
            let incoming = Incoming::new(tonic::body::Body::new(Sent(receiver)), DataMode::Raw);
            RelayBody::new(link.clone(), direction, incoming, None)
        };
        Self {
            up: Some(body(from_caller, Direction::Up)),
            down: Some(body(from_agent, Direction::Down)),
            caller: Some(caller),
            agent: Some(agent),
            end,
        }
    }

    fn agent_says(&self, frame: Result<Bytes, Status>) {
        self.agent.as_ref().unwrap().try_send(frame).unwrap();
    }

    fn caller_says(&self, frame: Result<Bytes, Status>) {
        self.caller.as_ref().unwrap().try_send(frame).unwrap();
    }

    /// The agent's fin reaches the caller; the caller has not finished.
    fn with_the_agents_fin() -> Self {
        let mut spliced = Self::new();
        spliced.agent_says(Ok(encode::FIN));
        assert_eq!(poll(&mut spliced.down), Got::Frame(encode::FIN));
        assert_eq!(poll(&mut spliced.down), Got::Nothing);
        spliced
    }

    /// How the connection ended for whoever counts it.
    fn counted(mut self) -> Option<Reason> {
        drop((self.up.take(), self.down.take()));
        let end = self.end.lock().take().expect("over");
        end.fault.map(|fault| fault.reason)
    }
}

fn reset_by_the_target() -> Bytes {
    let frame = reasons::to_reset(&reset("the target left before it took all that was sent"));
    encode::message(&CarryRequest { frame: Some(carry_request::Frame::Reset(frame)) })
}

/// The stream was reset by its peer, or its connection broke.
fn broke(cause: h2::Error) -> Status {
    let mut status = Status::unknown("broke");
    status.set_source(Arc::new(cause));
    status
}

fn lost() -> Status {
    broke(closed())
}

/// What h2 says when its connection is gone: it makes no such error for others,
/// so one is taken from a handshake over a socket that is closed.
fn closed() -> h2::Error {
    let (near, far) = tokio::io::duplex(64);
    drop(far);
    let mut handshake = Box::pin(h2::server::handshake(near));
    let mut cx = Context::from_waker(noop_waker_ref());
    match handshake.as_mut().poll(&mut cx) {
        Poll::Ready(Err(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn that_the_target_was_reached_is_told_before_why_it_is_over() {
    let (_caller, from_caller) = mpsc::channel(8);
    let link = Link::new(Arc::<Totals>::default(), |_| {});
    let incoming = Incoming::new(tonic::body::Body::new(Sent(from_caller)), DataMode::Raw);
    let opened = Bytes::from_static(b"opened");
    let down = RelayBody::new(link.clone(), Direction::Down, incoming, Some(opened.clone()));
    link.abort(Fault::new(Reason::BrokerDraining, "the broker leaves"));
    let mut down = Some(down);
    assert_eq!(poll(&mut down), Got::Frame(opened));
    assert_eq!(poll(&mut down), Got::End(Some(Reason::BrokerDraining)));
}

#[test]
fn it_ends_well_only_after_both_fins_and_the_agents_end_in_whatever_order() {
    // The caller's fin, then the agent's end.
    let mut spliced = Spliced::with_the_agents_fin();
    spliced.caller_says(Ok(encode::FIN));
    assert_eq!(poll(&mut spliced.up), Got::Frame(encode::FIN));
    assert_eq!(poll(&mut spliced.down), Got::Nothing, "the target has not taken all");
    assert_eq!(poll(&mut spliced.up), Got::Nothing, "nor is the agent's response over");
    spliced.agent = None;
    assert_eq!(poll(&mut spliced.down), Got::End(None));
    assert_eq!(poll(&mut spliced.up), Got::End(None));
    assert_eq!(spliced.counted(), None);

    // The agent's end at once, as agents once did; then the caller's fin.
    let mut spliced = Spliced::with_the_agents_fin();
    spliced.agent = None;
    assert_eq!(poll(&mut spliced.down), Got::Nothing, "the caller still sends");
    spliced.caller = None;
    assert_eq!(poll(&mut spliced.up), Got::Frame(encode::FIN), "an end without a fin is one");
    assert_eq!(poll(&mut spliced.down), Got::Nothing, "the agent may have no room for it");
    assert_eq!(poll(&mut spliced.up), Got::Nothing);
    assert_eq!(poll(&mut spliced.down), Got::End(None));
    assert_eq!(poll(&mut spliced.up), Got::End(None));
    assert_eq!(spliced.counted(), None);
}

#[test]
fn a_target_that_left_before_it_took_all_is_a_reset_after_the_fin_too() {
    for caller_finishes in [false, true] {
        let mut spliced = Spliced::with_the_agents_fin();
        if caller_finishes {
            spliced.caller_says(Ok(encode::FIN));
            assert_eq!(poll(&mut spliced.up), Got::Frame(encode::FIN));
        }
        spliced.agent_says(Ok(reset_by_the_target()));
        assert_eq!(poll(&mut spliced.down), Got::End(Some(Reason::ConnectionReset)));
        assert_eq!(poll(&mut spliced.up), Got::Reset);
        assert_eq!(spliced.counted(), Some(Reason::ConnectionReset));
    }
}

#[test]
fn a_stream_or_a_connection_that_breaks_after_the_fin_is_no_clean_end() {
    for (error, reason) in
        [(broke(h2::Reason::CANCEL.into()), Reason::ConnectionReset), (lost(), Reason::TunnelLost)]
    {
        for caller_finishes in [false, true] {
            let mut spliced = Spliced::with_the_agents_fin();
            if caller_finishes {
                spliced.caller_says(Ok(encode::FIN));
                assert_eq!(poll(&mut spliced.up), Got::Frame(encode::FIN));
            }
            spliced.agent_says(Err(error.clone()));
            assert_eq!(poll(&mut spliced.down), Got::End(Some(reason)));
            assert_eq!(spliced.counted(), Some(reason));
        }
    }
}

#[test]
fn an_agent_that_lets_go_of_the_callers_direction_is_no_clean_end() {
    for agent_ended in [false, true] {
        let mut spliced = Spliced::with_the_agents_fin();
        if agent_ended {
            spliced.agent = None;
            assert_eq!(poll(&mut spliced.down), Got::Nothing);
        }
        spliced.up = None;
        assert_eq!(poll(&mut spliced.down), Got::End(Some(Reason::ConnectionReset)));
        assert_eq!(spliced.counted(), Some(Reason::ConnectionReset));
    }
    // Both bodies are gone before either said how it ended.
    let mut spliced = Spliced::with_the_agents_fin();
    spliced.up = None;
    assert_eq!(spliced.counted(), Some(Reason::ConnectionReset));
}

#[test]
fn a_caller_that_leaves_is_told_to_the_agent_unless_it_had_all() {
    let mut spliced = Spliced::new();
    spliced.caller_says(Ok(encode::FIN));
    assert_eq!(poll(&mut spliced.up), Got::Frame(encode::FIN));
    spliced.down = None;
    assert_eq!(poll(&mut spliced.up), Got::Reset);
    assert_eq!(spliced.counted(), Some(Reason::Cancelled));

    let mut spliced = Spliced::with_the_agents_fin();
    spliced.caller_says(Ok(encode::FIN));
    assert_eq!(poll(&mut spliced.up), Got::Frame(encode::FIN));
    spliced.down = None;
    assert_eq!(poll(&mut spliced.up), Got::End(None));
    assert_eq!(spliced.counted(), None);
}

/// A tunnel of 1000 bytes a second, and a frame of so many.
fn slow() -> Option<Arc<Throttle>> {
    Some(Arc::new(Throttle::new(std::num::NonZeroU64::new(1000).unwrap())))
}

fn frame(length: usize) -> Bytes {
    let frame = encode::data(&vec![7; length]);
    assert!(frame.len() >= length);
    frame
}

#[tokio::test(start_paused = true)]
async fn at_its_rate_a_direction_waits_and_the_source_is_not_read() {
    let mut spliced = Spliced::throttled(slow());
    for _ in 0..8 {
        spliced.caller_says(Ok(frame(500)));
    }
    assert!(matches!(poll(&mut spliced.up), Got::Frame(_)), "the first passes at once");
    assert_eq!(poll(&mut spliced.up), Got::Nothing);
    // Nothing was taken off the stream: its sender has to wait.
    let caller = spliced.caller.clone().unwrap();
    assert_eq!(caller.capacity(), 1);
    tokio::time::advance(std::time::Duration::from_millis(300)).await;
    assert_eq!(poll(&mut spliced.up), Got::Nothing);
    tokio::time::advance(std::time::Duration::from_millis(200)).await;
    assert!(matches!(poll(&mut spliced.up), Got::Frame(_)));
    // The other direction has a rate of its own.
    spliced.agent_says(Ok(frame(500)));
    assert!(matches!(poll(&mut spliced.down), Got::Frame(_)));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_rate_still_hears_of_an_end() {
    // Of the link.
    let mut spliced = Spliced::throttled(slow());
    spliced.caller_says(Ok(frame(100_000)));
    assert!(matches!(poll(&mut spliced.up), Got::Frame(_)));
    assert_eq!(poll(&mut spliced.up), Got::Nothing);
    spliced.up.as_ref().unwrap().link.abort(reset("the test says so"));
    assert_eq!(poll(&mut spliced.up), Got::Reset);

    // Of the caller, who is gone.
    let mut spliced = Spliced::throttled(slow());
    spliced.caller_says(Ok(frame(100_000)));
    assert!(matches!(poll(&mut spliced.up), Got::Frame(_)));
    assert_eq!(poll(&mut spliced.up), Got::Nothing);
    spliced.down = None;
    spliced.caller_says(Err(broke(h2::Reason::CANCEL.into())));
    assert_eq!(poll(&mut spliced.up), Got::Reset);
}

#[test]
fn what_is_on_its_way_when_the_caller_leaves_has_a_minute() {
    let finished = || {
        let mut spliced = Spliced::with_the_agents_fin();
        spliced.caller_says(Ok(encode::FIN));
        assert_eq!(poll(&mut spliced.up), Got::Frame(encode::FIN));
        let weak = spliced.up.as_ref().unwrap().link.downgrade();
        (spliced, weak)
    };
    let start = Instant::now();
    let (mut spliced, link) = finished();
    // A caller that is there may take its time.
    link.check(start);
    link.check(start + 2 * LINGER);
    spliced.down = None;
    link.check(start + 2 * LINGER);
    link.check(start + 3 * LINGER - Duration::from_secs(1));
    assert_eq!(poll(&mut spliced.up), Got::End(None), "it was in time");
    assert_eq!(spliced.counted(), None);

    let (mut spliced, link) = finished();
    spliced.down = None;
    link.check(start);
    link.check(start + LINGER);
    assert_eq!(poll(&mut spliced.up), Got::Reset);
    assert_eq!(spliced.counted(), Some(Reason::ConnectionReset));
}

#[test]
fn a_fin_that_an_agent_has_no_room_for_is_not_finished() {
    let mut spliced = Spliced::new();
    spliced.caller_says(Ok(encode::FIN));
    assert_eq!(poll(&mut spliced.up), Got::Frame(encode::FIN));
    let link = spliced.up.as_ref().unwrap().link.clone();
    assert!(!link.way(Direction::Up).finished, "it was given, and nobody asked for more");
    assert_eq!(poll(&mut spliced.up), Got::Nothing);
    assert!(link.way(Direction::Up).finished);
}

#[tokio::test]
async fn a_socket_that_was_read_to_its_end_is_not_kept_for_what_waits() {
    let (near, far) = tokio::io::duplex(64);
    drop(far);
    let link = Link::new(Arc::default(), |_| {});
    let kept = Arc::new(());
    let weak = Arc::downgrade(&kept);
    let reader =
        SocketReader::new(Box::new(Keeping(near, kept)), ByteBudget::new(1 << 30, 1 << 20));
    let mut up = Some(RelayBody::of_socket(link, reader));
    assert_eq!(poll(&mut up), Got::Frame(encode::FIN));
    assert!(weak.upgrade().is_none(), "the agent may take its time with the fin");
}

/// A socket, and what is gone with it.
struct Keeping(tokio::io::DuplexStream, #[allow(dead_code, reason = "it is held")] Arc<()>);

impl tokio::io::AsyncRead for Keeping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}
