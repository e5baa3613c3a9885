//! Ends a stream whose body is not asked any more: HTTP/2 polls no body while
//! what it gave before waits for the peer's window, so a peer that reads
//! nothing could not be told that all is over.

use futures::future::{AbortHandle, AbortRegistration, Abortable};

tokio::task_local! {
    static STREAM: AbortHandle;
}

/// Resets one HTTP/2 stream; cheap to clone. It does nothing once the stream is
/// over.
#[derive(Debug, Clone)]
pub struct StreamCut(AbortHandle);

impl StreamCut {
    /// That of the stream whose call is being handled; `None` outside of the
    /// call, and over HTTP/1.1.
    #[must_use]
    pub fn current() -> Option<Self> {
        STREAM.try_with(|stream| Self(stream.clone())).ok()
    }

    /// For a stream that is run as an [`Abortable`] by the registration.
    pub(crate) fn new() -> (Self, AbortRegistration) {
        let (handle, registration) = AbortHandle::new_pair();
        (Self(handle), registration)
    }

    /// Runs what may ask for this cut by [`StreamCut::current`].
    pub(crate) fn handling<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        STREAM.scope(self.0, work)
    }

    /// Drops the handler or the body of the response, sent or not. The peer gets
    /// CANCEL as soon as nobody holds the body of the request either.
    pub fn cut(&self) {
        self.0.abort();
    }
}

/// Runs a stream so that its handler may cut it.
pub(crate) async fn cuttable<F: Future>(stream: F) {
    let (cut, registration) = StreamCut::new();
    // That it was cut is what somebody wanted.
    let _ = cut.handling(Abortable::new(stream, registration)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn a_stream_that_waits_for_ever_is_dropped_when_it_is_cut() {
        assert!(StreamCut::current().is_none(), "no stream, nothing to cut");
        let (kept, held) = (Arc::<Mutex<Option<StreamCut>>>::default(), Arc::new(()));
        let (keep, hold) = (kept.clone(), held.clone());
        let stream = tokio::spawn(cuttable(async move {
            let _hold = hold;
            *keep.lock().unwrap() = StreamCut::current();
            std::future::pending::<()>().await;
        }));
        while kept.lock().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        let cut = kept.lock().unwrap().clone().unwrap();
        cut.cut();
        stream.await.unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
        cut.cut();
    }
}
