//! What a program writes arrives as it was written.

use std::time::{Duration, Instant};

use wolfpack_proto::sandbox::v1::exec_output;

use super::harness::shell;
use super::sandbox;

#[tokio::test(flavor = "multi_thread")]
async fn both_outputs_and_the_exit_code() {
    let sandbox = sandbox().await;
    let outcome = sandbox.sh("echo out; echo err >&2; exit 7").await;
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), ("out\n", "err\n"));
    assert_eq!((outcome.code, outcome.signal), (7, 0));
    let none = sandbox.sh("exit 0").await;
    assert_eq!((none.stdout.len(), none.stderr.len(), none.code), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_mebibytes_reach_a_slow_reader_intact() {
    const SIZE: usize = 10 << 20;
    let sandbox = sandbox().await;
    let script =
        format!("head -c {SIZE} /dev/zero | tr '\\0' 'a'; head -c 3 /dev/zero | tr '\\0' 'z'");
    let mut run = sandbox.start(shell(&script)).await.unwrap();
    run.end_requests();
    let (mut bytes, mut pieces) = (Vec::with_capacity(SIZE), 0);
    let exit = loop {
        match run.next().await.unwrap().unwrap() {
            exec_output::Output::Stdout(chunk) => {
                assert_eq!(chunk.offset, bytes.len() as u64);
                assert!(chunk.data.len() <= 32 * 1024);
                bytes.extend_from_slice(&chunk.data);
                pieces += 1;
                if pieces % 64 == 0 {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            }
            exec_output::Output::Stderr(chunk) => panic!("{chunk:?}"),
            exec_output::Output::Exit(exit) => break exit,
        }
    };
    assert_eq!(exit.code, 0);
    assert_eq!(bytes.len(), SIZE + 3);
    assert!(bytes[..SIZE].iter().all(|byte| *byte == b'a') && bytes.ends_with(b"zzz"));
}

/// The reader stops for longer than the bounds after the program's end; what
/// the program itself wrote still comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_loses_nothing() {
    const SIZE: usize = 4 << 20;
    let sandbox = sandbox().await;
    let mut run = sandbox.start(shell(&format!("head -c {SIZE} /dev/zero"))).await.unwrap();
    run.end_requests();
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(run.finish().await.stdout.len(), SIZE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_in_the_background_does_not_hold_the_call() {
    let sandbox = sandbox().await;
    let began = Instant::now();
    let outcome = sandbox.sh("sleep 300 & echo $!").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(outcome.code, 0);
    // It was left to run, as a shell leaves it.
    let pid = outcome.out().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_child_writes_soon_after_the_end_still_comes() {
    let sandbox = sandbox().await;
    let outcome = sandbox.sh("(sleep 0.2; echo late) & echo early").await;
    assert_eq!(outcome.out(), "early\nlate\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_never_stops_writing_is_cut_off() {
    let sandbox = sandbox().await;
    for script in ["yes & exit 3", "(while :; do echo x; sleep 0.1; done) & exit 3"] {
        let began = Instant::now();
        let outcome = sandbox.sh(script).await;
        assert_eq!(outcome.code, 3);
        assert!(began.elapsed() < Duration::from_secs(15), "{script}: {:?}", began.elapsed());
        assert!(!outcome.stdout.is_empty());
    }
}
