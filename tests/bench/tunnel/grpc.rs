//! gRPC over a way: unary calls of many callers over one channel.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use wolfpack_rpc::RpcChannel;

use crate::quantiles::quantile;

/// Calls in a second, and the 99th percentile of their times in microseconds.
///
/// # Errors
/// When a call fails.
pub(super) async fn unary(
    channel: &RpcChannel,
    callers: usize,
    time: Duration,
) -> anyhow::Result<(f64, f64)> {
    let client = HealthClient::new(channel.clone());
    // Connects, and dials where there is a tunnel.
    client.clone().check(HealthCheckRequest::default()).await?;
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let mut client = client.clone();
        running.spawn(async move {
            let mut sample = Vec::new();
            while begun.elapsed() < time {
                let sent = Instant::now();
                client.check(HealthCheckRequest::default()).await?;
                sample.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            anyhow::Ok(sample)
        });
    }
    let mut sample = Vec::new();
    while let Some(ended) = running.join_next().await {
        sample.extend(ended??);
    }
    Ok((sample.len() as f64 / begun.elapsed().as_secs_f64(), quantile(&sample, 0.99)))
}
