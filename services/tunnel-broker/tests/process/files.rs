//! No file descriptor is left: at the agent that dials, and at the broker that
//! accepts. Both are this process.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use wolfpack_tunnel::tcp::{TcpPolicy, TcpTargets, Words};
use wolfpack_types::{Endpoint, PortSet, Reason, Target, WolfId};

use crate::self_view::{alone, files};
use crate::support::{Fleet, SOON, attached, echo};

/// All descriptors taken, until it is dropped.
struct Full {
    before: Rlimit,
    taken: Vec<File>,
}

impl Full {
    fn now() -> Self {
        let before = getrlimit(Resource::Nofile);
        let room = files() as u64 + 32;
        let low = Rlimit { current: Some(room), ..before };
        setrlimit(Resource::Nofile, low).unwrap();
        let mut taken = Vec::new();
        let error = loop {
            match File::open("/dev/null") {
                Ok(file) => taken.push(file),
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
        Self { before, taken }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        self.taken.clear();
        setrlimit(Resource::Nofile, self.before).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_what_is_open_lives_and_all_else_comes_back() {
    let _alone = alone().await;
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    let policy = TcpPolicy { loopback: PortSet::all(), ..TcpPolicy::default() };
    let words = Words { of: "wolf", setting: "its ports" };
    builder.dial_family(Target::TCP, Arc::new(TcpTargets::new(policy, words, 64)));
    let port = Target::parse(&format!("tcp:{}", echo().await.port())).unwrap();
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let endpoint = Endpoint::Wolf(wolf);
    let dialer = fleet.dialer();
    let mut open = dialer.dial(&endpoint, &port, SOON).await.unwrap();
    // Sockets of newcomers, made while there is room for them.
    let newcomers: Vec<TcpSocket> = (0..8).map(|_| TcpSocket::new_v4().unwrap()).collect();

    let full = Full::now();
    // The agent cannot dial, and says so at once; the tunnel does not mind.
    let fault = dialer.dial(&endpoint, &port, SOON).await.unwrap_err();
    assert_eq!(fault.reason, Reason::DialsLimited, "{fault}");
    // The kernel takes the newcomers in, and the broker cannot.
    let mut waiting = Vec::new();
    for socket in newcomers {
        waiting.push(socket.connect(fleet.running.addresses.agents).await.unwrap());
    }
    for _ in 0..20 {
        open.write_all(b"lives").await.unwrap();
        open.read_exact(&mut [0; 5]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(*agent.attached().borrow());
    drop(full);

    // Nobody started anything again: it was only waiting.
    let mut stream = dialer.dial(&endpoint, &port, SOON).await.unwrap();
    stream.write_all(b"again").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    // Those who waited are taken in: they are told to speak TLS.
    for mut socket in waiting {
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let answered = tokio::time::timeout(SOON, socket.read_to_end(&mut answer)).await;
        assert!(answered.is_ok(), "accepted at last, and refused");
    }
    let newer = fleet.wolf(&WolfId::new()).start(&fleet.context.supervisor);
    attached(&newer).await;
}
