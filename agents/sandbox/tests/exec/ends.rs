//! How programs end, and what is left of them.

use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::net::UnixStream;
use wolfpack_proto::agent::v1::{ExecRequest, exec_request};
use wolfpack_proto::sandbox::v1::ExecStart;
use wolfpack_sandbox_agent::process::tree;

use super::harness::{PATIENCE, Run, shell};
use super::sandbox;

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_told_as_one() {
    let sandbox = sandbox().await;
    let own = sandbox.sh("kill -TERM $$").await;
    assert_eq!((own.code, own.signal), (143, 15));
    let run = sandbox.start(shell("sleep 100")).await.unwrap();
    run.signal(10).await;
    let sent = run.finish().await;
    assert_eq!((sent.code, sent.signal), (138, 10));
    let code = sandbox.sh("exit 143").await;
    assert_eq!((code.code, code.signal), (143, 0), "a code is no signal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_whole_group() {
    let sandbox = sandbox().await;
    let mut run = sandbox.start(shell("trap 'exit 5' INT; sh -c 'trap \"echo child; exit\" INT; echo up; while :; do sleep 0.05; done'; wait")).await.unwrap();
    run.until("up").await;
    run.signal(2).await;
    let outcome = run.finish().await;
    assert_eq!((outcome.out().as_str(), outcome.code), ("child\n", 5));
}

/// Whether nothing of the program's session is left within the bound.
async fn gone(leader: i32, bound: Duration) -> bool {
    let leader = Pid::from_raw(leader).unwrap();
    let began = Instant::now();
    while began.elapsed() < bound {
        if tree::session_members(leader).is_empty() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

async fn up(run: &mut Run) -> i32 {
    run.until("up").await;
    let leader = Pid::from_raw(run.pid).unwrap();
    assert!(tree::session_members(leader).len() >= 2, "it has children");
    run.pid
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_ends_the_tree() {
    let sandbox = sandbox().await;
    // Each says that it was asked: one that was killed says nothing.
    let asked = sandbox.folder.path().join("asked");
    let trap = |who: &str| format!("trap 'echo {who} >> {}; exit' TERM;", asked.display());
    let child = format!("{} echo up; sleep 300 & wait", trap("child"));
    let script = format!("{} sh -c \"{child}\" & sleep 300 & wait", trap("leader"));
    let mut run = sandbox.start(shell(&script)).await.unwrap();
    let pid = up(&mut run).await;
    drop(run);
    assert!(gone(pid, PATIENCE).await);
    let said = std::fs::read_to_string(&asked).unwrap_or_default();
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(said, ["child", "leader"], "SIGTERM is enough here");
}

/// As gRPC clients cancel: the stream is reset while both sides are open, half of
/// the input sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_not_the_end_of_the_input() {
    let sandbox = sandbox().await;
    let socket = UnixStream::connect(sandbox.folder.path().join("agent.sock")).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let whole = sandbox.folder.path().join("whole");
    for _ in 0..20 {
        let request =
            http::Request::post("http://sandbox-agent/wolfpack.agent.v1.SandboxAgentService/Exec")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .unwrap();
        let mut client = client.clone().ready().await.unwrap();
        let (answer, mut input) = client.send_request(request, false).unwrap();
        let start = shell(&format!("echo up $$.; cat > /dev/null; echo >> {}", whole.display()));
        let start = ExecRequest { frame: Some(exec_request::Frame::Start(start)) };
        let message = prost::Message::encode_to_vec(&start);
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&message);
        input.send_data(frame.into(), false).unwrap();
        let mut output = answer.await.unwrap().into_body();
        let mut seen = String::new();
        let pid = loop {
            seen.push_str(&String::from_utf8_lossy(&output.data().await.unwrap().unwrap()));
            let pid = seen.split_once("up ").and_then(|(_, rest)| rest.split_once(".\n"));
            if let Some((pid, _)) = pid {
                break pid.parse().unwrap();
            }
        };
        input.send_reset(h2::Reason::CANCEL);
        assert!(gone(pid, PATIENCE).await);
        assert!(!whole.exists(), "cat took it for the end of its input");
    }
}

/// Jobs in groups of their own, deaf to SIGTERM.
#[tokio::test(flavor = "multi_thread")]
async fn what_ignores_the_first_signal_is_killed() {
    let sandbox = sandbox().await;
    let script = "set -m; trap '' TERM HUP; sleep 300 & sleep 300 & echo up; wait";
    let argv = ["bash", "-c", script].map(str::to_owned).to_vec();
    let mut run = sandbox.start(ExecStart { argv, ..ExecStart::default() }).await.unwrap();
    let pid = up(&mut run).await;
    let began = Instant::now();
    drop(run);
    assert!(gone(pid, PATIENCE).await);
    assert!(began.elapsed() >= Duration::from_secs(2), "it had its time: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_stops_reading_and_leaves_ends_it_too() {
    let sandbox = sandbox().await;
    let mut run = sandbox.start(shell("sleep 300 & echo up; yes")).await.unwrap();
    let pid = up(&mut run).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(run);
    assert!(gone(pid, PATIENCE).await);
}
