//! Trying again at the level of messages, where it is known to be safe.

use std::future::Future;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tonic::Status;

use crate::error::from_status;

/// Calls until it works, fails for good or `within` has passed: only
/// UNAVAILABLE is tried again, with full jitter between 50 ms and 2 s and not
/// before the server's own hint. For calls that are idempotent or carry a
/// request id. Dropping the future stops it.
///
/// # Errors
/// The last status.
pub async fn retry<T, F, Fut>(within: Duration, mut call: F) -> Result<T, Status>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    let end = Instant::now() + within;
    let mut waits = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        let status = match call().await {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        if status.code() != tonic::Code::Unavailable {
            return Err(status);
        }
        let hint = from_status(&status).retry_after.unwrap_or_default();
        let wait =
            waits.next().unwrap_or(Duration::from_secs(2)).max(hint.min(Duration::from_secs(5)));
        if Instant::now() + wait >= end {
            return Err(status);
        }
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::to_status;
    use wolfpack_types::{Fault, Reason};

    #[tokio::test]
    async fn only_unavailable_is_tried_again() {
        let mut calls = 0;
        let worked = retry(Duration::from_secs(60), || {
            calls += 1;
            let nth = calls;
            async move {
                if nth < 4 {
                    Err(to_status(Fault::new(Reason::ServerStopping, "x")))
                } else {
                    Ok(nth)
                }
            }
        })
        .await;
        assert_eq!(worked.unwrap(), 4);

        let mut calls = 0;
        let failed = retry::<(), _, _>(Duration::from_secs(60), || {
            calls += 1;
            async { Err(to_status(Fault::new(Reason::WolfNotFound, "x"))) }
        })
        .await;
        assert_eq!(failed.unwrap_err().code(), tonic::Code::NotFound);
        assert_eq!(calls, 1);

        let failed =
            retry::<(), _, _>(Duration::from_secs(1), || async { Err(Status::unavailable("x")) })
                .await;
        assert_eq!(failed.unwrap_err().code(), tonic::Code::Unavailable);
    }
}
