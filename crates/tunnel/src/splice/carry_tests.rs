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
