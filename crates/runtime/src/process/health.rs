//! `--health ADDRESS`: what a container's health check runs, as an image that
//! holds nothing but the service has no `curl`.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Connecting, asking and each read may take this long.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most that is read of an answer.
const ANSWER: u64 = 4096;

/// Asks `http://{address}/healthz` of a process that runs.
///
/// # Errors
/// When it does not answer, or says that it does not serve; why, in its words.
pub(super) fn ask(address: SocketAddr) -> Result<(), String> {
    let answer = fetch(address).map_err(|error| format!("{address} does not answer: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    let said = if body.trim().is_empty() { head.lines().next().unwrap_or_default() } else { body };
    Err(format!("{address}: {}", said.trim()))
}

fn fetch(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            assert!(request.starts_with(b"GET /healthz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn only_one_that_serves_is_healthy() {
        let serving = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";
        assert_eq!(ask(answering(serving)), Ok(()));
        let held = "HTTP/1.1 503 Service Unavailable\r\n\r\nnot serving: database\n";
        assert!(ask(answering(held)).unwrap_err().ends_with(": not serving: database"));
        assert!(ask(answering("HTTP/1.1 404 Not Found\r\n\r\n")).is_err());
        assert!(ask(answering("")).is_err());
    }

    #[test]
    fn one_that_is_away_is_named() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ask(free).unwrap_err().contains("does not answer"));
    }
}
