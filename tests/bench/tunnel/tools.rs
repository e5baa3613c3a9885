//! The tools of others that measure: iperf3 and wrk.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

/// MiB in a second that arrive, over so many streams at once.
pub(super) async fn iperf(
    to: SocketAddr,
    streams: usize,
    way: Way,
    time: Duration,
) -> anyhow::Result<f64> {
    let mut command = Command::new("iperf3");
    command.args(["--json", "--client", &to.ip().to_string(), "--port", &to.port().to_string()]);
    command.args(["--parallel", &streams.to_string(), "--time", &seconds(time), "--omit", "0.3"]);
    if way == Way::Down {
        command.arg("--reverse");
    }
    let output = command.output().await.context("cannot start iperf3")?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .filter(|bits| *bits > 0.0)
        .map(|bits| bits / 8.0 / 1024.0 / 1024.0)
        .with_context(|| format!("iperf3 measured nothing: {}", report["error"]))
}

/// Requests in a second of so many keep-alive clients.
pub(super) async fn wrk(url: &str, clients: usize, time: Duration) -> anyhow::Result<f64> {
    let threads = clients.min(1).to_string();
    let mut command = Command::new("wrk");
    command.args(["-t", &threads, "-c", &clients.to_string(), "-d", &seconds(time), url]);
    let output = command.output().await.context("cannot start wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        !text.contains("Socket errors") && !text.contains("Non-2xx"),
        "wrk met errors: {text}"
    );
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .and_then(|value| value.trim().parse().ok())
        .with_context(|| format!("wrk said {text:?}"))
}

/// Whole seconds, as both tools want them; at least one.
fn seconds(time: Duration) -> String {
    time.as_secs().max(1).to_string()
}
