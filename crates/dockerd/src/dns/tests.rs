//! The forwarder with real sockets on the loopback.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

/// Generous: what does not come within this does not come.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

/// A resolver that knows one name that no other does, and a large one.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    seen: Arc<std::sync::Mutex<Vec<Vec<u8>>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

const SPLIT: &str = "git.corp.example.";
const LARGE: &str = "large.corp.example.";
const BROKEN: &str = "broken.corp.example.";

fn upstream_answer(message: &[u8], tcp: bool, knows: Ipv4Addr) -> Vec<u8> {
    let asked = Message::from_vec(message).unwrap();
    let query = asked.queries[0].clone();
    let name = query.name().to_ascii().to_ascii_lowercase();
    let mut answer = Message::response(asked.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    if name == SPLIT {
        answer.add_answer(Record::from_rdata(query.name().clone(), 60, RData::A(A(knows))));
    } else if name == LARGE && tcp {
        for part in 0..40 {
            let text = RData::TXT(TXT::new(vec![format!("{part}{}", "x".repeat(200))]));
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, text));
        }
    } else if name == LARGE {
        answer.metadata.truncation = true;
    } else if name == BROKEN {
        answer.metadata.response_code = ResponseCode::ServFail;
    } else {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer.to_vec().unwrap()
}

async fn upstream_at(address: SocketAddr, knows: Ipv4Addr) -> Upstream {
    let (udp, tcp) = both(address).unwrap();
    let address = udp.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (udp_asked, udp_seen, tcp_asked) = (asked.clone(), seen.clone(), asked.clone());
    let by_udp = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            udp_asked.fetch_add(1, Ordering::SeqCst);
            udp_seen.lock().unwrap().push(buffer[..length].to_vec());
            let answer = upstream_answer(&buffer[..length], false, knows);
            udp.send_to(&answer, from).await.unwrap();
        }
    });
    let by_tcp = tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            tcp_asked.fetch_add(1, Ordering::SeqCst);
            let message = super::tcp::read(&mut stream, 65_535).await.unwrap().unwrap();
            super::tcp::write(&mut stream, &upstream_answer(&message, true, knows)).await.unwrap();
        }
    });
    Upstream { address, asked, seen, tasks: vec![by_udp, by_tcp] }
}

