use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const WORDS: Words = Words { of: "wolf", setting: "targets.tcp" };

/// Gives another answer each time, the last one for ever.
#[derive(Clone, Default)]
struct Flips {
    answers: Arc<Vec<Vec<IpAddr>>>,
    asked: Arc<AtomicUsize>,
}

impl Flips {
    fn new(answers: &[&str]) -> Self {
        let read = |answer: &&str| answer.split(' ').map(|ip| ip.parse().unwrap()).collect();
        Self { answers: Arc::new(answers.iter().map(read).collect()), asked: Arc::default() }
    }
}

#[async_trait]
impl Resolve for Flips {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let at = self.asked.fetch_add(1, Ordering::SeqCst);
        let last = self.answers.last().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.answers.get(at).unwrap_or(last).clone())
    }
}

fn peer(caller: &str) -> TunnelPeer {
    TunnelPeer {
        caller: caller.to_owned(),
        connection_id: "c".into(),
        traceparent: String::new(),
        target: String::new(),
    }
}

fn loopback(ports: &[&str]) -> TcpPolicy {
    let loopback = ports.iter().map(|port| port.parse().unwrap()).collect();
    TcpPolicy { loopback, ..TcpPolicy::default() }
}

/// Port 9 leads to `port` of a name.
fn named(port: u16, own: bool) -> TcpPolicy {
    let host = Host { name: "flips.example".into(), port: NonZeroU16::new(port).unwrap(), own };
    TcpPolicy { hosts: [(NonZeroU16::new(9).unwrap(), host)].into(), ..TcpPolicy::default() }
}

fn targets(policy: TcpPolicy, most: usize, names: Flips) -> TcpTargets {
    TcpTargets::new(policy, WORDS, most).resolved_by(names)
}

async fn dial(targets: &TcpTargets, target: &str, caller: &str) -> Result<TargetStream, Fault> {
    targets.dial(&Target::parse(target).unwrap(), &peer(caller)).await
}

async fn refusal(targets: &TcpTargets, target: &str) -> Fault {
    dial(targets, target, "users/a").await.unwrap_err()
}

/// Something that names itself to whoever comes.
async fn speaker(
    address: SocketAddr,
    word: &'static [u8],
) -> io::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let came = Arc::new(AtomicUsize::new(0));
    let counting = came.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            counting.fetch_add(1, Ordering::SeqCst);
            let _ = socket.write_all(word).await;
        }
    });
    Ok((address, came))
}

async fn word(stream: TargetStream) -> Vec<u8> {
    let TargetStream { mut reader, .. } = stream;
    let mut read = Vec::new();
    reader.read_to_end(&mut read).await.unwrap();
    read
}

