use std::path::Path;

use parking_lot::Mutex;
use wolfpack_runtime::Telemetry;

use super::super::order::Cause;
use super::*;

/// Starts engines that only tell what they are told to.
#[derive(Debug, Default)]
struct Fake {
    starts: Mutex<Vec<(bool, mpsc::Sender<Report>, CancellationToken)>>,
    refuses: Mutex<Option<Refusal>>,
    slow: Duration,
}

struct Tell(CancellationToken);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[async_trait]
impl Starter for Fake {
    async fn start(&self, cleaning: bool) -> Result<Started, Refusal> {
        tokio::time::sleep(self.slow).await;
        if let Some(refusal) = self.refuses.lock().clone() {
            return Err(refusal);
        }
        let (reports, receiver) = mpsc::channel(8);
        let let_go = CancellationToken::new();
        let ready = Report::Ready {
            socket: "/engine.sock".into(),
            version: "1".into(),
            storage_driver: "overlay2".into(),
            took_ms: 1,
        };
        reports.try_send(ready).unwrap();
        self.starts.lock().push((cleaning, reports, let_go.clone()));
        Ok(Started { reports: receiver, leash: Box::new(Tell(let_go)), guard: Box::new(()) })
    }
}

impl Fake {
    fn count(&self) -> usize {
        self.starts.lock().len()
    }

    fn tell(&self, report: Report) {
        self.starts.lock().last().unwrap().1.try_send(report).unwrap();
    }

    /// The engine is gone.
    fn end(&self) {
        let last = self.starts.lock().len() - 1;
        self.starts.lock()[last].1 = mpsc::channel(1).0;
    }
}

fn gate(fake: &Arc<Fake>) -> (Gate, Supervisor) {
    let supervisor = Supervisor::new(Telemetry::disabled("test"));
    (Gate::start(Arc::clone(fake) as Arc<dyn Starter>, &supervisor), supervisor)
}

async fn until(what: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < limit, "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn many_at_once_wait_for_one_start() {
    let fake = Arc::new(Fake { slow: Duration::from_millis(100), ..Fake::default() });
    let (gate, _supervisor) = gate(&fake);
    assert!(gate.running().is_none());
    let asking = (0..200).map(|_| gate.engine());
    for answer in futures::future::join_all(asking).await {
        assert_eq!(answer.unwrap().socket, Path::new("/engine.sock"));
    }
    assert_eq!(fake.count(), 1);
    assert!(gate.running().is_some());
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_tried_again_later() {
    let fake = Arc::new(Fake::default());
    let absent = Refusal { cause: Cause::Absent, message: "no dockerd".into() };
    *fake.refuses.lock() = Some(absent.clone());
    let (gate, _supervisor) = gate(&fake);
    assert_eq!(gate.engine().await.unwrap_err(), absent);
    let early = gate.engine().await.unwrap_err();
    assert!(early.message.starts_with("no dockerd (the next try"), "{early}");
    *fake.refuses.lock() = None;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(gate.engine().await.is_ok());
}

#[tokio::test]
async fn one_that_dies_is_started_at_the_next_use() {
    let fake = Arc::new(Fake::default());
    let (gate, _supervisor) = gate(&fake);
    gate.engine().await.unwrap();
    fake.end();
    until(|| gate.running().is_none()).await;
    assert_eq!(fake.count(), 1, "nobody used it");
    gate.engine().await.unwrap();
    assert_eq!(fake.count(), 2);
}

#[tokio::test]
async fn a_full_one_comes_back_to_make_room() {
    let fake = Arc::new(Fake::default());
    let (gate, _supervisor) = gate(&fake);
    let ready = gate.engine().await.unwrap();
    assert!(ready.restricted.borrow().is_none());
    fake.tell(Report::Full(DiskUse { used: 11, limit: 10 }));
    let let_go = fake.starts.lock()[0].2.clone();
    let_go.cancelled().await;
    fake.end();
    until(|| gate.running().is_none()).await;
    let ready = gate.engine().await.unwrap();
    assert_eq!(*ready.restricted.borrow(), Some(DiskUse { used: 11, limit: 10 }));
    assert!(fake.starts.lock()[1].0, "it was told so");
    fake.tell(Report::Roomy(DiskUse { used: 1, limit: 10 }));
    until(|| ready.restricted.borrow().is_none()).await;
    assert!(gate.engine().await.unwrap().restricted.borrow().is_none());
    assert_eq!(fake.count(), 2);
}

#[tokio::test]
async fn it_lets_go_of_the_engine_at_the_end() {
    let fake = Arc::new(Fake::default());
    let (gate, supervisor) = gate(&fake);
    gate.engine().await.unwrap();
    let let_go = fake.starts.lock()[0].2.clone();
    let stopping = tokio::spawn({
        let gate = gate.clone();
        async move { gate.stop(Duration::from_secs(20)).await }
    });
    let_go.cancelled().await;
    fake.end();
    stopping.await.unwrap();
    assert!(gate.engine().await.is_err());
    let report = supervisor.shutdown(Duration::from_secs(5)).await;
    assert!(report.aborted.is_empty() && report.stuck.is_empty(), "{report:?}");
}
