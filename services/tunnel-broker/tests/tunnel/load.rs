//! Many at once. Bounds are generous: they tell stalled from running.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::wrappers::ReceiverStream;
use wolfpack_proto::tunnel::v1::dial_service_client::DialServiceClient;
use wolfpack_proto::tunnel::v1::{DialOpen, DialRequest, dial_request};
use wolfpack_tunnel::splice::Direction;
use wolfpack_tunnel::{Dialer, TunnelStream};
use wolfpack_types::{Endpoint, WolfId};

use crate::support::{
    Fleet, SOON, Tcp, attached, echo, eventually, silent, source, talker, target,
};

/// How much a healthy download is.
const DOWNLOAD: usize = 32 << 20;

/// A wolf whose targets talk without end, echo, and send [`DOWNLOAD`] bytes.
async fn busy_wolf(fleet: &Fleet) -> Endpoint {
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("port", Arc::new(Tcp(talker().await)));
    builder.dial_target("desktop", Arc::new(Tcp(echo().await)));
    builder.dial_target("agent", Arc::new(Tcp(source(DOWNLOAD).await)));
    attached(&builder.start(&fleet.context.supervisor)).await;
    Endpoint::Wolf(wolf)
}

/// So many readers that stopped after the first byte, once every window is full.
async fn stalled(fleet: &Fleet, endpoint: &Endpoint, count: usize) -> Vec<TunnelStream> {
    let dialer = fleet.dialer();
    let mut stalled = Vec::new();
    for _ in 0..count {
        let mut stream = dialer.dial(endpoint, &target("port"), SOON).await.unwrap();
        stream.read_u8().await.unwrap();
        stalled.push(stream);
    }
    let totals = &fleet.running.broker.totals;
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = totals.bytes(Direction::Down);
        if now == last {
            return stalled;
        }
        last = now;
    }
}

async fn request(dialer: &Dialer, endpoint: &Endpoint) -> Duration {
    let began = Instant::now();
    let mut stream = dialer.dial(endpoint, &target("desktop"), SOON).await.unwrap();
    stream.write_all(b"healthy").await.unwrap();
    stream.read_exact(&mut [0; 7]).await.unwrap();
    began.elapsed()
}

async fn download(dialer: &Dialer, endpoint: &Endpoint) -> Duration {
    let mut stream = dialer.dial(endpoint, &target("agent"), SOON).await.unwrap();
    let began = Instant::now();
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    while total < DOWNLOAD {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "{total} bytes are not all");
        total += read;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_or_two_hundred_stalled_readers_do_not_stop_a_healthy_request() {
    let fleet = Fleet::start().await;
    let endpoint = busy_wolf(&fleet).await;
    let dialer = fleet.dialer();
    let mut all = Vec::new();
    for count in [1, 16, 200] {
        all.extend(stalled(&fleet, &endpoint, count - all.len()).await);
        let mut took = Vec::new();
        for _ in 0..51 {
            took.push(request(&dialer, &endpoint).await);
        }
        took.sort_unstable();
        let of = |nth: usize| took[(took.len() - 1) * nth / 100];
        let (median, most, worst) = (of(50), of(90), of(100));
        assert!(
            median < Duration::from_millis(50)
                && most < Duration::from_millis(250)
                && worst < Duration::from_secs(2),
            "beside {count} who read nothing nine of ten healthy requests took {most:?} at most, \
             half of them {median:?}, and one {worst:?}"
        );
    }
    // And the stalled ones go on as soon as they are read.
    let mut some = vec![0; 4 << 20];
    tokio::time::timeout(SOON, all[0].read_exact(&mut some)).await.expect("goes on").unwrap();
    drop(all);
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

/// In turns, and the median of each: what the machine does beside takes from any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_stalled_readers_leave_a_healthy_download_half_its_speed() {
    let fleet = Fleet::start().await;
    let endpoint = busy_wolf(&fleet).await;
    let dialer = fleet.dialer();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for _ in 0..3 {
            alone.push(download(&dialer, &endpoint).await);
        }
        let stalled = stalled(&fleet, &endpoint, 200).await;
        for _ in 0..3 {
            beside.push(download(&dialer, &endpoint).await);
        }
        drop(stalled);
        fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    }
    let [alone, beside] = [alone, beside].map(|mut took| {
        took.sort_unstable();
        took[took.len() / 2]
    });
    assert!(beside < 2 * alone, "a healthy download took {beside:?}, and {alone:?} alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_short_connections_leave_nothing() {
    let fleet = Fleet::start().await;
    let endpoint = fleet.wolf_to(echo().await).await;
    let dialer = fleet.dialer();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..16_u32 {
        let (dialer, endpoint) = (dialer.clone(), endpoint.clone());
        workers.spawn(async move {
            for at in 0..125_u32 {
                let mut stream = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
                stream.write_all(&at.to_be_bytes()).await.unwrap();
                assert_eq!(stream.read_u32().await.unwrap(), at);
                match (worker + at) % 3 {
                    // Both finish, one finishes, or the caller just leaves.
                    0 => {
                        stream.shutdown().await.unwrap();
                        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
                    }
                    1 => stream.shutdown().await.unwrap(),
                    _ => {}
                }
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    // The tunnel is as good as new.
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dials_that_are_given_up_leave_nothing() {
    let fleet = Fleet::start().await;
    let endpoint = fleet.wolf_to(silent().await).await;
    let dialer = fleet.dialer();
    let port = target("port");
    for at in 0..500_u64 {
        let dial = dialer.dial(&endpoint, &port, SOON);
        let _ = tokio::time::timeout(Duration::from_micros(at % 50 * 40), dial).await;
    }
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    assert!(fleet.dial(&endpoint).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_frames_of_a_byte_that_a_program_does_not_read_cost_nobody_else() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    let mut program = builder.listen("desktop");
    builder.dial_target("port", Arc::new(Tcp(echo().await)));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let endpoint = Endpoint::Wolf(wolf);
    let session = fleet.running.broker.find(&endpoint).unwrap();
    // Frames of their own, which a stream of ours would make one of.
    let (frames, queue) = tokio::sync::mpsc::channel(10_002);
    let open = DialOpen {
        endpoint: endpoint.to_string(),
        target: "desktop".into(),
        ..DialOpen::default()
    };
    frames.try_send(DialRequest { frame: Some(dial_request::Frame::Open(open)) }).unwrap();
    let data =
        |byte| DialRequest { frame: Some(dial_request::Frame::Data(Bytes::from(vec![byte]))) };
    for _ in 0..10_000 {
        frames.try_send(data(b'x')).unwrap();
    }
    let mut caller = DialServiceClient::new(fleet.service_channel("sandbox-manager"));
    let mut answers = caller.dial(ReceiverStream::new(queue)).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some(), "opened");
    let mut unread = tokio::time::timeout(SOON, program.accept()).await.unwrap().unwrap();
    let totals = &fleet.running.broker.totals;
    let passed = || totals.bytes(Direction::Up) >= 10_000;
    eventually(passed, || format!("{} came through", totals.bytes(Direction::Up))).await;
    // The connection of the tunnel lives, and others are served on it.
    assert!(fleet.dial(&endpoint).await.is_ok());
    frames.send(data(b'y')).await.unwrap();
    let mut read = vec![0; 10_001];
    tokio::time::timeout(SOON, unread.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!((read[0], read[9_999], read[10_000]), (b'x', b'x', b'y'));
    let present = fleet.running.broker.find(&endpoint).unwrap();
    assert!(Arc::ptr_eq(&session, &present), "the tunnel was lost: {:?}", session.fault());
}
