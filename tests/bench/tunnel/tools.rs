//! The tools of others that measure: iperf3 and wrk.

use std::net::SocketAddr;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;

/// How much longer than its measurement a tool may take.
const GRACE: Duration = Duration::from_secs(15);
/// How long to ask again for the server of iperf3, which serves one client at a
/// time and may still be at the end of the one before.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

/// MiB in a second that arrive, over so many streams at once.
///
/// # Errors
/// When nothing was measured, also because the server was at another test for
/// too long.
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
    let begun = Instant::now();
    loop {
        let output = finish(&mut command, time).await?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let error = report["error"].as_str().unwrap_or_default();
        let received = report["end"]["sum_received"]["bits_per_second"].as_f64();
        match received.filter(|bits| *bits > 0.0 && error.is_empty()) {
            Some(bits) => return Ok(bits / 8.0 / 1024.0 / 1024.0),
            None if not_yet(error) && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            None => anyhow::bail!("iperf3 measured nothing: {error}"),
        }
    }
}

/// Whether the server may only be at the end of another test: it says so, or a
/// tunnel that cuts the refusal short leaves a control connection that broke
/// before the test began.
fn not_yet(error: &str) -> bool {
    ["busy", "unable to connect", "control socket", "receive control", "unable to send cookie"]
        .iter()
        .any(|part| error.contains(part))
}

/// Requests in a second of so many keep-alive clients.
///
/// # Errors
/// When a request failed, or all did.
pub(super) async fn wrk(
    url: &str,
    headers: &[String],
    clients: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let mut command = Command::new("wrk");
    command.args(["-t", "1", "-c", &clients.to_string(), "-d", &seconds(time)]);
    for header in headers {
        command.args(["-H", header]);
    }
    let output = finish(command.arg(url), time).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        !text.contains("Socket errors") && !text.contains("Non-2xx"),
        "wrk met errors: {text}"
    );
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .and_then(|value| value.trim().parse().ok())
        .filter(|rate: &f64| *rate > 0.0)
        .with_context(|| format!("wrk said {text:?}"))
}

async fn finish(command: &mut Command, time: Duration) -> anyhow::Result<Output> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.kill_on_drop(true);
    let output = tokio::time::timeout(time + GRACE, command.output()).await;
    let output = output.with_context(|| format!("{program} did not end"))?;
    output.with_context(|| format!("cannot start {program}"))
}

/// Whole seconds, as both tools want them; at least one.
fn seconds(time: Duration) -> String {
    time.as_secs().max(1).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_is_asked_again_and_a_broken_path_is_not() {
        assert!(not_yet("error - the server is busy running a test. try again later"));
        assert!(not_yet("error - unable to connect to server: Connection refused"));
        assert!(!not_yet("error - unable to write to stream socket: Connection reset by peer"));
        assert!(!not_yet(""));
    }
}
