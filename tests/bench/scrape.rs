//! What a broker says at its metrics port.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sum of a metric over its labels; `None` when it is not there yet.
///
/// # Errors
/// When the port does not answer within 10 s.
pub(crate) async fn metric(at: SocketAddr, name: &str) -> anyhow::Result<Option<f64>> {
    let [value] = metrics(at, [name]).await?;
    Ok(value)
}

/// As [`metric`], several of one answer.
///
/// # Errors
/// As [`metric`].
pub(crate) async fn metrics<const N: usize>(
    at: SocketAddr,
    names: [&str; N],
) -> anyhow::Result<[Option<f64>; N]> {
    let text = tokio::time::timeout(PATIENCE, page(at)).await.context("no answer in time")??;
    Ok(names.map(|name| sum(&text, name)))
}

async fn page(at: SocketAddr) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect(at).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{at} answers {answer}");
    Ok(answer)
}

fn sum(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let (metric, value) = line.rsplit_once(' ')?;
        let own = metric.split('{').next()? == name;
        own.then(|| value.parse::<f64>().ok())?
    });
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_no_other_is() {
        let text = "# TYPE a gauge\na{x=\"1 2\"} 2\na{x=\"3\"} 1.5\nab 7\n";
        assert_eq!(sum(text, "a"), Some(3.5));
        assert_eq!(sum(text, "ab"), Some(7.0));
        assert_eq!(sum(text, "b"), None);
    }
}
