//! What is done inside a namespace, by the test itself run there again.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use wolfpack_dockerd::dns::{Forwarder, ForwarderConfig, Upstreams, lookup};
use wolfpack_dockerd::outer::Outer;

use super::namespaces::Namespaces;

/// The task of a test that is run again.
pub(crate) const TASK: &str = "WOLFPACK_NETNS_TASK";
/// A file to make when a task in the background is ready.
pub(crate) const READY: &str = "WOLFPACK_NETNS_READY";
/// The name that only the machine's resolver knows.
pub(crate) const SPLIT: &str = "git.corp.example";
/// Before what a task saw, among what the test runner prints.
const MARK: &str = "SEEN ";
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 7_001;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// What stands around.
    Read,
    /// Takes bytes, and sends as many back.
    Serve { on: IpAddr, bytes: usize },
    /// Sends bytes and takes as many.
    Fetch { from: IpAddr, bytes: usize },
    /// A resolver that knows one name.
    Resolver { on: SocketAddr },
    /// The forwarder.
    Forward { on: SocketAddr, resolv_conf: PathBuf },
    /// Asks a server for a name.
    Lookup { server: SocketAddr, name: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Seen {
    Outer(Outer),
    Moved(usize),
    Said(Result<Vec<IpAddr>, String>),
}

/// Whether this is a test that is run again.
pub(crate) fn asked() -> bool {
    std::env::var_os(TASK).is_some()
}

/// What a task said it saw.
pub(crate) fn answer(output: &str) -> Option<Seen> {
    let line = output.lines().find_map(|line| line.split_once(MARK))?.1;
    serde_json::from_str(line).ok()
}

/// Moves bytes both ways between a server at an address and a client.
pub(crate) fn transfer(spaces: &Namespaces, server: (&str, &str), client: &str, bytes: usize) {
    let on: IpAddr = server.1.parse().unwrap();
    let _serving = spaces.background(server.0, &Task::Serve { on, bytes });
    match spaces.inside(client, &Task::Fetch { from: on, bytes }) {
        Seen::Moved(moved) => assert_eq!(moved, bytes, "{client} to {on}"),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn run() {
    let task: Task = serde_json::from_str(&std::env::var(TASK).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seen = match task {
        Task::Read => Seen::Outer(runtime.block_on(Outer::read(Path::new("/"))).unwrap()),
        Task::Serve { on, bytes } => serve(on, bytes),
        Task::Fetch { from, bytes } => fetch(from, bytes),
        Task::Resolver { on } => resolve(on),
        Task::Forward { on, resolv_conf } => {
            let IpAddr::V4(bridge) = on.ip() else { panic!("{on}") };
            runtime.block_on(async {
                let config = ForwarderConfig {
                    upstreams: Upstreams::ResolvConf(resolv_conf),
                    names: [("wolfpack.internal".to_owned(), bridge)].into(),
                };
                let forwarder = Forwarder::bind(&[on], config).await.unwrap();
                ready();
                forwarder.serve(CancellationToken::new()).await;
            });
            return;
        }
        Task::Lookup { server, name } => {
            let said = runtime.block_on(lookup(server, &name, Duration::from_secs(8)));
            let said = said.map(|said| said.addresses.into_iter().map(IpAddr::V4).collect());
            Seen::Said(said.map_err(|error| error.to_string()))
        }
    };
    let line = format!("{MARK}{}\n", serde_json::to_string(&seen).unwrap());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

fn ready() {
    if let Some(file) = std::env::var_os(READY) {
        std::fs::write(file, "").unwrap();
    }
}

fn serve(on: IpAddr, bytes: usize) -> Seen {
    let listener = TcpListener::bind((on, PORT)).unwrap();
    ready();
    let (stream, _) = listener.accept().unwrap();
    Seen::Moved(both_ways(stream, bytes, false))
}

fn fetch(from: IpAddr, bytes: usize) -> Seen {
    let to = SocketAddr::new(from, PORT);
    Seen::Moved(both_ways(TcpStream::connect_timeout(&to, PATIENCE).unwrap(), bytes, true))
}

fn both_ways(mut stream: TcpStream, bytes: usize, first: bool) -> usize {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let sent = vec![b'w'; bytes];
    let mut received = vec![0; bytes];
    if first {
        stream.write_all(&sent).unwrap();
        stream.read_exact(&mut received).unwrap();
    } else {
        stream.read_exact(&mut received).unwrap();
        stream.write_all(&sent).unwrap();
    }
    received.iter().filter(|byte| **byte == b'w').count()
}

fn resolve(on: SocketAddr) -> Seen {
    let socket = UdpSocket::bind(on).unwrap();
    ready();
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        let asked = Message::from_vec(&buffer[..length]).unwrap();
        let query = asked.queries[0].clone();
        let mut answer = Message::response(asked.metadata.id, OpCode::Query);
        answer.add_query(query.clone());
        if query.name().to_ascii().trim_end_matches('.') == SPLIT {
            let address = RData::A(A(Ipv4Addr::new(10, 9, 8, 7)));
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, address));
        } else {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
    }
}
