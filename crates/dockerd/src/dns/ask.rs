//! Handing a question on: to one upstream after the other, until one answers.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::question::{Question, code};
use super::servers::Servers;
use super::{Transport, Upstreams, tcp};

/// How long one upstream is waited for while there are others.
const ONE: Duration = Duration::from_secs(2);
/// How long a question is worked on; less than the five seconds after which
/// C libraries ask again.
const ALL: Duration = Duration::from_millis(4_500);
/// The very same message this often at a time is a question that goes round.
const SAME: u8 = 4;
/// Answers that say that another server may know better.
const SERVFAIL: u8 = 2;
/// As above.
const NOTIMP: u8 = 4;
/// As above.
const REFUSED: u8 = 5;

/// Asks upstreams.
#[derive(Debug)]
pub(super) struct Asker {
    servers: Servers,
    /// How often each message is being asked.
    asking: Mutex<HashMap<u64, u8>>,
}

impl Asker {
    pub(super) fn new(upstreams: Upstreams, own: Vec<SocketAddr>) -> Self {
        Self::of(Servers::new(upstreams, own))
    }

    pub(super) fn of(servers: Servers) -> Self {
        Self { servers, asking: Mutex::default() }
    }

    /// The first good answer, or the first one at all; `None` when nobody
    /// answered in time, or the question goes round.
    pub(super) async fn ask(&self, question: &Question<'_>, by: Transport) -> Option<Vec<u8>> {
        let Some(_once) = self.once(question.message) else {
            tracing::debug!("a question goes round: an upstream asks us again");
            return None;
        };
        let deadline = Instant::now() + ALL;
        let servers = self.servers.now().await;
        let mut poor = None;
        for (index, server) in servers.iter().enumerate() {
            let last = index + 1 == servers.len();
            let until = if last { deadline } else { deadline.min(Instant::now() + ONE) };
            let asked = match by {
                Transport::Udp => timeout_at(until, by_udp(question, *server)).await,
                Transport::Tcp => timeout_at(until, by_tcp(question, *server)).await,
            };
            match asked {
                Ok(Ok(answer)) => {
                    self.servers.answered(*server);
                    if !matches!(code(&answer), SERVFAIL | NOTIMP | REFUSED) {
                        return Some(answer);
                    }
                    poor.get_or_insert(answer);
                }
                Ok(Err(error)) => {
                    tracing::debug!(%server, %error, "an upstream cannot be asked");
                    self.servers.was_silent(*server);
                }
                Err(_) => {
                    tracing::debug!(%server, "an upstream does not answer");
                    self.servers.was_silent(*server);
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        poor
    }

    fn once(&self, message: &[u8]) -> Option<Once<'_>> {
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        let key = hasher.finish();
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let times = asking.entry(key).or_insert(0);
        if *times >= SAME {
            return None;
        }
        *times += 1;
        Some(Once { asking: &self.asking, key })
    }
}

/// A message that is being asked.
struct Once<'a> {
    asking: &'a Mutex<HashMap<u64, u8>>,
    key: u64,
}

impl Drop for Once<'_> {
    fn drop(&mut self) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        match asking.get_mut(&self.key) {
            Some(times) if *times > 1 => *times -= 1,
            _ => {
                asking.remove(&self.key);
            }
        }
    }
}

/// A socket of its own for each question: a port that nobody can guess.
async fn by_udp(question: &Question<'_>, server: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(any_port(server)).await?;
    socket.connect(server).await?;
    socket.send(question.message).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is no answer to this is forged, or late.
        if question.answered_by(&buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

/// Where to ask from: any port, of the address that leads there.
pub(super) fn any_port(server: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

async fn by_tcp(question: &Question<'_>, server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = timeout(ONE, TcpStream::connect(server)).await??;
    stream.set_nodelay(true)?;
    tcp::write(&mut stream, question.message).await?;
    let answer = tcp::read(&mut stream, usize::from(u16::MAX)).await?;
    match answer {
        Some(answer) if question.answered_by(&answer) => Ok(answer),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no answer to what was asked")),
    }
}
