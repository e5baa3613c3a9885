//! How a command ends early: by signals, by a reader that goes, by what was
//! typed.
#![allow(clippy::disallowed_methods, reason = "these tests have no runtime that a sleep blocks")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::fake_gateway::{FakeGateway, KEY};
use super::{text, wolfpack};

fn start(gateway: &FakeGateway, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_wolfpack"))
        .args(arguments)
        .env_clear()
        .env("WOLFPACK_SERVER", gateway.url())
        .env("WOLFPACK_API_KEY", KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads stderr up to and with a line.
fn read_to(stderr: &mut impl std::io::BufRead, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in stderr.lines() {
        lines.push(line.unwrap());
        if lines.last().is_some_and(|line| line == last) {
            return lines;
        }
    }
    panic!("{last:?} is not among {lines:?}")
}

fn kill(child: &Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, signal).unwrap();
}

fn ended(child: &mut Child, within: Duration) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > within {
            child.kill().unwrap();
            panic!("it did not end within {within:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn exec_refuses_a_terminal_where_stdin_is_none() {
    let gateway = FakeGateway::start();
    let exec = ["sandbox", "exec", "-it", "sandboxes/good-id", "--", "hang"];
    let output = wolfpack(&gateway, &exec, b"");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(text(&output.stderr).contains("stdin is not a terminal; leave out -t"), "{output:?}");
    let exec = ["sandbox", "exec", "-t", "sandboxes/good-id", "--", "true"];
    assert_eq!(wolfpack(&gateway, &exec, b"").status.code(), Some(7));
}

#[test]
fn exec_leaves_a_program_that_does_not_end_when_asked_to() {
    let gateway = FakeGateway::start();
    let exec = ["sandbox", "exec", "sandboxes/good-id", "--", "hang"];
    for twice in [false, true] {
        let mut child = start(&gateway, &exec);
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        read_to(&mut stderr, "hang");
        kill(&child, rustix::process::Signal::TERM);
        if twice {
            std::thread::sleep(Duration::from_millis(200));
            kill(&child, rustix::process::Signal::TERM);
        }
        let status = ended(&mut child, Duration::from_secs(if twice { 1 } else { 6 }));
        assert_eq!(status.code(), Some(143), "{status:?}");
    }
}

#[test]
fn create_says_why_it_waits_and_what_an_interrupt_leaves() {
    let gateway = FakeGateway::start();
    let mut child = start(&gateway, &["sandbox", "create", "--name", "waits"]);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let lines = read_to(&mut stderr, "placing: no room");
    assert_eq!(lines, ["placing: queued", "placing: no room"], "each message once");
    kill(&child, rustix::process::Signal::INT);
    assert_eq!(ended(&mut child, Duration::from_secs(5)).code(), Some(130));
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("wolfpack sandbox delete sandboxes/waits-id"), "{rest}");

    let create = ["sandbox", "create", "--name", "waits", "--timeout", "500ms"];
    let output = wolfpack(&gateway, &create, b"");
    assert_eq!(output.status.code(), Some(124));
    assert!(text(&output.stderr).contains("after 500ms (no room)"), "{output:?}");
}

#[test]
fn a_command_that_ends_at_once_is_told_as_that() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["sandbox", "create", "--name", "ends"], b"");
    assert_eq!(output.status.code(), Some(65));
    let told = text(&output.stderr);
    assert!(told.contains("ended at once with code 0: its command must keep running"), "{told}");
}

#[test]
fn a_reader_that_goes_ends_it_without_a_word() {
    let gateway = FakeGateway::start();
    for arguments in
        [vec!["sandbox", "list"], vec!["sandbox", "exec", "-i", "sandboxes/good-id", "--", "cat"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = Command::new(env!("CARGO_BIN_EXE_wolfpack"))
            .args(&arguments)
            .env_clear()
            .env("WOLFPACK_SERVER", gateway.url())
            .env("WOLFPACK_API_KEY", KEY)
            .stdin(std::fs::File::open(env!("CARGO_BIN_EXE_wolfpack")).unwrap())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let status = ended(&mut child, Duration::from_secs(20));
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(status.code(), Some(141), "{told}");
        assert_eq!(told.replace("cat\n", ""), "");
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let gateway = FakeGateway::start();
    for (arguments, stdin, code, words) in [
        (vec!["sandbox", "create", "--cpu", "-1"], &b""[..], 64, "write cores such as"),
        (vec!["sandbox", "create", "--memory", "-1G"], b"", 64, "write an amount such as"),
        (vec!["sandbox", "clipboard", "set", "x"], b"\xff", 64, "the clipboard takes UTF-8 text"),
        (
            vec!["sandbox", "list", "--server", "https://localhost:1", "--ca", "/nope"],
            b"",
            74,
            "--ca (or WOLFPACK_CA) /nope: ",
        ),
    ] {
        let output = wolfpack(&gateway, &arguments, stdin);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains(words), "{output:?}");
    }
}
