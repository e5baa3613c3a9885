//! How programs end, and what is left of them.

use std::time::{Duration, Instant};

use rustix::process::Pid;
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
