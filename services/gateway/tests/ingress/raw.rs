//! Both ends of the ingress as sockets: what goes over them is written out.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::rig::{KEY, Rig};

/// Long enough for anything that happens at all.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// The sandbox of most tests, and its port.
pub(super) const HOST: &str = "8080--box.localhost";

/// One end of a connection.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub(super) async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
    }

    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        self.unread.reserve(16 * 1024);
        let read = self.stream.read_buf(&mut self.unread);
        timeout(SOON, read).await.expect("bytes come").unwrap() > 0
    }

    /// Reads up to and with `end`.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            let at = self.unread.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = at {
                let rest = self.unread.split_off(at + end.len());
                let read = std::mem::replace(&mut self.unread, rest);
                return String::from_utf8(read).unwrap();
            }
            assert!(
                self.more().await,
                "no {end:?}, but {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }

    /// A head, as it came.
    pub(super) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    pub(super) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            assert!(self.more().await, "{} of {length}", self.unread.len());
        }
        let rest = self.unread.split_off(length);
        std::mem::replace(&mut self.unread, rest)
    }

    /// All that comes until the other side ends; an error where it breaks.
    pub(super) async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        timeout(SOON, self.stream.read_to_end(&mut self.unread)).await.expect("it ends")?;
        Ok(std::mem::take(&mut self.unread))
    }

    /// A head and a body whose length it says.
    pub(super) async fn answer(&mut self) -> (u16, String, String) {
        let head = self.head().await.to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = match header(&head, "content-length") {
            Some(length) => self.exactly(length.parse().unwrap()).await,
            None if header(&head, "transfer-encoding") == Some("chunked") => self.chunked().await,
            None => Vec::new(),
        };
        (status, head, String::from_utf8(body).unwrap())
    }

    pub(super) async fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.until("\r\n").await;
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            if length == 0 {
                self.until("\r\n").await;
                return body;
            }
            body.extend(self.exactly(length).await);
            self.exactly(2).await;
        }
    }

    /// Whether the other side is gone, by an end or a break.
    pub(super) async fn gone(&mut self) -> bool {
        let mut buffer = [0; 1024];
        let ended = async {
            loop {
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        timeout(SOON, ended).await.is_ok()
    }
}

/// The value of a header of a head in lower case.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let head = head.lines().skip(1);
    head.filter_map(|line| line.split_once(": ")).find(|(its, _)| *its == name).map(|(_, v)| v)
}

/// A client of the gateway without TLS.
pub(super) async fn client(rig: &Rig) -> Wire {
    Wire::new(TcpStream::connect(rig.plaintext()).await.unwrap())
}

/// The head of a request with a good key, without its last line.
pub(super) fn head(start: &str) -> String {
    format!("{start} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {KEY}\r\n")
}

pub(super) fn get(path: &str) -> String {
    head(&format!("GET {path}")) + "\r\n"
}

/// A target of the tests: each connection is a task.
pub(super) async fn target<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(Wire) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(Wire::new(stream)));
        }
    });
    address
}

/// A rig with one target, at port 8080 of `box`.
pub(super) async fn rig<F, Fut>(serve: F) -> Rig
where
    F: Fn(Wire) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let rig = Rig::new().await;
    rig.sandboxes().listen("box", 8080, target(serve).await);
    rig
}

/// Answers every request with its head, as the target saw it, and its body.
pub(super) async fn mirror(mut wire: Wire) {
    loop {
        let mut first = [0; 1];
        if wire.unread.is_empty() && !matches!(wire.stream.peek(&mut first).await, Ok(1)) {
            return;
        }
        let head = wire.head().await;
        let lower = head.to_ascii_lowercase();
        let body = match header(&lower, "content-length") {
            Some(length) => wire.exactly(length.parse().unwrap()).await,
            None if lower.contains("\r\ntransfer-encoding: chunked\r\n") => wire.chunked().await,
            None => Vec::new(),
        };
        let seen = format!("{head}{}", String::from_utf8(body).unwrap());
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{seen}", seen.len())).await;
    }
}

/// A client of the gateway over TLS. What comes of it is bytes in between.
pub(super) async fn tls(rig: &Rig) -> Wire {
    let address = rig.addresses.listen;
    let roots = std::fs::read(rig.ca.roots()).unwrap();
    let (near, far) = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    };
    let mut store = rustls::RootCertStore::empty();
    let certificates = rustls::pki_types::CertificateDer::pem_slice_iter(&roots);
    store.add_parsable_certificates(certificates.map(Result::unwrap));
    let config =
        rustls::ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut secure = connector.connect(name, tcp).await.unwrap();
    tokio::spawn(async move {
        let mut far = far;
        let _ = tokio::io::copy_bidirectional(&mut far, &mut secure).await;
    });
    Wire::new(near)
}
