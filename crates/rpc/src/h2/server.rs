//! A connection that peers open streams on.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use futures::future::{Abortable, BoxFuture};
use h2::server::{Builder, SendResponse};
use http::{Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;

use super::alive::listening;
use super::chores::{Chores, Deaf, Duty};
use super::receive::Receive;
use super::send::Sending;
use super::{ByteBudget, REMEMBERED_RESETS, SEND_BUFFER, Settings};
use crate::coalesce::Coalesce;
use crate::server::StreamCut;

/// When a connection is over that its peer does not end.
pub(crate) struct Times {
    /// No new streams then.
    pub(crate) leave: BoxFuture<'static, ()>,
    /// Nothing of it any more, where it says so.
    pub(crate) end: BoxFuture<'static, bool>,
}

/// Serves streams until the connection ends, or after it is to leave until the last of
/// them has: each is answered by `handle` in a future given to `spawn`. One that is
/// opened 5 s after that or later is refused, though the peer never said that it
/// was told.
///
/// # Errors
/// When the connection breaks, or the peer does not answer for too long.
pub(crate) async fn serve<T, H, A>(
    io: T,
    settings: &Settings,
    budget: &ByteBudget,
    handle: H,
    mut spawn: impl FnMut(Stream<A>),
    times: Times,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Receive>) -> A,
    A: Future<Output = Response<Body>>,
{
    let window = budget.window();
    let (io, heard) = listening(Coalesce::new(io));
    let begun = Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.max_frame)
        .max_header_list_size(settings.header_list_size)
        .max_concurrent_streams(settings.max_streams)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_local_error_reset_streams(Some(settings.local_resets))
        .max_pending_accept_reset_streams(settings.pending_resets)
        .handshake::<_, Bytes>(io);
    // Boxed, or its room would be kept as long as the connection lives.
    let mut connection = Box::pin(begun).await?;
    let mut chores = Chores::new(heard, connection.ping_pong(), settings, budget, window);
    chores.leave_after(times.leave);
    chores.end_if(times.end);
    let mut refuses = false;
    std::future::poll_fn(|cx| {
        while let Poll::Ready(duty) = chores.poll(cx) {
            match duty {
                Duty::End => return Poll::Ready(Err(h2::Reason::NO_ERROR.into())),
                Duty::Leave => connection.graceful_shutdown(),
                Duty::Refuse => refuses = true,
            }
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Pending => {
                    match chores.tell(|window| connection.set_initial_window_size(window)) {
                        Ok(true) => {}
                        Ok(false) => return Poll::Pending,
                        Err(Deaf) => return Poll::Ready(Err(h2::Reason::SETTINGS_TIMEOUT.into())),
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(Some(Ok((_, mut respond)))) if refuses => {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
                Poll::Ready(Some(Ok((request, respond)))) => {
                    spawn(Stream { answer: Box::pin(handle(request.map(Receive::new))), respond });
                }
            }
        }
    })
    .await
}

/// One stream that is to be answered.
pub(crate) struct Stream<A> {
    answer: Pin<Box<A>>,
    respond: SendResponse<Bytes>,
}

impl<A: Future<Output = Response<Body>>> Stream<A> {
    /// Answers to the last byte; ends when the peer gives the stream up, or when
    /// its handler cuts it.
    pub(crate) async fn run(self) {
        let (cut, cuttable) = StreamCut::new();
        // That it was cut is what somebody wanted.
        let _ = Abortable::new(self.answered(cut), cuttable).await;
    }

    async fn answered(self, cut: StreamCut) {
        let Self { mut answer, mut respond } = self;
        let response = std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        });
        let Some(response) = cut.handling(response).await else { return };
        drop(answer);
        let (head, body) = response.into_parts();
        let ended = body.is_end_stream();
        match respond.send_response(Response::from_parts(head, ()), ended) {
            Ok(stream) if !ended => Sending::new(body, stream).await,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "an answer could not be sent"),
        }
    }
}
