//! Configuration of the gateway.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_rpc::client::PeerConfig;
use wolfpack_rpc::tls::TlsConfig;
use wolfpack_runtime::config::Validate;
use wolfpack_runtime::{HasTelemetry, TelemetryConfig};

/// Everything the gateway can be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public listener, with TLS.
    pub listen: SocketAddr,
    /// The certificate users see. Absent: that of `tls`.
    pub public_tls: Option<TlsConfig>,
    /// The gateway's identity among the services.
    pub tls: Option<TlsConfig>,
    /// A listener without TLS, for grpcurl, browsers and curl on this machine;
    /// none when absent.
    pub plaintext: Option<SocketAddr>,
    /// Allows `plaintext` on an address that other machines reach: keys and
    /// everything else then cross the network readable. `/metrics` is not
    /// served there.
    pub plaintext_beyond_loopback: bool,
    /// Where `/metrics` and `/healthz` are served without TLS for operators;
    /// nowhere when absent.
    pub metrics: Option<SocketAddr>,
    /// The registry.
    pub registry: PeerConfig,
    /// The scheduler.
    pub scheduler: PeerConfig,
    /// The tunnel broker.
    pub tunnel_broker: PeerConfig,
    /// The sandbox manager.
    pub sandbox_manager: PeerConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
    /// How often each service behind is asked whether it serves.
    #[serde(with = "humantime_serde")]
    pub health_interval: Duration,
    /// How long a screenshot over HTTP may take.
    #[serde(with = "humantime_serde")]
    pub screenshot_deadline: Duration,
    /// How many connections one address may have at once (one /64 of IPv6).
    /// Zero lifts this bound, that of its calls without a credential and that of
    /// its requests for ports, for where all users come through one balancer.
    pub connections_per_address: usize,
    /// Requests for ports of sandboxes.
    pub ingress: IngressConfig,
    /// How long a stop waits for calls that run.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let peer = |port: u16| PeerConfig::at(format!("https://127.0.0.1:{port}"));
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            public_tls: None,
            tls: None,
            plaintext: None,
            plaintext_beyond_loopback: false,
            metrics: None,
            registry: peer(7001),
            scheduler: peer(7002),
            tunnel_broker: peer(7003),
            sandbox_manager: peer(7004),
            telemetry: TelemetryConfig::default(),
            health_interval: Duration::from_secs(2),
            screenshot_deadline: Duration::from_secs(20),
            connections_per_address: 1024,
            ingress: IngressConfig::default(),
            drain: Duration::from_secs(15),
        }
    }
}

/// Requests for ports of sandboxes, on their way through tunnels.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressConfig {
    /// Domains whose every subdomain is a sandbox's: `{port}--{id}.{domain}`. The
    /// names below them are never the gateway's own; the domain itself stays it.
    /// None by default: ports are then reached by path alone.
    pub domains: Vec<String>,
    /// Requests under way at once, upgraded connections included. Default: 8192.
    pub max_requests: usize,
    /// Of these, to one sandbox; each has a connection there. Default: 512.
    pub max_requests_per_sandbox: usize,
    /// Requests that one address (one /64 of IPv6) may make in a second, with
    /// whatever credential: it is looked at before any is. Not for who comes by a
    /// listener on loopback. Default: 1000; more get 429.
    pub requests_per_address: u32,
    /// Of these, how many at once. Default: 8000.
    pub burst_per_address: u32,
    /// Connections kept for a next request, all together. Default: 1024.
    pub max_idle: usize,
    /// How long each is kept. Default: 15 s.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long to wait for a sandbox that is away and for the program in it to
    /// take the connection. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub dial_timeout: Duration,
    /// How long a program may keep still before it answers; while it takes a
    /// body it does not. Default: 5 min.
    #[serde(with = "humantime_serde")]
    pub answer_timeout: Duration,
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            max_requests: 8192,
            max_requests_per_sandbox: 512,
            requests_per_address: 1000,
            burst_per_address: 8000,
            max_idle: 1024,
            idle_timeout: Duration::from_secs(15),
            dial_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(300),
        }
    }
}

