//! What a program has written and the connection has not yet taken.

use std::io;
use std::task::{Context, Poll, Waker};

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use wolfpack_types::Fault;

use super::io_error;
use crate::protocol::CHUNK;
use crate::protocol::encode::{HEADROOM, seal_data};

/// A buffer of at most one chunk between `poll_write` and the body that sends
/// it. Small writes that meet in it leave as one frame.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Headroom, then bytes; empty when there are none.
    buffer: BytesMut,
    finished: bool,
    aborted: bool,
    /// The stream is over: nothing will be sent any more.
    broken: Option<Fault>,
    writer: Option<Waker>,
    body: Option<Waker>,
}

/// What the body should send next.
#[derive(Debug)]
pub(crate) enum Take {
    /// A frame of data.
    Data(Bytes),
    /// The writer finished; everything before was taken.
    Fin,
    /// The writer gave up.
    Abort,
}

impl Pipe {
    /// Takes some bytes in; waits while a whole chunk is there.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        if let Some(fault) = &state.broken {
            return Poll::Ready(Err(io_error(fault.clone())));
        }
        if state.finished || state.aborted {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let present = state.buffer.len().saturating_sub(HEADROOM);
        let room = CHUNK - present.min(CHUNK);
        if room == 0 {
            set_waker(&mut state.writer, cx);
            return Poll::Pending;
        }
        if state.buffer.is_empty() {
            state.buffer.reserve(HEADROOM + bytes.len().min(CHUNK));
            state.buffer.put_bytes(0, HEADROOM);
        }
        let taken = bytes.len().min(room);
        state.buffer.extend_from_slice(&bytes[..taken]);
        let body = state.body.take();
        drop(state);
        wake(body);
        Poll::Ready(Ok(taken))
    }

    /// No more will be written. What is there is still sent.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if let (false, Some(fault)) = (state.finished, &state.broken) {
            return Err(io_error(fault.clone()));
        }
        state.finished = true;
        let body = state.body.take();
        drop(state);
        wake(body);
        Ok(())
    }

    /// The writer went away: without a finish before, the stream is given up
    /// and what was not sent is dropped. Gives whether it had finished.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.state.lock();
        if !state.finished {
            state.aborted = true;
            state.buffer = BytesMut::new();
        }
        let (finished, body) = (state.finished, state.body.take());
        drop(state);
        wake(body);
        finished
    }

    /// The stream is over; writers get an error from now on.
    pub(crate) fn break_with(&self, fault: Fault) {
        let mut state = self.state.lock();
        state.broken.get_or_insert(fault);
        state.buffer = BytesMut::new();
        let wakers = (state.writer.take(), state.body.take());
        drop(state);
        wake(wakers.0);
        wake(wakers.1);
    }

    /// What to send next.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Take> {
        let mut state = self.state.lock();
        if state.aborted || state.broken.is_some() {
            return Poll::Ready(Take::Abort);
        }
        if !state.buffer.is_empty() {
            let frame = state.buffer.split();
            let writer = state.writer.take();
            drop(state);
            wake(writer);
            return Poll::Ready(Take::Data(seal_data(frame)));
        }
        if state.finished {
            return Poll::Ready(Take::Fin);
        }
        set_waker(&mut state.body, cx);
        Poll::Pending
    }
}

fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker_ref;

    fn write(pipe: &Pipe, bytes: &[u8]) -> Poll<io::Result<usize>> {
        pipe.poll_write(&mut Context::from_waker(noop_waker_ref()), bytes)
    }

    fn take(pipe: &Pipe) -> Poll<Take> {
        pipe.poll_take(&mut Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn small_writes_leave_as_one_frame_and_one_chunk_is_the_most() {
        let pipe = Pipe::default();
        for _ in 0..10 {
            assert!(matches!(write(&pipe, b"ab"), Poll::Ready(Ok(2))));
        }
        let Poll::Ready(Take::Data(frame)) = take(&pipe) else { panic!("no frame") };
        assert_eq!(frame, crate::protocol::encode::data(&b"ab".repeat(10)));
        assert!(take(&pipe).is_pending());
        let large = vec![1; CHUNK + 5];
        assert!(matches!(write(&pipe, &large), Poll::Ready(Ok(CHUNK))));
        assert!(write(&pipe, &large).is_pending());
        assert!(matches!(take(&pipe), Poll::Ready(Take::Data(frame)) if frame.len() > CHUNK));
        assert!(matches!(write(&pipe, b"x"), Poll::Ready(Ok(1))));
    }

    #[test]
    fn a_finish_keeps_what_was_written_and_a_drop_without_it_does_not() {
        let pipe = Pipe::default();
        assert!(matches!(write(&pipe, b"last"), Poll::Ready(Ok(4))));
        pipe.finish().unwrap();
        pipe.close();
        assert!(matches!(take(&pipe), Poll::Ready(Take::Data(_))));
        assert!(matches!(take(&pipe), Poll::Ready(Take::Fin)));

        let pipe = Pipe::default();
        assert!(matches!(write(&pipe, b"lost"), Poll::Ready(Ok(4))));
        pipe.close();
        assert!(matches!(take(&pipe), Poll::Ready(Take::Abort)));
        assert!(matches!(write(&pipe, b"x"), Poll::Ready(Err(_))));
    }
}
