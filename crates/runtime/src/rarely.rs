//! Waits for what hardly ever comes beside work that is polled all the time.

use std::future::Future;
use std::task::{Context, Poll};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

/// Futures that are polled only when they were woken, not whenever the task is:
/// a timer or a cancellation costs its locks at each poll, and the task of a
/// connection is polled for every frame.
#[derive(Debug)]
pub struct Rarely<'a, T>(FuturesUnordered<BoxFuture<'a, T>>);

impl<T> Default for Rarely<'_, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, T> Rarely<'a, T> {
    /// Nothing to wait for.
    #[must_use]
    pub fn new() -> Self {
        Self(FuturesUnordered::new())
    }

    /// Waits for one more.
    pub fn add(&self, future: impl Future<Output = T> + Send + 'a) {
        self.0.push(Box::pin(future));
    }

    /// What came; pending while nothing did, and where nothing is left.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        match self.0.poll_next_unpin(cx) {
            Poll::Ready(Some(came)) => Poll::Ready(came),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Runs `work` until it ends or `cut` comes; `None` if that came first.
pub async fn unless<F: Future>(cut: impl Future<Output = ()> + Send, work: F) -> Option<F::Output> {
    until(cut, work).await.ok()
}

/// As [`unless`], for a cut that says why it came.
///
/// # Errors
/// What `cut` gave, if it came first.
pub async fn until<T, F: Future>(
    cut: impl Future<Output = T> + Send,
    work: F,
) -> Result<F::Output, T> {
    let mut cuts = Rarely::new();
    cuts.add(cut);
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| match cuts.poll(cx) {
        Poll::Ready(why) => Poll::Ready(Err(why)),
        Poll::Pending => work.as_mut().poll(cx).map(Ok),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn what_comes_rarely_is_polled_rarely_and_still_comes() {
        let (token, polls) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let (waits, counted) = (token.clone(), polls.clone());
        let cut = async move {
            let mut cancelled = std::pin::pin!(waits.cancelled());
            std::future::poll_fn(|cx| {
                counted.fetch_add(1, Ordering::Relaxed);
                cancelled.as_mut().poll(cx)
            })
            .await;
        };
        let mut turns = 0;
        let work = std::future::poll_fn(|cx| {
            turns += 1;
            if turns == 100 {
                token.cancel();
            }
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert_eq!(unless(cut, work).await, None);
        assert_eq!(polls.load(Ordering::Relaxed), 2);
        assert_eq!(unless(std::future::pending(), async { 7 }).await, Some(7));
        assert_eq!(until(async { "cut" }, std::future::pending::<()>()).await, Err("cut"));
    }
}
