//! From the start of PID 1 to its end.

use std::time::{Duration, Instant};

use wolfpack_sandbox_agent::init::finish::{MAIN_GRACE, OTHERS_GRACE};

use super::engine::{Container, Plan, docker, engine, text};
use super::harness::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn the_main_process_is_the_container() {
    if !engine() {
        return;
    }
    let script =
        "echo to-stdout; echo to-stderr >&2; echo reopened >/dev/stdout; id -un; pwd; exit 42";
    let container = Container::start(&Plan::base(&["sh", "-c", script]));
    assert_eq!(container.exit_code(), 42);
    // Nothing of the agent's own is among it.
    assert_eq!(container.stdout(), "to-stdout\nreopened\nwolf\n/home/wolf\n");
    assert_eq!(container.stderr(), "to-stderr\n");
    let log = container.agent_log();
    assert!(log.lines().count() >= 2, "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        assert!(line["service"].as_str().unwrap().ends_with("sandbox-agent"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_ends_it_is_passed_on_as_a_code() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::base(&["sh", "-c", "kill -SEGV $$"]));
    assert_eq!(container.exit_code(), 139);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_so_and_ends() {
    if !engine() {
        return;
    }
    let missing = Container::start(&Plan::base(&["no-such-program"]));
    assert_eq!(missing.exit_code(), 127);
    assert!(
        missing.stderr().contains("there is no program \"no-such-program\""),
        "{}",
        missing.stderr()
    );
    let denied = Container::start(&Plan::base(&["/etc/passwd"]));
    assert_eq!(denied.exit_code(), 126);
    assert!(denied.stderr().contains("not executable"), "{}", denied.stderr());
    let stranger = Container::start(&Plan { user: "eve", ..Plan::base(&["true"]) });
    assert_eq!(stranger.exit_code(), 126);
    assert!(stranger.stderr().contains("there is no user \"eve\""), "{}", stranger.stderr());
    let nowhere = Container::start(&Plan { cwd: "/root/x", ..Plan::base(&["true"]) });
    assert_eq!(nowhere.exit_code(), 126);
    assert!(nowhere.stderr().contains("may not enter"), "{}", nowhere.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_soon_and_takes_everything_along() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::base(&["sleep", "infinity"]));
    container.ready().await;
    // With something to do, and a program that a caller has left behind.
    container.sh("setsid sleep 1000 >/dev/null 2>&1 & echo").await;
    docker(&["kill", "--signal", "TERM", &container.id]);
    assert_eq!(container.exit_code(), 143);
    // Soon: neither the main process nor what was left behind used up its time.
    let log = container.agent_log();
    assert!(log.contains(r#""killed":0"#), "{log}");
    assert!(!log.contains("did not end in time"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deaf_to_sigterm_is_killed_at_the_end() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::base(&["sleep", "infinity"]));
    container.ready().await;
    let deaf = "setsid sh -c 'trap \"\" TERM HUP; sleep 1000; sleep 1000' >/dev/null 2>&1 & echo";
    container.sh(deaf).await;
    docker(&["kill", "--signal", "TERM", &container.id]);
    // Without an engine that kills: only the agent can have ended it.
    assert_eq!(container.exit_code(), 143);
    let log = container.agent_log();
    assert!(log.contains(r#""killed":"#) && !log.contains(r#""killed":0"#), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_main_process_that_cleans_up_has_its_time_and_its_code() {
    if !engine() {
        return;
    }
    let script = "trap 'echo bye; sleep 1; exit 9' TERM; trap 'echo usr1' USR1; echo up; while :; do sleep 0.1; done";
    let container = Container::start(&Plan::base(&["sh", "-c", script]));
    container.ready().await;
    docker(&["kill", "--signal", "USR1", &container.id]);
    let began = Instant::now();
    while !container.stdout().contains("usr1") {
        assert!(began.elapsed() < PATIENCE, "{}", container.stdout());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    docker(&["stop", "--time", "60", &container.id]);
    assert_eq!(container.exit_code(), 9);
    assert_eq!(container.stdout(), "up\nusr1\nbye\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_main_process_is_killed_within_the_engines_patience() {
    if !engine() {
        return;
    }
    let script = "trap '' TERM; while :; do sleep 0.2; done";
    let container = Container::start(&Plan::base(&["sh", "-c", script]));
    container.ready().await;
    let began = Instant::now();
    docker(&["stop", "--time", "90", &container.id]);
    assert_eq!(container.exit_code(), 137);
    let took = began.elapsed();
    assert!(took >= MAIN_GRACE, "it had its time: {took:?}");
    // By the agent: whom the engine kills has no last words.
    let log = container.agent_log();
    assert!(log.contains("did not end in time") && log.contains("the sandbox ends"), "{log}");
    // The engine's patience is ten seconds where nobody says another.
    assert!(MAIN_GRACE + OTHERS_GRACE < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_main_process_it_waits_for_the_stop() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::base(&[]));
    container.ready().await;
    assert_eq!(container.sh("echo here").await.out(), "here\n");
    assert!(container.running());
    docker(&["kill", "--signal", "TERM", &container.id]);
    assert_eq!(container.exit_code(), 143);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_reaped() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::base(&["sleep", "infinity"]));
    container.ready().await;
    // Each inner shell ends at once and leaves its child to PID 1.
    let outcome = container.sh("for i in $(seq 60); do (sleep 0.3 &) ; done; echo done").await;
    assert_eq!((outcome.out().as_str(), outcome.code), ("done\n", 0));
    let began = Instant::now();
    loop {
        let processes = container.processes();
        if processes.len() == 2 && processes.iter().all(|process| !process.starts_with('Z')) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "PID 1 and sleep: {processes:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let memory = text(&docker(&["inspect", "--format", "{{.HostConfig.Memory}}", &container.id]));
    assert_eq!(memory, (1_u64 << 30).to_string());
}