#[tokio::test]
async fn only_ports_of_the_policy_are_dialed_and_the_default_is_none() {
    let (here, came) = speaker("127.0.0.1:0".parse().unwrap(), b"here").await.unwrap();
    let target = format!("tcp:{}", here.port());
    let none = targets(TcpPolicy::default(), 8, Flips::default());
    let fault = refusal(&none, &target).await;
    assert_eq!(fault.reason, Reason::TargetForbidden);
    assert!(fault.message.contains("targets.tcp"), "{fault}");
    for odd in ["tcp:0", "tcp:65536", "tcp:http", "tcp:022"] {
        let all = targets(loopback(&["1-65535"]), 8, Flips::default());
        assert_eq!(refusal(&all, odd).await.reason, Reason::TargetForbidden, "{odd}");
    }
    assert_eq!(came.load(Ordering::SeqCst), 0, "nothing was dialed");

    let port = here.port().to_string();
    let one = targets(loopback(&[&port]), 8, Flips::default());
    for caller in ["users/a", "services/sandbox-manager", "links/a:80", "exposures/a"] {
        let stream = dial(&one, &target, caller).await.unwrap();
        assert_eq!(word(stream).await, b"here", "{caller}");
    }
    for caller in ["sandboxes/a", "wolves/a", "anonymous", ""] {
        let fault = dial(&one, &target, caller).await.unwrap_err();
        assert_eq!(fault.reason, Reason::TargetForbidden, "{caller}");
    }
    assert_eq!(came.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn what_listens_on_the_other_loopback_is_found_and_what_does_not_listen_is_told() {
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let all = targets(loopback(&["1-65535"]), 8, Flips::default());
    let fault = refusal(&all, &format!("tcp:{free}")).await;
    assert_eq!(fault.reason, Reason::TargetUnreachable);
    assert!(
        fault.message.contains("nothing listens") && fault.message.contains("start"),
        "{fault}"
    );
    // A machine without IPv6 has no other loopback.
    if let Ok((six, _)) = speaker("[::1]:0".parse().unwrap(), b"six").await {
        let stream = dial(&all, &format!("tcp:{}", six.port()), "users/a").await.unwrap();
        assert_eq!(word(stream).await, b"six");
    }
}

#[tokio::test]
async fn a_name_that_changes_its_mind_after_the_check_gains_nothing() {
    let (good, good_came) = speaker("127.0.0.1:0".parse().unwrap(), b"good").await.unwrap();
    // Linux has all of 127.0.0.0/8; two hosts with one port.
    let evil = SocketAddr::new("127.0.0.2".parse().unwrap(), good.port());
    let (_, evil_came) = speaker(evil, b"evil").await.unwrap();

    // Checked as the good one, then another: the checked one is dialed.
    let flips = Flips::new(&["127.0.0.1", "127.0.0.2"]);
    let tcp = targets(named(good.port(), true), 8, flips.clone());
    let stream = dial(&tcp, "tcp:9", "users/a").await.unwrap();
    assert_eq!(word(stream).await, b"good");
    assert_eq!(flips.asked.load(Ordering::SeqCst), 1, "it is asked once for a dial");
    assert_eq!(evil_came.load(Ordering::SeqCst), 0);

    // Checked as one that is denied, then a good one: refused, nothing dialed.
    for first in ["169.254.169.254", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"] {
        let flips = Flips::new(&[first, "127.0.0.1"]);
        let tcp = targets(named(good.port(), true), 8, flips.clone());
        let fault = refusal(&tcp, "tcp:9").await;
        assert_eq!(fault.reason, Reason::TargetForbidden, "{first}");
        assert_eq!(flips.asked.load(Ordering::SeqCst), 1, "{first}");
    }
    // Loopback by a name that does not mean it, alone and among others.
    let tcp = targets(named(good.port(), false), 8, Flips::new(&["127.0.0.1"]));
    let fault = refusal(&tcp, "tcp:9").await;
    assert_eq!(fault.reason, Reason::TargetForbidden);
    assert!(fault.message.contains("loopback") && fault.message.contains("targets.tcp"), "{fault}");
    assert_eq!(good_came.load(Ordering::SeqCst), 1, "only the first was dialed");

    // A denied address among good ones is passed over.
    let mixed = Flips::new(&["169.254.169.254 127.0.0.1"]);
    let tcp = targets(named(good.port(), true), 8, mixed);
    assert_eq!(word(dial(&tcp, "tcp:9", "users/a").await.unwrap()).await, b"good");
}

#[tokio::test]
async fn a_name_without_an_address_is_unreachable() {
    let tcp = targets(named(1, false), 8, Flips::default());
    let fault = refusal(&tcp, "tcp:9").await;
    assert_eq!(fault.reason, Reason::TargetUnreachable);
    assert!(fault.message.contains("flips.example has no address"), "{fault}");
    // Only that port leads there.
    assert_eq!(refusal(&tcp, "tcp:1").await.reason, Reason::TargetForbidden);
}

#[tokio::test]
async fn connections_are_bounded_and_given_back() {
    let (here, _) = speaker("127.0.0.1:0".parse().unwrap(), b"").await.unwrap();
    let tcp = targets(loopback(&["1-65535"]), 2, Flips::default());
    let target = format!("tcp:{}", here.port());
    let first = dial(&tcp, &target, "users/a").await.unwrap();
    let _second = dial(&tcp, &target, "users/a").await.unwrap();
    let fault = refusal(&tcp, &target).await;
    assert_eq!(fault.reason, Reason::DialsLimited);
    // Half of it still is a connection.
    let TargetStream { reader, writer } = first;
    drop(writer);
    assert_eq!(refusal(&tcp, &target).await.reason, Reason::DialsLimited);
    drop(reader);
    let third = tokio::time::timeout(Duration::from_secs(20), dial(&tcp, &target, "services/x"));
    third.await.unwrap().unwrap();
}
