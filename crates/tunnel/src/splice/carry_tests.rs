use futures::task::noop_waker_ref;
use tokio::sync::mpsc;

use super::*;
use crate::splice::relay::tests::Sent;

/// A stream of an agent that sends nothing after its park while the sender lives.
async fn parked() -> (CarryStream, CarryBody, mpsc::Sender<Result<Bytes, Status>>) {
    let (frames, queue) = mpsc::channel(1);
    let park = CarryRequest { frame: Some(carry_request::Frame::Park(Park::default())) };
    frames.try_send(Ok(encode::message(&park))).unwrap();
    let body = tonic::body::Body::new(Sent(queue));
    let (stream, body, _) = CarryStream::accept(body).await.unwrap();
    (stream, body, frames)
}

/// What leaves next: whether it is bytes, and not the end.
fn gives_bytes(body: &mut CarryBody) -> bool {
    let mut cx = Context::from_waker(noop_waker_ref());
    match Pin::new(body).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.is_data(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_open_that_has_not_left_is_taken_back_and_never_leaves() {
    let open = Open { early_data: Bytes::from_static(b"once"), ..Open::default() };
    let (mut stream, mut body, _agent) = parked().await;
    let opening = stream.open(open.clone()).unwrap();
    stream.send_early(b"and more");
    drop(stream);
    assert!(opening.take_back());
    assert!(!gives_bytes(&mut body), "the agent hears of the end and of nothing else");

    let (mut stream, mut body, _agent) = parked().await;
    let opening = stream.open(open).unwrap();
    assert!(gives_bytes(&mut body));
    drop(stream);
    assert!(!opening.take_back(), "it may have arrived");
}

/// The trailers that a body ends with.
fn ends(body: &mut CarryBody) -> Option<Status> {
    let mut cx = Context::from_waker(noop_waker_ref());
    match Pin::new(body).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => Status::from_header_map(frame.trailers_ref()?),
        Poll::Pending => None,
        other @ Poll::Ready(_) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stream_that_rests_ends_when_its_agent_sends_or_leaves_and_is_free_of_what_it_sent() {
    for (frame, code) in [
        (Some(encode::data(b"unasked")), tonic::Code::InvalidArgument),
        (Some(Bytes::from_static(&[7; 5])), tonic::Code::InvalidArgument),
        (None, tonic::Code::Ok),
    ] {
        let (mut stream, mut body, agent) = parked().await;
        stream.rest();
        assert!(ends(&mut body).is_none(), "it waits");
        match frame {
            Some(frame) => agent.try_send(Ok(frame)).unwrap(),
            None => drop(agent),
        }
        assert_eq!(ends(&mut body).map(|status| status.code()), Some(code));
        drop(body);
        assert!(stream.is_gone());
        assert!(stream.open(Open::default()).is_none(), "there is nothing to open");
        assert!(matches!(stream.answer().await, CarryAnswer::Died(_)));
    }
}

#[tokio::test]
async fn what_comes_after_the_open_is_the_dials() {
    let (mut stream, mut body, agent) = parked().await;
    stream.rest();
    assert!(ends(&mut body).is_none());
    assert!(stream.open(Open::default()).is_some());
    assert!(gives_bytes(&mut body));
    let opened = CarryRequest { frame: Some(carry_request::Frame::Opened(Default::default())) };
    agent.try_send(Ok(encode::message(&opened))).unwrap();
    assert!(ends(&mut body).is_none(), "it is not looked at any more");
    assert!(matches!(stream.answer().await, CarryAnswer::Opened));
}
