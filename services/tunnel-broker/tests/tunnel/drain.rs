//! How a broker leaves.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wolfpack_types::{Fault, Reason};

use crate::support::{Fleet, SOON, echo, target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_connections_finish_and_new_work_is_refused() {
    let fleet = Fleet::with(|config| config.drain = SOON).await;
    let endpoint = fleet.wolf_to(echo().await).await;
    let dialer = fleet.dialer();
    let mut stream = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
    let stopping = {
        let context = fleet.running.context.clone();
        tokio::spawn(async move { context.supervisor.shutdown(2 * SOON).await })
    };
    let refused = async {
        loop {
            match dialer.dial(&endpoint, &target("port"), Duration::from_secs(2)).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(fault) => return fault.reason,
            }
        }
    };
    // Refused by the broker, or by its listener that is closed already.
    let reason = tokio::time::timeout(SOON, refused).await.unwrap();
    let expected = [Reason::BrokerDraining, Reason::DependencyUnavailable, Reason::ServerStopping];
    assert!(expected.contains(&reason), "{reason}");
    for _ in 0..10 {
        stream.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "a clean end");
    drop(stream);
    let report = stopping.await.unwrap();
    assert_eq!(report.aborted, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_at_the_deadline_ends_with_a_reason() {
    let fleet = Fleet::with(|config| config.drain = Duration::from_millis(400)).await;
    let endpoint = fleet.wolf_to(echo().await).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    let began = Instant::now();
    let context = fleet.running.context.clone();
    let stopping = tokio::spawn(async move { context.supervisor.shutdown(SOON).await });
    let error = tokio::time::timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).unwrap();
    assert_eq!(fault.reason, Reason::BrokerDraining);
    assert!(began.elapsed() >= Duration::from_millis(400));
    drop(stream);
    let report = stopping.await.unwrap();
    assert_eq!(report.aborted, Vec::<&str>::new());
    assert!(began.elapsed() < SOON);
}
