//! A refusal that every Docker client shows: an HTTP answer with a message.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::order::{Cause, DiskUse};

/// Longer requests are cut off: nobody reads them.
const HEAD_LIMIT: usize = 64 * 1024;
/// A client says what it wants by then.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A client that still sends its request's body must be able to end that before
/// it reads the answer; more than this is not waited for.
const BODY_LIMIT: u64 = 256 << 20;
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Why a client does not get through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Of which kind.
    pub cause: Cause,
    /// In words for the user.
    pub message: String,
}

impl Refusal {
    /// An engine that did not come up or went away.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self { cause: Cause::Failed, message: message.into() }
    }
}

/// What a client is told about a request that would take more room.
#[must_use]
pub fn full(disk: DiskUse) -> String {
    format!(
        "the sandbox's Docker data takes {} of the {} it may take, so containers were stopped and \
         nothing new can be written; make room with `docker system prune`, `docker rm`, `docker rmi` \
         or `docker volume rm`, or delete the sandbox: below {} all works again",
        bytes(disk.used),
        bytes(disk.limit),
        bytes(super::disk::roomy(disk.limit)),
    )
}

fn bytes(count: u64) -> String {
    const STEP: u64 = 1024;
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut tenths = 0;
    while whole >= STEP && unit + 1 < units.len() {
        tenths = whole % STEP * 10 / STEP;
        whole /= STEP;
        unit += 1;
    }
    format!("{whole}.{tenths} {}", units[unit])
}

/// Reads the client's request and answers 500 with the message.
pub async fn refuse(mut stream: UnixStream, message: &str) {
    let Ok(Some(head)) = timeout(HEAD_DEADLINE, head(&mut stream)).await else { return };
    let answer = answer(&head, message);
    if stream.write_all(&answer).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // A socket closed on unread bytes is a reset, and the answer would be lost.
    let mut rest = stream.take(BODY_LIMIT);
    let _ = timeout(BODY_DEADLINE, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

async fn head(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD_LIMIT || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn answer(head: &[u8], message: &str) -> Vec<u8> {
    let body = serde_json::json!({ "message": message }).to_string();
    let mut answer = format!(
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !head.starts_with(b"HEAD ") {
        answer.push_str(&body);
    }
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_by_people() {
        assert_eq!(bytes(0), "0.0 B");
        assert_eq!(bytes(1023), "1023.0 B");
        assert_eq!(bytes(1536 << 20), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }

    #[tokio::test]
    async fn a_client_with_a_large_body_still_reads_the_answer() {
        let (client, server) = UnixStream::pair().unwrap();
        let refusing = tokio::spawn(async move { refuse(server, "no \"engine\"").await });
        let (mut reader, mut writer) = client.into_split();
        let sending = tokio::spawn(async move {
            writer.write_all(b"POST /build HTTP/1.1\r\nHost: docker\r\n\r\n").await?;
            writer.write_all(&vec![7; 4 << 20]).await?;
            writer.shutdown().await
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        sending.await.unwrap().unwrap();
        refusing.await.unwrap();
        assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
        assert!(text.ends_with(r#"{"message":"no \"engine\""}"#), "{text}");
    }

    #[test]
    fn a_head_has_no_body() {
        let text = String::from_utf8(answer(b"HEAD /_ping HTTP/1.1\r\n\r\n", "why")).unwrap();
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }
}
