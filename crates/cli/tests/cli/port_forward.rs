//! `wolfpack port-forward` as a process.
#![allow(clippy::disallowed_methods, reason = "these tests have no runtime that a sleep blocks")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::fake_gateway::{FakeGateway, KEY};
use super::{text, wolfpack};

/// A forward that runs, and where it listens.
struct Forward {
    child: Child,
    places: Vec<String>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Forward {
    fn start(gateway: &FakeGateway, forwards: &[&str]) -> Self {
        Self::start_with(gateway, &[], forwards)
    }

    fn start_with(gateway: &FakeGateway, flags: &[&str], forwards: &[&str]) -> Self {
        Self::start_to(gateway, "sandboxes/good-id", flags, forwards)
    }

    fn start_to(gateway: &FakeGateway, endpoint: &str, flags: &[&str], forwards: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wolfpack"))
            .args(["port-forward", endpoint])
            .args(flags)
            .args(forwards)
            .env_clear()
            .env("WOLFPACK_SERVER", gateway.url())
            .env("WOLFPACK_API_KEY", KEY)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let places = forwards.iter().map(|_| {
            let line = lines.next().expect("it says where it listens").unwrap();
            let (place, target) = line.split_once(" -> ").unwrap();
            assert!(target.starts_with(&format!("{endpoint} tcp:")), "{line}");
            place.to_owned()
        });
        let places = places.collect();
        Self { child, places }
    }

    fn tcp(&self, at: usize) -> TcpStream {
        let socket = TcpStream::connect(&self.places[at]).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }

    /// Ends it as Ctrl-C does; what it said on stderr.
    fn interrupt(self) -> String {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let (code, told) = self.ended();
        assert_eq!(code, Some(0), "Ctrl-C is how it ends: {told}");
        told
    }

    /// Waits for its end; its code, and what it said on stderr.
    fn ended(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it did not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut told = String::new();
        // Unless the test reads it itself.
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut told).unwrap();
        }
        (status.code(), told)
    }
}

/// A connection through which something has come back.
fn echoed(forward: &Forward, at: usize) -> TcpStream {
    let mut socket = forward.tcp(at);
    socket.write_all(b"x").unwrap();
    socket.read_exact(&mut [0]).unwrap();
    socket
}

/// Waits until so many connections ended so.
fn saw(gateway: &FakeGateway, end: &str, count: usize) {
    let began = Instant::now();
    loop {
        let ends = gateway.dials.ends();
        match ends.iter().filter(|seen| *seen == end).count() {
            seen if seen == count => return,
            _ if began.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            seen => panic!("{seen} {end:?}, not {count}: {ends:?}"),
        }
    }
}

fn all(mut socket: impl std::io::Read) -> Vec<u8> {
    let mut read = Vec::new();
    socket.read_to_end(&mut read).unwrap();
    read
}

#[test]
fn many_connections_go_through_with_half_close_and_ctrl_c_ends_it() {
    let gateway = FakeGateway::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.sock");
    let local = format!("{}:tcp:1", path.display());
    // A bare port is one of the target's.
    let forward = Forward::start(&gateway, &["2", &local]);
    std::thread::scope(|scope| {
        for at in 0..24_usize {
            let forward = &forward;
            scope.spawn(move || {
                let mut socket = forward.tcp(0);
                let length = 100_000 + at;
                socket.write_all(&vec![7; length]).unwrap();
                // Our end is told on, and the answer still comes.
                socket.shutdown(Shutdown::Write).unwrap();
                assert_eq!(all(socket), length.to_string().as_bytes());
            });
        }
    });
    let socket = UnixStream::connect(&path).unwrap();
    let given: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    std::thread::scope(|scope| {
        let (given, writer) = (&given, socket.try_clone().unwrap());
        scope.spawn(move || {
            (&writer).write_all(given).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        assert!(all(&socket) == *given);
    });
    assert_eq!(forward.interrupt(), "");
    assert!(!path.exists(), "the socket goes with it");
    saw(&gateway, "tcp:2 finished", 24);
}

#[test]
fn what_breaks_on_one_side_is_a_reset_on_the_other() {
    let gateway = FakeGateway::start();
    let forward = Forward::start(&gateway, &["tcp:3", "tcp:2"]);
    let mut socket = forward.tcp(0);
    socket.write_all(b"x").unwrap();
    let end = socket.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);

    // The other way: a local program that is killed resets its sockets.
    let mut socket = forward.tcp(1);
    socket.write_all(b"x").unwrap();
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    drop(socket);
    // The other one is the look before it listened.
    saw(&gateway, "tcp:2 given up", 2);
    let told = forward.interrupt();
    assert!(told.contains("CONNECTION_RESET"), "{told}");
}

#[test]
fn what_is_refused_ends_it_and_what_may_come_yet_does_not() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["port-forward", "sandboxes/good-id", "tcp:403"], b"");
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(text(&output.stderr).contains("TARGET_FORBIDDEN: the test says so"), "{output:?}");
    assert!(output.stdout.is_empty(), "it does not say that it listens");

    let forward = Forward::start(&gateway, &["tcp:503"]);
    for _ in 0..2 {
        let end = forward.tcp(0).read_to_end(&mut Vec::new());
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    let told = forward.interrupt();
    assert!(told.starts_with("tcp:503 does not answer yet: TARGET_UNREACHABLE"), "{told}");
    assert_eq!(told.matches("error: TARGET_UNREACHABLE").count(), 1, "told once: {told}");
}

