//! Programs on a terminal.

use wolfpack_proto::sandbox::v1::{ExecStart, TerminalSize};

use super::harness::shell;
use super::sandbox;

fn on_terminal(script: &str, rows: u32, columns: u32) -> ExecStart {
    ExecStart { tty: true, size: Some(TerminalSize { rows, columns }), ..shell(script) }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_a_size_and_controls_the_session() {
    let sandbox = sandbox().await;
    let script = "stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo me >/dev/tty; echo $TERM; echo e >&2";
    let outcome = sandbox.run(on_terminal(script, 40, 132)).await;
    assert_eq!(outcome.out(), "40 132\r\nall\r\nme\r\nxterm-256color\r\ne\r\n");
    assert!(outcome.stderr.is_empty(), "a terminal has one output");
    let default = sandbox.run(on_terminal("stty size", 0, 0)).await;
    assert_eq!(default.out(), "24 80\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_is_told_to_the_program() {
    let sandbox = sandbox().await;
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut run = sandbox.start(on_terminal(script, 24, 80)).await.unwrap();
    run.until("ready").await;
    run.resize(50, 200).await;
    run.until("50 200").await;
    run.signal(9).await;
    let outcome = run.finish().await;
    assert_eq!((outcome.code, outcome.signal), (137, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_lines_signals_and_the_end() {
    let sandbox = sandbox().await;
    let mut run = sandbox.start(on_terminal("cat; echo bye", 24, 80)).await.unwrap();
    run.stdin("hello\n").await;
    run.until("hello\r\nhello\r\n").await;
    // An unfinished line, then the end: both arrive.
    run.stdin("half").await;
    run.close_stdin().await;
    let outcome = run.finish().await;
    assert!(outcome.out().ends_with("halfbye\r\n"), "{:?}", outcome.out());
    // Not by a shell, which may lose the signal while it starts a child.
    let mut run = sandbox.start(on_terminal("exec cat", 24, 80)).await.unwrap();
    run.stdin("up\n").await;
    run.until("up\r\nup\r\n").await;
    run.stdin("\u{3}").await;
    let outcome = run.finish().await;
    assert_eq!((outcome.code, outcome.signal), (130, 2), "control-C interrupts");
}
