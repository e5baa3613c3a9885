//! A DNS forwarder for the containers of an engine. Where an engine is inside
//! a container, the resolver of that container (127.0.0.11, 127.0.0.53) is out
//! of reach for the containers inside; this one listens on the bridge and hands
//! their questions on, byte for byte, so that names which only the resolvers
//! around know (split horizon) are known everywhere.

mod ask;
mod limit;
mod lookup;
mod question;
mod servers;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use ask::Asker;
use limit::Limit;
pub use lookup::{Said, lookup};
use question::{Names, Question, Read};

/// Questions that are being answered at a time, in all and for one container.
const UDP_LIMIT: (usize, usize) = (512, 64);
/// Connections at a time, in all and from one container.
const TCP_LIMIT: (usize, usize) = (128, 16);
/// How often a free port is looked for that both transports have.
const PORT_TRIES: u8 = 16;

/// Where questions are handed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// The nameservers of this file, port 53; read again when it changes.
    ResolvConf(PathBuf),
    /// These, in order.
    Fixed(Vec<SocketAddr>),
}

/// What a [`Forwarder`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwarderConfig {
    /// Where questions are handed on to. Its own addresses are left out.
    pub upstreams: Upstreams,
    /// Names that are answered here, whatever their case: their address, and
    /// nothing for every other type.
    pub names: BTreeMap<String, Ipv4Addr>,
}

/// Answers questions over UDP and TCP. What is not its own is handed on to the
/// first upstream that answers, and the answer handed back unchanged; a
/// truncated one too, so that the asker comes again by TCP.
///
/// An upstream that does not answer within two seconds is asked last for the
/// next five; one that answers SERVFAIL or REFUSED is passed over where another
/// knows better. When none answers within four and a half seconds the answer is
/// SERVFAIL. At most 512 questions (64 of one address) and 128 connections (16)
/// are held; more are dropped.
#[derive(Debug)]
pub struct Forwarder {
    sockets: Vec<(UdpSocket, TcpListener)>,
    addresses: Vec<SocketAddr>,
    shared: Shared,
}

/// What every question needs.
#[derive(Debug, Clone)]
struct Shared {
    names: Arc<Names>,
    asker: Arc<Asker>,
    udp: Limit,
    tcp: Limit,
}

impl Forwarder {
    /// Listens on these addresses, UDP and TCP; port 0 is a free one, the same
    /// for both. An address need not be there yet: a bridge may come and go.
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// When an address is every address of the machine (it would answer for
    /// networks that are not ours), or is taken.
    pub async fn bind(addresses: &[SocketAddr], config: ForwarderConfig) -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(addresses.len());
        let mut bound = Vec::with_capacity(addresses.len());
        for address in addresses {
            if address.ip().is_unspecified() || address.ip().is_multicast() {
                let words = format!("{address} is no single address: give that of the bridge");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
            }
            let pair = both(*address).map_err(|error| {
                io::Error::new(error.kind(), format!("listen for DNS on {address}: {error}"))
            })?;
            bound.push(pair.0.local_addr()?);
            sockets.push(pair);
        }
        let asker = Asker::new(config.upstreams, bound.clone());
        let shared = Shared {
            names: Arc::new(Names::new(config.names)),
            asker: Arc::new(asker),
            udp: Limit::new(UDP_LIMIT),
            tcp: Limit::new(TCP_LIMIT),
        };
        Ok(Self { sockets, addresses: bound, shared })
    }

    /// The addresses it listens on, in the order they were given.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Answers until `stop`. What is being answered then is dropped, as it is
    /// when this future is.
    pub async fn serve(self, stop: CancellationToken) {
        let mut loops = JoinSet::new();
        for (udp, tcp) in self.sockets {
            loops.spawn(udp::serve(udp, self.shared.clone()));
            loops.spawn(tcp::serve(tcp, self.shared.clone()));
        }
        stop.cancelled().await;
        loops.shutdown().await;
    }
}

impl Shared {
    /// The answer to one message, if it is to have one.
    async fn answer(&self, message: &[u8], by: Transport) -> Option<Vec<u8>> {
        match question::read(message) {
            Read::Ignored => None,
            Read::Refused(answer) => Some(answer),
            Read::Question(question) => match self.names.answer(&question) {
                Some(answer) => Some(answer),
                None => Some(self.hand_on(&question, by).await),
            },
        }
    }

    async fn hand_on(&self, question: &Question<'_>, by: Transport) -> Vec<u8> {
        match self.asker.ask(question, by).await {
            Some(answer) => answer,
            None => question.failed(),
        }
    }
}

/// How a question came and is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// Both sockets of an address.
fn both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let udp = udp::socket(address)?;
        match tcp::listener(udp.local_addr()?) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            listener => return Ok((udp, listener?)),
        }
    }
}

#[cfg(test)]
mod tests;
