//! Takes the body of a request away from HTTP/2, which polls it no more while
//! the peer reads nothing: dropping the answer alone does not cancel such a
//! call, as the stream has two halves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{AbortHandle, Abortable};
use parking_lot::Mutex;

tokio::task_local! {
    static TASK: (u64, AbortHandle);
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Runs one of the tasks of a connection so that it may be cut.
pub(super) async fn cuttable<F: Future>(work: F) {
    let (handle, registration) = AbortHandle::new_pair();
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    // That it was cut is what somebody wanted.
    let _ = TASK.scope((id, handle), Abortable::new(work, registration)).await;
}

/// Ends the sending of one request, polled or not; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RequestCut(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The task of the connection, which polls a body first and must live on.
    connection: Option<u64>,
    /// The one that sends the body from then on.
    sender: Option<AbortHandle>,
    cut: bool,
}

impl RequestCut {
    /// To be called by the body whenever it is polled, until it gives true: then
    /// it is known who sends the body.
    #[must_use]
    pub fn polled(&self) -> bool {
        let Ok((id, handle)) = TASK.try_with(Clone::clone) else { return false };
        let mut state = self.0.lock();
        match state.connection {
            None => state.connection = Some(id),
            Some(connection) if connection != id => {
                if state.cut {
                    handle.abort();
                }
                state.sender = Some(handle);
            }
            Some(_) => {}
        }
        state.sender.is_some()
    }

    /// Names who sends the body: for a transport that knows it before it polls the
    /// body, and finds the cut in the extensions of the request.
    pub(crate) fn sent_by(&self, sender: AbortHandle) {
        let mut state = self.0.lock();
        if state.cut {
            sender.abort();
        }
        state.sender = Some(sender);
    }

    /// Drops the body, and what of it was not sent. Together with the answer it
    /// is to be dropped: then the peer gets CANCEL.
    pub fn cut(&self) {
        let mut state = self.0.lock();
        state.cut = true;
        if let Some(sender) = &state.sender {
            sender.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_sender_is_cut_and_never_the_connection() {
        for early in [false, true] {
            let cut = RequestCut::default();
            assert!(!cut.polled(), "in no task of ours");
            let polled = cut.clone();
            let connection = tokio::spawn(cuttable(async move {
                assert!(!polled.polled() && !polled.polled());
                std::future::pending::<()>().await;
            }));
            while cut.0.lock().connection.is_none() {
                tokio::task::yield_now().await;
            }
            if early {
                cut.cut();
            }
            let polled = cut.clone();
            let sender = tokio::spawn(cuttable(async move {
                assert!(polled.polled());
                std::future::pending::<()>().await;
            }));
            if !early {
                while cut.0.lock().sender.is_none() {
                    tokio::task::yield_now().await;
                }
                cut.cut();
            }
            sender.await.unwrap();
            assert!(!connection.is_finished());
            connection.abort();
        }
    }
}