async fn upstream(knows: [u8; 4]) -> Upstream {
    upstream_at(LOOPBACK, Ipv4Addr::from(knows)).await
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(forwarder: Forwarder) -> Running {
    let (address, stop) = (forwarder.local_addrs()[0], CancellationToken::new());
    let task = tokio::spawn(forwarder.serve(stop.clone()));
    Running { address, stop, task }
}

fn names() -> BTreeMap<String, Ipv4Addr> {
    [("Wolfpack.Internal.".to_owned(), Ipv4Addr::new(172, 20, 0, 1))].into()
}

async fn forwarder(upstreams: &[SocketAddr]) -> Running {
    let config =
        ForwarderConfig { upstreams: Upstreams::Fixed(upstreams.to_vec()), names: names() };
    run(Forwarder::bind(&[LOOPBACK], config).await.unwrap()).await
}

async fn by_udp(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(message).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    buffer
}

async fn by_tcp(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    super::tcp::write(&mut stream, message).await.unwrap();
    let answer = super::tcp::read(&mut stream, 65_535);
    tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap()
}

fn address(answer: &[u8]) -> Option<Ipv4Addr> {
    let answer = Message::from_vec(answer).unwrap();
    answer.answers.first().and_then(|record| match &record.data {
        RData::A(address) => Some(address.0),
        _ => None,
    })
}

/// An address that takes questions and never answers.
async fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_name_that_only_the_upstream_knows_is_answered_byte_for_byte() {
    let upstream = upstream([10, 9, 8, 7]).await;
    let running = forwarder(&[upstream.address]).await;
    // With EDNS and mixed case, as resolvers send it.
    let mut asked = Message::from_vec(&question(7, "GiT.corp.EXAMPLE.", RecordType::A)).unwrap();
    asked.set_edns(Edns::new());
    let asked = asked.to_vec().unwrap();
    let answer = by_udp(running.address, &asked).await;
    assert_eq!(address(&answer), Some(Ipv4Addr::new(10, 9, 8, 7)));
    assert_eq!(answer, upstream_answer(&asked, false, Ipv4Addr::new(10, 9, 8, 7)));
    assert_eq!(*upstream.seen.lock().unwrap(), [asked]);
    let said = lookup(running.address, "git.corp.example", PATIENCE).await.unwrap();
    assert_eq!(said, Said { code: 0, addresses: vec![Ipv4Addr::new(10, 9, 8, 7)] });
    let unknown = lookup(running.address, "nobody.example", PATIENCE).await.unwrap();
    assert_eq!((unknown.code, unknown.addresses), (3, Vec::new()));
}

#[tokio::test]
async fn its_own_names_are_answered_here_and_never_asked_for_elsewhere() {
    let upstream = upstream([10, 9, 8, 7]).await;
    let running = forwarder(&[upstream.address]).await;
    let own = by_udp(running.address, &question(1, "WOLFPACK.internal.", RecordType::A)).await;
    assert_eq!(address(&own), Some(Ipv4Addr::new(172, 20, 0, 1)));
    let read = Message::from_vec(&own).unwrap();
    assert_eq!(read.metadata.id, 1);
    assert_eq!(read.queries[0].name().to_ascii(), "WOLFPACK.internal.", "its case is kept");
    for kind in [RecordType::AAAA, RecordType::MX, RecordType::HTTPS] {
        let other = by_tcp(running.address, &question(2, "wolfpack.internal.", kind)).await;
        let other = Message::from_vec(&other).unwrap();
        assert_eq!(other.metadata.response_code, ResponseCode::NoError);
        assert!(other.answers.is_empty(), "{kind}");
    }
    let mut edns = Message::from_vec(&question(3, "wolfpack.internal.", RecordType::A)).unwrap();
    edns.set_edns(Edns::new());
    let with = by_udp(running.address, &edns.to_vec().unwrap()).await;
    assert!(Message::from_vec(&with).unwrap().edns.is_some());
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_large_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let upstream = upstream([10, 9, 8, 7]).await;
    let running = forwarder(&[upstream.address]).await;
    let asked = question(5, LARGE, RecordType::TXT);
    let short = Message::from_vec(&by_udp(running.address, &asked).await).unwrap();
    assert!(short.metadata.truncation && short.answers.is_empty());
    let whole = by_tcp(running.address, &asked).await;
    assert!(whole.len() > 8_000, "{}", whole.len());
    assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 40);
    // Several questions on one connection.
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for id in 0..5 {
        super::tcp::write(&mut stream, &question(id, SPLIT, RecordType::A)).await.unwrap();
        let answer = super::tcp::read(&mut stream, 65_535).await.unwrap().unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().metadata.id, id);
    }
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over_and_used_again_when_it_is_back() {
    let second = upstream([10, 0, 0, 2]).await;
    // A port where nobody is: refused at once.
    let (socket, gone) = silent().await;
    drop(socket);
    let running = forwarder(&[gone, second.address]).await;
    let asked = question(9, SPLIT, RecordType::A);
    let answer = by_udp(running.address, &asked).await;
    assert_eq!(address(&answer), Some(Ipv4Addr::new(10, 0, 0, 2)));
    let answer = by_tcp(running.address, &asked).await;
    assert_eq!(address(&answer), Some(Ipv4Addr::new(10, 0, 0, 2)));

    let back = upstream_at(gone, Ipv4Addr::new(10, 0, 0, 1)).await;
    let until = tokio::time::Instant::now() + PATIENCE;
    while back.asked.load(Ordering::SeqCst) == 0 {
        assert!(tokio::time::Instant::now() < until, "the first upstream is never used again");
        by_udp(running.address, &asked).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let answer = by_udp(running.address, &asked).await;
    assert_eq!(address(&answer), Some(Ipv4Addr::new(10, 0, 0, 1)));
}

#[tokio::test]
async fn a_silent_upstream_costs_one_wait_and_all_silent_is_servfail() {
    let (_socket, mute) = silent().await;
    let good = upstream([10, 0, 0, 3]).await;
    let running = forwarder(&[mute, good.address]).await;
    let asked = question(11, SPLIT, RecordType::A);
    assert_eq!(address(&by_udp(running.address, &asked).await), Some(Ipv4Addr::new(10, 0, 0, 3)));

    let (_other, mute_too) = silent().await;
    let hopeless = forwarder(&[mute, mute_too]).await;
    let answer = Message::from_vec(&by_udp(hopeless.address, &asked).await).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(answer.metadata.id, 11);
    // Its own names do not need anybody.
    let own = by_udp(hopeless.address, &question(1, "wolfpack.internal.", RecordType::A)).await;
    assert_eq!(address(&own), Some(Ipv4Addr::new(172, 20, 0, 1)));
    let nobody = forwarder(&[]).await;
    let answer = Message::from_vec(&by_udp(nobody.address, &asked).await).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_server_failure_is_asked_elsewhere_and_passed_on_when_all_fail() {
    let (first, second) = (upstream([10, 0, 0, 1]).await, upstream([10, 0, 0, 2]).await);
    let running = forwarder(&[first.address, second.address]).await;
    let answer = by_udp(running.address, &question(13, BROKEN, RecordType::A)).await;
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
    assert_eq!(first.asked.load(Ordering::SeqCst), 1);
    assert_eq!(second.asked.load(Ordering::SeqCst), 1);
    // That a name does not exist is an answer.
    by_udp(running.address, &question(14, "nobody.example.", RecordType::A)).await;
    assert_eq!(second.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_no_question_harms_nobody() {
    let upstream = upstream([10, 0, 0, 4]).await;
    let running = forwarder(&[upstream.address]).await;
    let good = question(21, SPLIT, RecordType::A);
    let mut answer_like = good.clone();
    answer_like[2] |= 0x80;
    let mut endless = good.clone();
    // A name that points at itself.
    endless.splice(12.., [0xc0, 12, 0, 1, 0, 1]);
    let mut update = good.clone();
    update[2] = 5 << 3;
    let mut two = good.clone();
    two[5] = 2;
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    for noise in [&[][..], &[1], &good[..11], &answer_like, &[0xff; 4_096], &vec![0; 60_000]] {
        socket.send_to(noise, running.address).await.unwrap();
    }
    let refused = |answer: Vec<u8>| Message::from_vec(&answer).unwrap().metadata.response_code;
    for odd in [&endless, &two, &good[..good.len() - 3].to_vec()] {
        assert_eq!(refused(by_udp(running.address, odd).await), ResponseCode::FormErr);
    }
    assert_eq!(refused(by_udp(running.address, &update).await), ResponseCode::NotImp);
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 0, "none of it went on");
    // Half a length, a length without a message, too long a message.
    for half in [&[0][..], &[0, 200, 1], &[0xff, 0xff]] {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(half).await.unwrap();
    }
    assert_eq!(address(&by_udp(running.address, &good).await), Some(Ipv4Addr::new(10, 0, 0, 4)));
    assert_eq!(address(&by_tcp(running.address, &good).await), Some(Ipv4Addr::new(10, 0, 0, 4)));
}

#[tokio::test]
async fn an_answer_to_another_question_is_not_taken() {
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    let upstream = socket.local_addr().unwrap();
    let running = forwarder(&[upstream]).await;
    let asked = question(31, SPLIT, RecordType::A);
    let forger = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let asked = buffer[..length].to_vec();
        let wrong_name = upstream_answer(
            &question(31, "git.corp.exampld.", RecordType::A),
            false,
            Ipv4Addr::new(6, 6, 6, 6),
        );
        let mut wrong_id = upstream_answer(&asked, false, Ipv4Addr::new(6, 6, 6, 6));
        wrong_id[0] ^= 1;
        let right = upstream_answer(&asked, false, Ipv4Addr::new(10, 1, 1, 1));
        for answer in [wrong_name, wrong_id, asked, vec![0; 3], right] {
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    let answer = by_udp(running.address, &asked).await;
    assert_eq!(address(&answer), Some(Ipv4Addr::new(10, 1, 1, 1)));
    forger.await.unwrap();
}

#[tokio::test]
async fn questions_do_not_go_round() {
    // Its own address among the upstreams is left out.
    let (udp, _tcp) = both(LOOPBACK).unwrap();
    let own = udp.local_addr().unwrap();
    drop((udp, _tcp));
    let config = ForwarderConfig { upstreams: Upstreams::Fixed(vec![own]), names: names() };
    let alone = run(Forwarder::bind(&[own], config).await.unwrap()).await;
    let answer = by_udp(alone.address, &question(41, SPLIT, RecordType::A)).await;
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);

    // Two that ask each other: few rounds, then it fails, and both live on.
    let (first, _a) = both(LOOPBACK).unwrap();
    let (second, _b) = both(LOOPBACK).unwrap();
    let (a, b) = (first.local_addr().unwrap(), second.local_addr().unwrap());
    drop((first, second, _a, _b));
    let towards = |to| ForwarderConfig { upstreams: Upstreams::Fixed(vec![to]), names: names() };
    let one = run(Forwarder::bind(&[a], towards(b)).await.unwrap()).await;
    let _other = run(Forwarder::bind(&[b], towards(a)).await.unwrap()).await;
    let answer = by_udp(one.address, &question(42, SPLIT, RecordType::A)).await;
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
    let own = by_udp(one.address, &question(43, "wolfpack.internal.", RecordType::A)).await;
    assert_eq!(address(&own), Some(Ipv4Addr::new(172, 20, 0, 1)));
}

#[tokio::test]
async fn resolv_conf_is_read_again_when_it_changes() {
    let first = upstream([10, 0, 0, 1]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, "# nobody yet\n").unwrap();
    let servers = servers::Servers::of_file(file.clone(), first.address.port());
    let config = ForwarderConfig { upstreams: Upstreams::Fixed(Vec::new()), names: names() };
    let mut forwarder = Forwarder::bind(&[LOOPBACK], config).await.unwrap();
    forwarder.shared.asker = Arc::new(Asker::of(servers));
    let running = run(forwarder).await;
    let asked = question(51, SPLIT, RecordType::A);
    let nobody = by_udp(running.address, &asked).await;
    assert_eq!(Message::from_vec(&nobody).unwrap().metadata.response_code, ResponseCode::ServFail);

    // In place, as engines do; later by another file put over it; then gone.
    std::fs::write(&file, "search corp.example\nnameserver 127.0.0.1\n").unwrap();
    let until = tokio::time::Instant::now() + PATIENCE;
    while address(&by_udp(running.address, &asked).await) != Some(Ipv4Addr::new(10, 0, 0, 1)) {
        assert!(tokio::time::Instant::now() < until, "the change is never seen");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    std::fs::remove_file(&file).unwrap();
    // The next question looks again, and finds nothing.
    tokio::time::sleep(servers::LOOK + Duration::from_millis(50)).await;
    let still = by_udp(running.address, &asked).await;
    assert_eq!(address(&still), Some(Ipv4Addr::new(10, 0, 0, 1)));
}

#[tokio::test]
async fn it_never_listens_on_all_addresses_and_stops_when_told() {
    let config = ForwarderConfig { upstreams: Upstreams::Fixed(Vec::new()), names: names() };
    for all in ["0.0.0.0:0", "[::]:0", "224.0.0.251:0"] {
        let error = Forwarder::bind(&[all.parse().unwrap()], config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{all}");
    }
    // An address that is not here yet: a bridge may be made later.
    let later: SocketAddr = "192.0.2.77:0".parse().unwrap();
    Forwarder::bind(&[later], config.clone()).await.unwrap();
    let mut running = run(Forwarder::bind(&[LOOPBACK], config.clone()).await.unwrap()).await;
    let taken = Forwarder::bind(&[running.address], config).await.unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    assert!(taken.to_string().contains(&running.address.to_string()), "{taken}");
    running.stop.cancel();
    tokio::time::timeout(PATIENCE, &mut running.task).await.unwrap().unwrap();
    assert!(TcpListener::bind(running.address).await.is_ok(), "its port is free again");
}
