//! What an operator sees of the tunnel on the broker's page of metrics.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wolfpack_types::{Endpoint, WolfId};

use crate::support::{Fleet, SOON, echo, eventually, target};

/// A metric's value, summed over the rows that have `label`.
fn value(page: &str, name: &str, label: &str) -> f64 {
    page.lines()
        .filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with(['{', ' ']) && rest.contains(label)
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_dials_bytes_and_ends_are_told_by_name() {
    let fleet = Fleet::start().await;
    let page = || fleet.running.context.telemetry.prometheus();
    let endpoint = fleet.wolf_to(echo().await).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    let refused = fleet.dialer().dial(&endpoint, &target("desktop"), SOON).await.unwrap_err();
    let refused = format!("result=\"{}\"", refused.reason);
    let shown = page();
    for (name, label, want) in [
        ("tunnel_attached", "", 1.0),
        ("tunnel_connections", "", 1.0),
        ("tunnel_dials_total", "result=\"OK\"", 1.0),
        ("tunnel_dials_total", &refused, 1.0),
        ("tunnel_dial_seconds_count", "", 2.0),
    ] {
        assert_eq!(value(&shown, name, label), want, "{name} {label}: {shown}");
    }
    assert!(value(&shown, "tunnel_parked_streams", "") >= 1.0, "{shown}");
    for direction in ["up", "down"] {
        let label = format!("direction=\"{direction}\"");
        assert!(value(&shown, "tunnel_carried_bytes_total", &label) >= 5.0, "{shown}");
    }
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    stream.close().await.unwrap();
    let ended = || value(&page(), "tunnel_connections_ended_total", "reason=\"OK\"");
    eventually(|| ended() == 1.0, &page).await;
    assert_eq!(value(&page(), "tunnel_connections", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_agent_or_for_its_rate_is_told() {
    let fleet = Fleet::with(|config| config.limits.bytes_per_second = 1024).await;
    let page = || fleet.running.context.telemetry.prometheus();
    let shown = |name: &str| value(&page(), name, "");
    let (dialer, away) = (fleet.dialer(), Endpoint::Wolf(WolfId::new()));
    let waits = tokio::spawn(async move { dialer.dial(&away, &target("port"), SOON).await });
    eventually(|| shown("tunnel_waiting_dials") == 1.0, &page).await;
    waits.abort();
    eventually(|| shown("tunnel_waiting_dials") == 0.0, &page).await;
    assert!(page().contains("\ntunnel_waiting_dials"), "and not gone");

    let mut stream = fleet.dial(&fleet.wolf_to(echo().await).await).await.unwrap();
    stream.write_all(&[7; 8 * 1024]).await.unwrap();
    eventually(|| shown("tunnel_throttled_total") >= 1.0, &page).await;
}