#[test]
fn a_place_that_is_taken_is_named() {
    let gateway = FakeGateway::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let local = format!("{}:tcp:1", taken.local_addr().unwrap().port());
    let output = wolfpack(&gateway, &["port-forward", "sandboxes/good-id", &local], b"");
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert!(text(&output.stderr).contains("cannot listen at 127.0.0.1:"), "{output:?}");
    let output = wolfpack(&gateway, &["port-forward", "good", "tcp:1"], b"");
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("write wolf/ID or sandbox/ID"), "{output:?}");
}

#[test]
fn first_bytes_travel_with_the_dial_and_nobody_has_to_speak_first() {
    let gateway = FakeGateway::start();
    let forward = Forward::start(&gateway, &["5"]);
    let ask = |sent: &[u8]| {
        let mut socket = forward.tcp(0);
        socket.write_all(sent).unwrap();
        let mut told = [0; 2];
        // It speaks whether it was spoken to or not.
        socket.read_exact(&mut told).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let told = text(&[&told[..], &all(socket)].concat());
        let (early, in_all) = told.split_once(' ').unwrap();
        assert_eq!(in_all, sent.len().to_string(), "nothing is lost or sent twice");
        early.to_owned()
    };
    assert_eq!(ask(b""), "0");
    // A machine that is busy may be late with them; not every time.
    assert!((0..50).any(|_| ask(b"hello") == "5"));
}

#[test]
fn a_server_that_is_started_anew_costs_a_connection_time_and_no_more() {
    let gateway = FakeGateway::start();
    let forward = Forward::start(&gateway, &["tcp:2"]);
    let address = gateway.address();
    drop(gateway);
    // Taken while nobody is there, and answered by the one that comes.
    let mut waiting = forward.tcp(0);
    waiting.write_all(b"12345").unwrap();
    waiting.shutdown(Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let _gateway = FakeGateway::start_at(address);
    assert_eq!(all(waiting), b"5");
    let mut next = forward.tcp(0);
    next.write_all(b"1").unwrap();
    next.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(next), b"1");
    assert_eq!(forward.interrupt(), "", "it was nothing to be told");
}

