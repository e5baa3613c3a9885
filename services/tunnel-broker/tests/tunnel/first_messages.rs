//! What strangers and broken agents begin with: nothing, half of something, or
//! rubbish.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Version, header};
use http_body_util::{BodyExt as _, Full};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;
use wolfpack_rpc::{RpcChannel, from_status};
use wolfpack_tunnel::grpc::{ATTACH_PATH, CARRY_PATH, DIAL_PATH};
use wolfpack_types::{Reason, WolfId};

use crate::support::{Fleet, SOON, attached, echo};

/// How long a beginning may take, everywhere.
const BEGIN: Duration = Duration::from_secs(5);
/// When the last one must be gone, on a busy machine.
const GONE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_begins_nothing_is_dropped_while_others_are_served() {
    let fleet = Fleet::start().await;
    let agents = fleet.running.addresses.agents;
    let profile = wolfpack_rpc::Profile::agent();
    let limits = wolfpack_tunnel_broker::state::Limits::default();
    let all = [profile.handshake_deadline, profile.first_byte_deadline, limits.first_message];
    assert_eq!(all, [BEGIN; 3]);
    let mut dropped = tokio::task::JoinSet::new();
    // The first bytes of a TLS record that is 200 bytes long.
    let half_tls: &[u8] = &[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    for at in 0..40 {
        let first = if at % 2 == 0 { &[][..] } else { half_tls };
        let mut socket = TcpStream::connect(agents).await.unwrap();
        socket.write_all(first).await.unwrap();
        dropped.spawn(async move {
            let began = Instant::now();
            let mut answer = Vec::new();
            // A reset is an end, too.
            let _ = socket.read_to_end(&mut answer).await;
            began.elapsed()
        });
    }
    // Streams without a first message.
    let wolf = WolfId::new();
    for (path, channel) in [
        (ATTACH_PATH, fleet.wolf_channel(&wolf, agents)),
        (CARRY_PATH, fleet.wolf_channel(&wolf, agents)),
        (DIAL_PATH, fleet.service_channel("sandbox-manager")),
    ] {
        dropped.spawn(async move {
            let silent = Body::new(http_body_util::StreamBody::new(futures::stream::pending::<
                Result<http_body::Frame<Bytes>, Status>,
            >()));
            let began = Instant::now();
            assert_eq!(call(channel, path, silent).await, Some(Reason::FirstMessageMissing));
            began.elapsed()
        });
    }
    // Meanwhile all goes on.
    let endpoint = fleet.wolf_to(echo().await).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    while let Some(stayed) = dropped.join_next().await {
        let stayed = stayed.unwrap();
        // The clock of who waits is not that of who drops.
        assert!((BEGIN - Duration::from_millis(200)..GONE).contains(&stayed), "{stayed:?}");
    }
    assert_eq!(stream.read(&mut []).await.unwrap(), 0);
    stream.write_all(b"y").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'y');
}

/// Sends a body to a method and reads the answer to its end; gives the reason.
async fn call(channel: RpcChannel, path: &'static str, body: Body) -> Option<Reason> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = path.parse().unwrap();
    let headers = request.headers_mut();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let response = match channel.without_deadline().call(request).await {
        Ok(response) => response,
        Err(status) => return Some(from_status(&status).reason),
    };
    let in_headers = Status::from_header_map(response.headers());
    let status = match in_headers {
        Some(status) => Some(status),
        None => match response.into_body().collect().await {
            Ok(all) => all.trailers().and_then(Status::from_header_map),
            Err(status) => Some(status),
        },
    };
    status.filter(|status| status.code() != tonic::Code::Ok).map(|s| from_status(&s).reason)
}

/// Seeds: first messages as they should be, and as they went wrong before. Each
/// file is bytes in hexadecimal, with words behind `#`.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/first_messages");
    let mut seeds: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let digits: Vec<u8> = text
                .lines()
                .flat_map(|line| line.split('#').next().unwrap_or_default().bytes())
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect();
            let bytes = digits
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            (entry.file_name().into_string().unwrap(), bytes)
        })
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 12, "the corpus is there: {}", seeds.len());
    seeds
}

/// Something that is nearly one of the seeds: bytes changed, put in, left out.
fn nearly(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0_u8..4, any::<u8>());
    (prop::sample::select(seeds), prop::collection::vec(change, 0..6)).prop_map(
        |(mut bytes, changes)| {
            for (at, kind, byte) in changes {
                let at = at.index(bytes.len() + 1);
                match kind {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.truncate(at),
                }
            }
            bytes
        },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_as_a_first_message_is_refused_with_a_reason_and_costs_nobody_else() {
    let fleet = Fleet::start().await;
    let agents = fleet.running.addresses.agents;
    let wolf = WolfId::new();
    let methods = [
        (ATTACH_PATH, fleet.wolf_channel(&wolf, agents)),
        (CARRY_PATH, fleet.wolf_channel(&wolf, agents)),
        (DIAL_PATH, fleet.service_channel("sandbox-manager")),
    ];
    let play = async |bytes: &[u8]| {
        for (path, channel) in &methods {
            let body = Body::new(
                Full::new(Bytes::copy_from_slice(bytes))
                    .map_err(|never| -> Status { match never {} }),
            );
            let answer = tokio::time::timeout(SOON, call(channel.clone(), path, body)).await;
            let reason = answer.unwrap_or_else(|_| panic!("{path} hangs on {bytes:02x?}"));
            let blamed = [Reason::Internal, Reason::DependencyUnavailable];
            assert!(
                reason.is_none_or(|reason| !blamed.contains(&reason)),
                "{path}: {reason:?} of {bytes:02x?}"
            );
        }
    };
    let seeds = corpus();
    for (name, bytes) in &seeds {
        eprintln!("{name}");
        play(bytes).await;
    }
    let handle = tokio::runtime::Handle::current();
    let strategy = nearly(seeds.into_iter().map(|(_, bytes)| bytes).collect());
    tokio::task::block_in_place(|| {
        let config = ProptestConfig {
            cases: 200,
            // What went wrong once is played first from then on.
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
            source_file: Some(file!()),
            ..ProptestConfig::default()
        };
        TestRunner::new(config)
            .run(&strategy, |bytes| {
                handle.block_on(play(&bytes));
                Ok(())
            })
            .unwrap();
    });
    // The broker is as it was.
    fleet.counts([Some(0), Some(0), Some(0), Some(0)]).await;
    let agent = fleet.wolf(&WolfId::new()).start(&fleet.context.supervisor);
    attached(&agent).await;
}
