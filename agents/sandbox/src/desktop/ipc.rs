//! sway's own socket: one question, which only a living compositor answers.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const MAGIC: &[u8; 6] = b"i3-ipc";
const GET_VERSION: u32 = 7;
/// An answer is a few hundred bytes.
const ANSWER_LIMIT: u32 = 64 * 1024;

/// Asks sway for its version.
///
/// # Errors
/// When nobody answers, or not as sway does. It has no deadline of its own.
pub(super) async fn version(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut question = MAGIC.to_vec();
    question.extend(0_u32.to_ne_bytes());
    question.extend(GET_VERSION.to_ne_bytes());
    stream.write_all(&question).await?;
    let mut header = [0_u8; 14];
    stream.read_exact(&mut header).await?;
    let length = length_of(&header)?;
    let mut answer = vec![0_u8; length as usize];
    stream.read_exact(&mut answer).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    let version = answer.get("human_readable").and_then(serde_json::Value::as_str);
    Ok(version.unwrap_or("unknown").to_owned())
}

fn length_of(header: &[u8; 14]) -> io::Result<u32> {
    let [a, b, c, d] = [header[6], header[7], header[8], header[9]];
    let length = u32::from_ne_bytes([a, b, c, d]);
    if !header.starts_with(MAGIC) || length > ANSWER_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "whoever answers is not sway"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(bytes: Vec<u8>) -> io::Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0_u8; 14];
            stream.read_exact(&mut question).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        };
        tokio::join!(version(&path), server).0
    }

    #[tokio::test]
    async fn an_answer_is_read_and_anything_else_refused() {
        let body = br#"{"human_readable":"1.7"}"#;
        let length = u32::try_from(body.len()).unwrap();
        let good = [MAGIC.as_slice(), &length.to_ne_bytes(), &7_u32.to_ne_bytes(), body].concat();
        assert_eq!(answer(good.clone()).await.unwrap(), "1.7");
        assert!(answer(good[..20].to_vec()).await.is_err(), "cut");
        assert!(answer(b"HTTP/1.1 400 Bad Request\r\n".to_vec()).await.is_err());
        let huge = [MAGIC.as_slice(), &u32::MAX.to_ne_bytes(), &[0; 4]].concat();
        assert!(answer(huge).await.is_err());
        assert!(version(Path::new("/nonexistent/sway.sock")).await.is_err());
    }
}