impl IngressConfig {
    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self
            .domains
            .iter()
            .filter(|domain| !is_domain(domain))
            .map(|domain| {
                format!(
                    "ingress.domains has {domain:?}, which is no domain; write one in lower case \
                     without a port, such as box.example.com"
                )
            })
            .collect();
        for (key, number) in [
            ("ingress.max_requests", self.max_requests),
            ("ingress.max_requests_per_sandbox", self.max_requests_per_sandbox),
        ] {
            if number == 0 {
                faults.push(format!("{key} is zero; write how many may be under way at once"));
            }
        }
        for (key, number) in [
            ("ingress.requests_per_address", self.requests_per_address),
            ("ingress.burst_per_address", self.burst_per_address),
        ] {
            if number == 0 {
                faults.push(format!(
                    "{key} is zero; write how many, or connections_per_address = 0 where all users \
                     come through one balancer"
                ));
            }
        }
        for (key, time) in [
            ("ingress.dial_timeout", self.dial_timeout),
            ("ingress.answer_timeout", self.answer_timeout),
        ] {
            if time.is_zero() {
                faults.push(format!("{key} is zero; write a time such as 10s"));
            }
        }
        faults
    }
}

/// Labels of lower-case letters, digits and hyphens.
fn is_domain(name: &str) -> bool {
    name.len() <= 180
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        })
}

impl Config {
    /// The certificate users see.
    #[must_use]
    pub fn public_tls(&self) -> Option<&TlsConfig> {
        self.public_tls.as_ref().or(self.tls.as_ref())
    }

    /// What is wrong with the plaintext listener, if anything.
    #[must_use]
    pub fn plaintext_fault(&self) -> Option<String> {
        let address = self.plaintext?;
        (!address.ip().is_loopback() && !self.plaintext_beyond_loopback).then(|| {
            format!(
                "plaintext is {address}, which other machines reach: api keys would cross the \
                 network readable; use 127.0.0.1 or set plaintext_beyond_loopback = true"
            )
        })
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.telemetry.faults();
        faults.extend(self.plaintext_fault());
        faults.extend(self.ingress.faults());
        if self.public_tls().is_none() {
            faults.push(
                "tls is not set; write tls.certificate_file, tls.key_file and tls.roots_file"
                    .to_owned(),
            );
        }
        for (key, time) in [
            ("health_interval", self.health_interval),
            ("screenshot_deadline", self.screenshot_deadline),
        ] {
            if time.is_zero() {
                faults.push(format!("{key} is zero; write a time such as 2s"));
            }
        }
        for (key, peer) in [
            ("registry", &self.registry),
            ("scheduler", &self.scheduler),
            ("tunnel_broker", &self.tunnel_broker),
            ("sandbox_manager", &self.sandbox_manager),
        ] {
            if peer.address.is_empty() {
                faults.push(format!("{key}.address is empty; write https://HOST:PORT"));
            }
        }
        faults
    }
}

impl HasTelemetry for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn drain(&self) -> Duration {
        self.drain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_written_as_it_is_compared() {
        let faults = |domain: &str| {
            IngressConfig { domains: vec![domain.to_owned()], ..IngressConfig::default() }.faults()
        };
        for good in ["localhost", "box.example.com", "a-1.b"] {
            assert_eq!(faults(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["", ".localhost", "localhost.", "Box.example", "a..b", "a:80", "-a.b", "*.b"] {
            assert_eq!(faults(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn plaintext_stays_on_this_machine_unless_told_otherwise() {
        let with = |address: &str, beyond| Config {
            plaintext: Some(address.parse().unwrap()),
            plaintext_beyond_loopback: beyond,
            ..Config::default()
        };
        assert_eq!(with("127.0.0.1:8080", false).plaintext_fault(), None);
        assert_eq!(with("[::1]:8080", false).plaintext_fault(), None);
        assert!(with("0.0.0.0:8080", false).plaintext_fault().is_some());
        assert!(with("10.1.2.3:8080", false).plaintext_fault().is_some());
        assert_eq!(with("10.1.2.3:8080", true).plaintext_fault(), None);
        assert_eq!(with("0.0.0.0:8080", false).faults().len(), 2, "and tls is missing");
    }
}
