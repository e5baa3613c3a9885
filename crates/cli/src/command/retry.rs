//! Sends a call again that is safe to send again.

use std::time::Duration;

use crate::failure::Failure;

const ATTEMPTS: u32 = 4;

/// Runs `call` up to four times while the server does not answer. Only for
/// calls that read, or carry a `request_id`.
pub(crate) async fn retry<T, F>(mut call: F) -> Result<T, Failure>
where
    F: AsyncFnMut() -> Result<T, Failure>,
{
    let mut attempt = 1;
    loop {
        match call().await {
            Err(failure) if failure.is_passing() && attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(150 << attempt)).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}
