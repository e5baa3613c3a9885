use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn supervisor() -> Supervisor {
    Supervisor::new(Telemetry::disabled("test"))
}

#[tokio::test]
async fn an_essential_task_that_ends_errs_or_panics_is_a_failure() {
    let ends: [fn() -> Result<(), BoxError>; 3] =
        [|| Ok(()), || Err("no luck".into()), || panic!("oh dear")];
    for (end, words) in ends.into_iter().zip(["it ended", "no luck", "oh dear"]) {
        let supervisor = supervisor();
        supervisor.spawn_essential("pump", async move { end() });
        let why = tokio::time::timeout(SOON, supervisor.failed()).await.unwrap();
        assert!(why.starts_with("pump: ") && why.contains(words), "{why}");
    }
}

#[tokio::test]
async fn an_essential_task_that_ends_with_the_shutdown_is_no_failure() {
    let supervisor = supervisor();
    let token = supervisor.token();
    supervisor.spawn_essential("pump", async move {
        token.cancelled().await;
        Ok(())
    });
    assert_eq!(supervisor.shutdown(SOON).await, ShutdownReport::default());
    let failed = tokio::time::timeout(Duration::from_millis(50), supervisor.failed()).await;
    assert!(failed.is_err(), "{failed:?}");
}

#[tokio::test]
async fn a_restarting_task_is_made_anew_after_end_error_and_panic_until_the_shutdown() {
    let supervisor = supervisor();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    supervisor.spawn_restarting("loop", move || {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match run {
                0 => Ok(()),
                1 => Err("again".into()),
                2 => panic!("again"),
                _ => std::future::pending().await,
            }
        }
    });
    tokio::time::timeout(SOON, async {
        while runs.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let text = supervisor.telemetry().prometheus();
    assert!(text.contains("wolfpack_tasks_restarts_total{task=\"loop\"} 3"), "{text}");
    assert!(text.contains("wolfpack_tasks_panics_total{task=\"loop\"} 1"), "{text}");
    let report = supervisor.shutdown(Duration::from_millis(50)).await;
    assert_eq!(report.aborted, ["loop"], "it does not watch the token");
    assert_eq!(runs.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_panic_of_a_plain_task_is_counted_and_harms_nobody() {
    let supervisor = supervisor();
    supervisor.spawn("clumsy", async { panic!("oops") });
    tokio::time::timeout(SOON, async {
        while supervisor.running() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    let text = supervisor.telemetry().prometheus();
    assert!(text.contains("wolfpack_tasks_panics_total{task=\"clumsy\"} 1"), "{text}");
    assert_eq!(supervisor.shutdown(SOON).await, ShutdownReport::default());
}

#[tokio::test]
async fn shutdown_waits_for_the_polite_and_aborts_and_names_the_stuck() {
    let supervisor = supervisor();
    let token = supervisor.token();
    let polite = Arc::new(AtomicU32::new(0));
    let ended = Arc::clone(&polite);
    supervisor.spawn("polite", async move {
        token.cancelled().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        ended.fetch_add(1, Ordering::SeqCst);
    });
    supervisor.spawn("stuck", std::future::pending());
    let report = supervisor.shutdown(Duration::from_millis(300)).await;
    assert_eq!(report, ShutdownReport { aborted: vec!["stuck"], stuck: vec![] });
    assert_eq!(polite.load(Ordering::SeqCst), 1);
    assert_eq!(supervisor.running(), 0);
}

#[tokio::test]
async fn nothing_starts_after_the_shutdown() {
    let supervisor = supervisor();
    let child = supervisor.child();
    supervisor.shutdown(SOON).await;
    let ran = Arc::new(AtomicU32::new(0));
    for which in [&supervisor, &child, &supervisor.child()] {
        let ran = Arc::clone(&ran);
        which.spawn("late", async move {
            ran.fetch_add(1, Ordering::SeqCst);
        });
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_child_ends_alone_and_with_its_parent_and_fails_for_both() {
    let parent = supervisor();
    let (one, two) = (parent.child(), parent.child());
    for (child, name) in [(&one, "one"), (&two, "two")] {
        let token = child.token();
        child.spawn(name, async move { token.cancelled().await });
    }
    assert_eq!(parent.running(), 2);
    assert_eq!(one.shutdown(SOON).await, ShutdownReport::default());
    assert_eq!((one.running(), parent.running()), (0, 1));
    assert!(!parent.token().is_cancelled());

    two.spawn("stuck", std::future::pending());
    two.spawn_essential("pump", async { Err("dry".into()) });
    assert_eq!(tokio::time::timeout(SOON, parent.failed()).await.unwrap(), "pump: dry");
    let report = parent.shutdown(Duration::from_millis(100)).await;
    assert_eq!(report.aborted, ["stuck"]);
    assert!(two.token().is_cancelled());
}

#[tokio::test]
async fn a_task_runs_under_the_dispatch_of_its_service() {
    let telemetry = Telemetry::new("own", &crate::TelemetryConfig::default()).unwrap();
    let supervisor = Supervisor::new(telemetry);
    let (tell, told) = tokio::sync::oneshot::channel();
    supervisor.spawn("traced", async move {
        let span = tracing::info_span!("inside");
        let _ = tell.send(span.in_scope(crate::trace_context::current_traceparent));
    });
    assert!(told.await.unwrap().is_some());
}
