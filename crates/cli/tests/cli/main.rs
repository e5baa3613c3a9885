//! The command line as a process, against a gateway of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod ends;
mod exposures;
mod fake_dials;
mod fake_exposures;
mod fake_gateway;
mod fake_images;
mod fake_ports;
mod fake_wolves;
mod images;
mod port_forward;
mod wolves;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use fake_gateway::{FakeGateway, KEY};

/// Runs the command without any context but what is given.
fn wolfpack(gateway: &FakeGateway, arguments: &[&str], stdin: &[u8]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_wolfpack"))
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("WOLFPACK_SERVER", gateway.url())
        .env("WOLFPACK_API_KEY", KEY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let given = stdin.to_vec();
    // A program that does not read its stdin leaves a closed pipe.
    let writer = std::thread::spawn(move || drop(input.write_all(&given)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn create_tells_each_stage_once_survives_a_broken_watch_and_prints_json() {
    let gateway = FakeGateway::start();
    let output = wolfpack(
        &gateway,
        &["sandbox", "create", "--name", "good", "--cpu", "0.5", "-o", "json"],
        b"",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines: Vec<String> = text(&output.stderr).lines().map(str::to_owned).collect();
    let pulled = |text: &str| format!("pulling: {text}, 1 of 2 layers, 4.00 MiB/s");
    assert_eq!(
        lines[..6],
        [
            "placing".to_owned(),
            "pulling".to_owned(),
            pulled("10.00 MiB of 100.00 MiB (10 %)"),
            pulled("95.00 MiB of 100.00 MiB (95 %)"),
            "starting".to_owned(),
            "attaching".to_owned()
        ],
        "{lines:?}"
    );
    assert!(lines[6].starts_with("running after "), "{lines:?}");
    let sandbox: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sandbox["displayName"], "good");
    assert_eq!(sandbox["status"]["state"], "SANDBOX_STATE_RUNNING");
    assert_eq!(sandbox["spec"]["resources"]["cpuMilli"], 500);
}

#[test]
fn a_watch_goes_on_with_the_role_that_is_left() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["sandbox", "create", "--name", "lowered"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("running after "), "{output:?}");
}

#[test]
fn a_sandbox_that_fails_exits_by_its_reason() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["sandbox", "create", "--name", "bad"], b"");
    assert_eq!(output.status.code(), Some(75));
    let told = text(&output.stderr);
    assert!(told.contains("NO_WOLF_FITS") && told.contains("last words"), "{told}");
    assert!(output.stdout.is_empty());
}

#[test]
fn names_are_resolved_and_errors_are_told_to_people_and_programs() {
    let gateway = FakeGateway::start();
    for name in ["good", "sandbox/good"] {
        let output = wolfpack(&gateway, &["sandbox", "get", name], b"");
        assert!(text(&output.stdout).contains("sandboxes/good-id"), "{output:?}");
    }
    let output = wolfpack(&gateway, &["sandbox", "get", "nobody"], b"");
    assert_eq!(output.status.code(), Some(66));
    assert!(text(&output.stderr).contains("SANDBOX_NOT_FOUND"), "{output:?}");
    let output = wolfpack(&gateway, &["sandbox", "get", "nobody", "-o", "json"], b"");
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["reason"], "SANDBOX_NOT_FOUND");
    assert_eq!(wolfpack(&gateway, &["sandbox", "get"], b"").status.code(), Some(64));
    assert_eq!(wolfpack(&gateway, &["sandbox", "--help"], b"").status.code(), Some(0));
}

#[test]
fn lists_are_read_to_the_last_page() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["sandbox", "list"], b"");
    let listed = text(&output.stdout);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.starts_with("ID") && listed.contains("page-2"), "{listed}");
    let output = wolfpack(&gateway, &["sandbox", "list", "-o", "json"], b"");
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed["sandboxes"].as_array().unwrap().len(), 3);
}

#[test]
fn exec_passes_stdin_both_outputs_and_the_exit_code() {
    let gateway = FakeGateway::start();
    let input: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let output =
        wolfpack(&gateway, &["sandbox", "exec", "-i", "sandboxes/good-id", "--", "cat"], &input);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(output.stdout == input, "{} of {} bytes", output.stdout.len(), input.len());
    assert_eq!(text(&output.stderr), "cat\n");
    // Without -i nothing of our stdin reaches the program.
    let output =
        wolfpack(&gateway, &["sandbox", "exec", "sandboxes/good-id", "--", "cat"], b"secret");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(7), 0));
}

#[test]
fn output_with_a_gap_is_an_error_not_a_shorter_output() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["sandbox", "exec", "sandboxes/good-id", "--", "gap"], b"");
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(text(&output.stderr).contains("output is missing"), "{output:?}");
}

#[test]
fn a_call_that_breaks_before_the_program_ends_is_no_success() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["sandbox", "exec", "sandboxes/good-id", "--", "vanish"], b"");
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}

#[test]
fn nobody_to_ask_and_a_wrong_key_are_told_apart() {
    let gateway = FakeGateway::start();
    let run = |server: &str, key: &str| {
        Command::new(env!("CARGO_BIN_EXE_wolfpack"))
            .args(["sandbox", "list"])
            .env_clear()
            .env("WOLFPACK_SERVER", server)
            .env("WOLFPACK_API_KEY", key)
            .output()
            .unwrap()
    };
    assert_eq!(run(&gateway.url(), "wp_wrong").status.code(), Some(67));
    assert_eq!(run("", KEY).status.code(), Some(64), "no server is known");
    assert_eq!(
        run("http://192.0.2.1:80", KEY).status.code(),
        Some(64),
        "a key in clear to another machine"
    );
}

#[test]
fn a_link_is_a_url_for_so_long() {
    let gateway = FakeGateway::start();
    let link = |arguments: &[&str]| {
        wolfpack(&gateway, &[&["sandbox", "link", "sandboxes/good-id"], arguments].concat(), b"")
    };
    let output = link(&["8080"]);
    assert_eq!(text(&output.stdout), "http://8080.test/sandboxes/good-id?3600\n");
    let output = link(&["8080", "--for", "2m", "-o", "json"]);
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["url"], "http://8080.test/sandboxes/good-id?120");
    assert_eq!(made["token"], "wpl_t");
    let output = link(&["1"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("ingress_url"), "{output:?}");
    let output = link(&["8080", "--for", "10s"]);
    assert_eq!(output.status.code(), Some(64));
    let told = text(&output.stderr);
    assert!(told.contains("--for") && told.contains("1 minute to 7 days"), "{told}");
    for wrong in [&["0"][..], &["65536"], &["x"], &[]] {
        assert_eq!(link(wrong).status.code(), Some(64), "{wrong:?}");
    }
}
