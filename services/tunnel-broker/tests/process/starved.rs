//! A broker and an agent that are processes of their own, without a file
//! descriptor left: what is open lives on, and what waits is served once there
//! are some again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wolfpack_tunnel::TunnelStream;
use wolfpack_types::{Endpoint, Reason, WolfId};

use crate::agent::{AgentProcess, pid_of};
use crate::broker::Outside;
use crate::self_view::alone;
use crate::support::{Fleet, SOON, echo, target};

/// A process that gets no new file descriptor, until this is dropped. What it
/// has it keeps.
struct Starved {
    process: Pid,
    before: Rlimit,
}

impl Starved {
    fn now(process: Pid) -> Self {
        // The hard limit stays as it was inherited, or this could not be undone.
        let none = Rlimit { current: Some(0), ..getrlimit(Resource::Nofile) };
        Self { process, before: prlimit(Some(process), Resource::Nofile, none).unwrap() }
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        prlimit(Some(self.process), Resource::Nofile, self.before).unwrap();
    }
}

/// Processor time that a process has taken, in ticks of a hundredth of a second.
fn ticks(process: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap();
    // Behind the name, which may have anything in it: utime and stime.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn echoes(stream: &mut TunnelStream) {
    let there_and_back = async {
        stream.write_all(b"lives").await.unwrap();
        stream.read_exact(&mut [0; 5]).await.unwrap();
    };
    tokio::time::timeout(SOON, there_and_back).await.expect("it lives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_descriptors_carries_on_and_takes_in_who_waited() {
    let _alone = alone().await;
    let outside = Outside::new().await;
    let broker = outside.broker();
    let (wolf, newer) = (WolfId::new(), WolfId::new());
    let tcp = echo().await;
    let agent = |wolf| AgentProcess::start(wolf, &outside.identity(wolf), outside.agents, tcp);
    let _agent = agent(&wolf);
    outside.listening().await;
    let (endpoint, dialer) = (Endpoint::Wolf(wolf.clone()), outside.dialer());
    let mut open = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
    echoes(&mut open).await;

    let starved = Starved::now(pid_of(&broker));
    // The kernel takes them in, and the broker cannot.
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(TcpStream::connect(outside.agents).await.unwrap());
    }
    let _newer = agent(&newer);
    let (began, before) = (Instant::now(), ticks(pid_of(&broker)));
    while began.elapsed() < Duration::from_secs(2) {
        echoes(&mut open).await;
        // Nothing of what is open already needs one.
        let mut more = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
        echoes(&mut more).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let taken = ticks(pid_of(&broker)) - before;
    assert!(taken < 100, "{taken} of 200 ticks for trying to accept");
    let short = Duration::from_millis(500);
    let to_newer = Endpoint::Wolf(newer);
    let fault = dialer.dial(&to_newer, &target("port"), short).await.unwrap_err();
    assert_eq!(fault.reason, Reason::DialTimeout, "it cannot have come: {fault}");
    for socket in &waiting {
        let mut byte = [0; 1];
        let quiet = socket.try_read(&mut byte).unwrap_err();
        assert_eq!(quiet.kind(), std::io::ErrorKind::WouldBlock, "nobody took it in");
    }
    drop(starved);

    let mut stream = dialer.dial(&to_newer, &target("port"), SOON).await.unwrap();
    echoes(&mut stream).await;
    for mut socket in waiting {
        // They are told to speak TLS.
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let answered = tokio::time::timeout(SOON, socket.read_to_end(&mut answer)).await;
        assert!(answered.is_ok(), "accepted at last, and refused");
    }
    echoes(&mut open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_descriptors_says_so_and_keeps_what_is_open() {
    let _alone = alone().await;
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let identity = fleet.ca.wolf(fleet.folder.path(), &wolf);
    let at = fleet.running.addresses.agents;
    let agent = AgentProcess::start(&wolf, &identity, at, echo().await);
    let endpoint = Endpoint::Wolf(wolf);
    let mut open = fleet.dial(&endpoint).await.unwrap();
    echoes(&mut open).await;
    let session = fleet.running.broker.find(&endpoint).unwrap();

    let starved = Starved::now(agent.pid());
    let (began, before) = (Instant::now(), ticks(agent.pid()));
    while began.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        let fault = fleet.dial(&endpoint).await.unwrap_err();
        assert_eq!(fault.reason, Reason::TargetUnreachable, "{fault}");
        assert!(asked.elapsed() < SOON / 2, "said at once, not when time is over");
        echoes(&mut open).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let taken = ticks(agent.pid()) - before;
    assert!(taken < 100, "{taken} of 200 ticks for dials that fail");
    drop(starved);

    let mut stream = fleet.dial(&endpoint).await.unwrap();
    echoes(&mut stream).await;
    echoes(&mut open).await;
    let present = fleet.running.broker.find(&endpoint).unwrap();
    assert!(Arc::ptr_eq(&session, &present), "the tunnel was lost: {:?}", session.fault());
    drop((stream, open));
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}
