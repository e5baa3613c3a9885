//! What is measured, of each peer that can be measured so.

use std::time::Duration;

use anyhow::Context as _;

use super::awake::Awake;
use super::clients;
use super::far::Far;
use super::grpc;
use super::peers::Peer;
use super::tools::{self, Way};

/// How long each measurement takes, unless said otherwise.
const EACH: Duration = Duration::from_secs(2);
/// How long one client asks over one connection.
const ASKS: Duration = Duration::from_millis(600);
/// Over a long way, which takes a while to be full.
const FAR: Duration = Duration::from_secs(4);
/// How long one may take, with all of its waiting.
const LONGEST: Duration = Duration::from_secs(120);

/// All of them, in their order within a round.
pub(super) const MEASURES: [&str; 12] = [
    "stream1_up",
    "stream1_down",
    "streams16",
    "one_client",
    "one_client_asleep",
    "c64",
    "conns16",
    "grpc64",
    "rtt40_first_byte_warm",
    "rtt40_first_byte_cold",
    "rtt40_stream_up",
    "rtt40_stream_down",
];

/// A value, its name and its unit.
pub(super) type Value = (&'static str, &'static str, f64);

const SPEED: &str = "MiB/s";
const RATE: &str = "1/s";
const ROUND_TRIPS: &str = "round trips";

/// The names of the rows that a measure gives, for one that gave none.
pub(super) fn rows_of(measure: &str) -> &'static [(&'static str, &'static str)] {
    match measure {
        "stream1_up" => &[("stream1_up", SPEED)],
        "stream1_down" => &[("stream1_down", SPEED)],
        "streams16" => &[("streams16", SPEED)],
        "one_client" => &[("p50", "us"), ("p99", "us")],
        "one_client_asleep" => &[("p50_asleep", "us"), ("p99_asleep", "us")],
        "c64" => &[("c64_rps", RATE)],
        "conns16" => &[("conns16", RATE)],
        "grpc64" => &[("grpc64_rps", RATE), ("grpc64_p99", "us")],
        "rtt40_first_byte_warm" => &[("rtt40_first_byte_warm", ROUND_TRIPS)],
        "rtt40_first_byte_cold" => &[("rtt40_first_byte_cold", ROUND_TRIPS)],
        "rtt40_stream_up" => &[("rtt40_stream_up", SPEED)],
        "rtt40_stream_down" => &[("rtt40_stream_down", SPEED)],
        _ => &[],
    }
}

/// How often it is measured within a round, the peers in turn each time. Where one
/// client asks, what the kernel makes of its cores lasts as long as its connection
/// and is worth more than what is compared, so a round has several of those.
pub(super) fn turns(measure: &str) -> usize {
    match measure {
        "one_client" | "one_client_asleep" => 4,
        _ => 1,
    }
}

/// Takes one measurement, which may give several values.
///
/// # Errors
/// When it cannot be taken; nothing of it is left behind that would disturb the
/// next one.
pub(super) async fn take(measure: &str, peer: &Peer) -> anyhow::Result<Vec<Value>> {
    let taken = tokio::time::timeout(LONGEST, taken(measure, peer)).await;
    let values = taken.context("the measurement did not end")??;
    let rows = rows_of(measure).iter().zip(values);
    Ok(rows.map(|((name, unit), value)| (*name, *unit, value)).collect())
}

/// The values of the rows of [`rows_of`].
async fn taken(measure: &str, peer: &Peer) -> anyhow::Result<Vec<f64>> {
    let front = |name: &str| {
        peer.front.get(name).copied().with_context(|| format!("{} has no {name}", peer.name))
    };
    Ok(match measure {
        "stream1_up" => vec![tools::iperf(front("iperf")?, 1, Way::Up, EACH).await?],
        "stream1_down" => vec![tools::iperf(front("iperf")?, 1, Way::Down, EACH).await?],
        "streams16" => vec![tools::iperf(front("iperf")?, 16, Way::Up, EACH).await?],
        "one_client" | "one_client_asleep" => {
            let _awake = (measure == "one_client").then(Awake::start).transpose()?;
            let http = front("http")?;
            let (p50, p99) = blocking(move || clients::one_client(http, ASKS)).await?;
            vec![p50, p99]
        }
        "c64" => vec![tools::wrk(&peer.http.url, &peer.http.headers, 64, EACH).await?],
        "conns16" => {
            let echo = front("echo")?;
            vec![blocking(move || clients::connections(echo, 16, EACH)).await?]
        }
        "grpc64" => {
            let channel =
                peer.grpc.as_ref().with_context(|| format!("{} has no gRPC", peer.name))?;
            let (rate, p99) = grpc::unary(channel, 64, EACH).await?;
            vec![rate, p99]
        }
        "rtt40_first_byte_warm" => vec![far(peer)?.warm().await?],
        "rtt40_first_byte_cold" => vec![far(peer)?.cold().await?],
        "rtt40_stream_up" => vec![tools::iperf(front("iperf")?, 1, Way::Up, FAR).await?],
        "rtt40_stream_down" => vec![tools::iperf(front("iperf")?, 1, Way::Down, FAR).await?],
        _ => anyhow::bail!("there is no measure {measure:?}"),
    })
}

fn far(peer: &Peer) -> anyhow::Result<&Far> {
    peer.far.as_ref().with_context(|| format!("{} is not far", peer.name))
}

/// Work that blocks its thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
