//! One question to one server, to see whether it answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The response code: 0 is NOERROR, 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    pub code: u16,
    /// The IPv4 addresses of the name.
    pub addresses: Vec<Ipv4Addr>,
}

/// Asks one server for the IPv4 addresses of a name, once, over UDP.
///
/// # Errors
/// When the name is none, the server cannot be reached, or does not answer
/// within `deadline`.
pub async fn lookup(server: SocketAddr, name: &str, deadline: Duration) -> io::Result<Said> {
    let odd = |error| io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?}: {error}"));
    let mut name = Name::from_ascii(name).map_err(odd)?;
    name.set_fqdn(true);
    let id = rand::random();
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, RecordType::A));
    let question = question.to_vec().map_err(io::Error::other)?;
    let socket = UdpSocket::bind(super::ask::any_port(server)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let receive = async {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let answer = Message::from_vec(&buffer[..length]);
            if let Ok(answer) = answer.map_err(|error| tracing::debug!(%error, "no DNS message"))
                && answer.metadata.id == id
                && answer.metadata.message_type == MessageType::Response
            {
                let addresses = answer.answers.iter().filter_map(|record| match &record.data {
                    RData::A(address) => Some(address.0),
                    _ => None,
                });
                let code = u16::from(answer.metadata.response_code);
                return Ok(Said { code, addresses: addresses.collect() });
            }
        }
    };
    timeout(deadline, receive).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {deadline:?}")))
    })
}