#[test]
fn after_ctrl_c_nobody_comes_in_and_what_is_open_may_end() {
    let gateway = FakeGateway::start();
    let mut forward = Forward::start(&gateway, &["tcp:2", "tcp:1"]);
    let (mut ending, mut stays) = (forward.tcp(0), forward.tcp(1));
    for socket in [&mut ending, &mut stays] {
        socket.write_all(b"1234").unwrap();
    }
    let mut echoed = [0; 4];
    stays.read_exact(&mut echoed).unwrap();
    let id = rustix::process::Pid::from_child(&forward.child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let mut told = BufReader::new(forward.child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.starts_with("2 connections are open"), "{line}");
    assert!(TcpStream::connect(&forward.places[0]).is_err(), "nobody new");
    ending.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(ending), b"4");
    // The other one is cut by the second signal, and is told by a reset.
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let error = stays.read(&mut echoed).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(forward.child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_beyond_the_bound_waits_is_told_and_stands_in_no_other_ports_way() {
    let gateway = FakeGateway::start();
    let mut forward = Forward::start_with(&gateway, &["--connections", "4"], &["tcp:1", "tcp:1"]);
    let mut told = BufReader::new(forward.child.stderr.take().unwrap());
    let mut open: Vec<TcpStream> = (0..3).map(|_| echoed(&forward, 0)).collect();
    let mut waiting = forward.tcp(0);
    waiting.write_all(b"y").unwrap();
    let mut full = String::new();
    told.read_line(&mut full).unwrap();
    assert!(full.starts_with(&format!("{}: new connections wait", forward.places[0])), "{full}");
    assert!(full.contains("3 of at most 4 are open (--connections)"), "{full}");
    // One place is the other port's own.
    drop(echoed(&forward, 1));
    let mut back = [0];
    waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(waiting.read_exact(&mut back).is_err(), "it waits");
    waiting.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    open.pop();
    waiting.read_exact(&mut back).unwrap();
    assert_eq!(back, *b"y", "nothing of it is lost");
    // Told once for all that wait, and once that they do not any more.
    let mut next = forward.tcp(0);
    next.write_all(b"z").unwrap();
    open.clear();
    next.read_exact(&mut back).unwrap();
    drop((waiting, next));
    for _ in 0..20 {
        drop(echoed(&forward, 0));
        std::thread::sleep(Duration::from_millis(20));
    }
    let place = forward.places[0].clone();
    forward.interrupt();
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, format!("{place}: connections do not wait any more\n"));
}

#[test]
fn more_connections_than_one_of_the_gateway_takes_go_by_several() {
    let gateway = FakeGateway::start();
    let forward = Forward::start(&gateway, &["tcp:1"]);
    let mut open: Vec<TcpStream> = (0..300).map(|_| forward.tcp(0)).collect();
    open.iter_mut().for_each(|socket| socket.write_all(b"x").unwrap());
    open.iter_mut().for_each(|socket| socket.read_exact(&mut [0]).unwrap());
    let callers: std::collections::HashSet<_> = gateway.dials.callers().into_iter().collect();
    assert_eq!(callers.len(), 2, "{callers:?}");
    drop(open);
    let told = forward.interrupt();
    assert!(!told.contains("wait"), "there was room for all: {told}");
}

#[test]
fn without_the_check_nothing_is_dialed_before_somebody_connects() {
    let gateway = FakeGateway::start();
    let forward = Forward::start_with(&gateway, &["--no-check"], &["tcp:2", "tcp:403"]);
    assert!(gateway.dials.callers().is_empty());
    let end = forward.tcp(1).read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(gateway.dials.callers().len(), 1);
    let told = forward.interrupt();
    assert!(told.contains("TARGET_FORBIDDEN: the test says so"), "{told}");
}

#[test]
fn an_endpoint_that_is_gone_for_good_ends_it_and_one_that_is_away_does_not() {
    use wolfpack_proto::sandbox::v1::SandboxState as S;
    use wolfpack_types::Reason;
    let gateway = FakeGateway::start();
    let mut forward = Forward::start(&gateway, &["tcp:1"]);
    gateway.becomes(S::Lost);
    gateway.dials.all_fail(Some(Reason::EndpointNotFound));
    let mut waiting = forward.tcp(0);
    waiting.write_all(b"x").unwrap();
    let mut told = BufReader::new(forward.child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.starts_with("sandboxes/good-id is LOST, but no agent"), "{line}");
    gateway.dials.all_fail(None);
    waiting.read_exact(&mut [0]).unwrap();

    gateway.becomes(S::Deleted);
    gateway.dials.all_fail(Some(Reason::EndpointNotFound));
    let end = forward.tcp(0).read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let (code, _) = forward.ended();
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert_eq!(code, Some(66), "{rest}");
    assert!(rest.starts_with("error: SANDBOX_NOT_FOUND: sandboxes/good-id was deleted;"), "{rest}");
    assert_eq!(rest.matches("error:").count(), 1, "told once: {rest}");

    // At the start as well.
    let start = || wolfpack(&gateway, &["port-forward", "sandboxes/good-id", "tcp:1"], b"");
    let output = start();
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    assert!(text(&output.stderr).contains("was deleted"), "{output:?}");
    gateway.becomes(S::Failed);
    let output = start();
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    gateway.becomes(S::Starting);
    let forward = Forward::start(&gateway, &["tcp:1"]);
    let told = forward.interrupt();
    assert!(told.contains("sandboxes/good-id is STARTING, but no agent"), "{told}");
    // One that is not there at all is told as that.
    let output = wolfpack(&gateway, &["port-forward", "wolves/nobody", "tcp:1"], b"");
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    assert!(text(&output.stderr).contains("WOLF_NOT_FOUND"), "{output:?}");
}

#[test]
fn a_wolf_that_is_there_is_waited_for_at_the_start_and_later() {
    use wolfpack_types::Reason;
    let gateway = FakeGateway::start();
    gateway.dials.all_fail(Some(Reason::EndpointNotFound));
    let mut forward = Forward::start_to(&gateway, "wolves/one", &[], &["tcp:1"]);
    let mut told = BufReader::new(forward.child.stderr.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        line
    };
    let away = "wolves/one is ONLINE, but no agent of it is attached; ";
    assert_eq!(next(), format!("{away}connections get through once one is\n"));
    let mut waiting = forward.tcp(0);
    waiting.write_all(b"x").unwrap();
    assert_eq!(next(), format!("{away}forwarding goes on once one is\n"));
    gateway.dials.all_fail(None);
    waiting.read_exact(&mut [0]).unwrap();
    forward.interrupt();
}
