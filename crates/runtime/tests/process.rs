//! The body of every `main`, as a process: exit codes, signals, log lines.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// Generous: what is tested is that it ends, not how fast.
const BOUND: Duration = Duration::from_secs(30);

fn idle() -> Command {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples/idle"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts it and waits for its ready line, which is JSON: stderr is a pipe.
fn started(mode: &str) -> (Child, BufReader<ChildStderr>) {
    let mut child = idle()
        .env("WP_IDLE__MODE", mode)
        .env("WP_IDLE__SIZE", "7")
        .spawn()
        .expect("cargo test builds examples");
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(ready["message"], "ready", "{line}");
    assert_eq!(ready["service"], "idle");
    assert_eq!(ready["size"], 7);
    (child, lines)
}

fn signal(child: &Child, name: &str) {
    let status =
        Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

fn code(mut child: Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begin.elapsed() > BOUND {
            child.kill().unwrap();
            panic!("it did not end within {BOUND:?}");
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_configuration_fault_is_64_and_every_fault_is_told() {
    let output = idle()
        .env("WP_IDLE__SIZE", "0")
        .env("WP_IDLE__TELEMETRY__TRACE_SAMPLE_RATIO", "7")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("size must be") && text.contains("trace_sample_ratio"), "{text}");
    assert_eq!(idle().arg("--nonsense").output().unwrap().status.code(), Some(64));
    assert_eq!(idle().env("WP_IDLE__UNKNOWN", "1").output().unwrap().status.code(), Some(64));
}

#[test]
fn a_dump_masks_secrets_and_a_check_starts_nothing() {
    let output = idle().arg("--dump-config").env("WP_IDLE__KEY", "hush").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("size = 1") && text.contains("key") && !text.contains("hush"), "{text}");
    assert!(idle().arg("--check-config").output().unwrap().status.success());
    assert_eq!(
        idle().arg("--check-config").env("WP_IDLE__SIZE", "0").output().unwrap().status.code(),
        Some(64)
    );
}

#[test]
fn the_first_signal_drains() {
    for name in ["TERM", "INT"] {
        let (child, _lines) = started("polite");
        signal(&child, name);
        assert_eq!(code(child), Some(0), "{name}");
    }
}

#[test]
fn a_drain_is_bounded() {
    let (child, mut lines) = started("deaf");
    signal(&child, "TERM");
    assert_eq!(code(child), Some(1));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("the drain took too long"), "{rest}");
}

#[test]
fn the_second_signal_exits_at_once() {
    let mut child =
        idle().env("WP_IDLE__MODE", "deaf").env("WP_IDLE__DRAIN", "1h").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    signal(&child, "TERM");
    line.clear();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("draining"), "{line}");
    signal(&child, "INT");
    assert_eq!(code(child), Some(130));
}

#[test]
fn a_failed_essential_task_is_1() {
    let output = idle().env("WP_IDLE__MODE", "failing").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("pump: dry"), "{text}");
}
