//! The configuration of this service. `--dump-config` prints it with defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_rpc::client::PeerConfig;
use wolfpack_rpc::tls::TlsConfig;
use wolfpack_runtime::config::Validate;
use wolfpack_runtime::{HasTelemetry, TelemetryConfig};
use wolfpack_store::DatabaseConfig;

/// The sandbox-manager's configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where other services reach it. Default: 127.0.0.1:7004.
    pub listen: SocketAddr,
    /// The certificate it shows to clients and peers, and the roots it trusts.
    /// With it clients must show one, too; without it nothing is encrypted,
    /// which is for one machine only.
    pub tls: Option<TlsConfig>,
    /// `/metrics` and `/healthz` over plain HTTP; absent for none.
    pub metrics: Option<SocketAddr>,
    /// The registry.
    pub registry: PeerConfig,
    /// The scheduler.
    pub scheduler: PeerConfig,
    /// The tunnel-broker.
    pub tunnel_broker: PeerConfig,
    /// Where browsers find the ports of sandboxes: the gateway's, with a star
    /// for what names the port, such as `https://*.box.example.com:8443`. Without
    /// it links are tokens only.
    pub ingress_url: Option<String>,
    /// Where its rows are.
    pub database: DatabaseConfig,
    /// Logs, traces and metrics.
    pub telemetry: TelemetryConfig,
    /// How long a stop may take. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// What is filled in for users.
    pub defaults: DefaultsConfig,
    /// How sandboxes are brought to where they should be.
    pub reconcile: ReconcileConfig,
    /// How a sandbox's agent is reached.
    pub reach: ReachConfig,
    /// How watches are fed.
    pub watch: WatchConfig,
    /// What is kept, and for how long.
    pub retention: RetentionConfig,
}

/// What is filled in where a user says nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultsConfig {
    /// The image without a desktop.
    pub image: String,
    /// The image with a desktop.
    pub desktop_image: String,
    /// The image with Docker, NESTED or SHARED.
    pub docker_image: String,
    /// The image with both.
    pub desktop_docker_image: String,
}

/// Bounds of the reconciler.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconcileConfig {
    /// How long a replica owns a row without renewing. Default: 15 s.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How often every row is looked at without a reason. Default: 15 s.
    #[serde(with = "humantime_serde")]
    pub resync: Duration,
    /// Short steps of starting sandboxes (placing, binding, saving) that are done
    /// at a time. Waiting for an image or an agent does not count. Default: 256.
    pub starts: usize,
    /// Short steps of all other sandboxes that are done at a time. Waiting for a
    /// wolf to remove a container does not count. Default: 256.
    pub ends: usize,
    /// Containers that are made at a time, their images fetched; a sixteenth of
    /// them on one wolf. Default: 8192.
    pub creates: usize,
    /// Agents that are waited for at a time; a sixteenth of them on one wolf.
    /// Default: 8192.
    pub agents: usize,
    /// Containers that are removed at a time; a sixteenth of them on one wolf.
    /// Default: 1024.
    pub removals: usize,
    /// How long a sandbox may look for a wolf with room. Default: 60 s.
    #[serde(with = "humantime_serde")]
    pub wait_for_wolf: Duration,
    /// How often it asks the scheduler again meanwhile. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub place_again: Duration,
    /// Placements tried before it fails. Default: 5.
    pub placements: u32,
    /// How long a wolf may take to admit a reservation. Default: 20 s.
    #[serde(with = "humantime_serde")]
    pub admit: Duration,
    /// How long a wolf may take to fetch the image and start the container.
    /// Default: 15 min.
    #[serde(with = "humantime_serde")]
    pub pull: Duration,
    /// How long the agent inside may take to become ready. Default: 60 s.
    #[serde(with = "humantime_serde")]
    pub start: Duration,
    /// After how long the wolf's tunnel is asked for readiness, too, when the
    /// sandbox's own has not attached. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub tunnel_grace: Duration,
    /// Times an engine may fail in one boot. Default: 3.
    pub engine_failures: u32,
    /// How long a container must be nobody's before it is removed. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub orphan_grace: Duration,
    /// Last lines of output that are kept of a sandbox that ended. Default: 200.
    pub log_lines: u32,
    /// Deadline of one call to another service. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub call: Duration,
    /// Most time between two tries of a step that fails. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub backoff: Duration,
}

/// Bounds of the ways to a sandbox's agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReachConfig {
    /// After how long without an answer over one tunnel the other is tried
    /// beside it. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub hedge: Duration,
    /// How long one tunnel may take for an answer to a probe. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub probe: Duration,
    /// How long a tunnel that failed is tried last. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub bad_path: Duration,
    /// Connections to agents that are kept open at a time. Default: 4096.
    pub channels: u64,
    /// How long an unused one is kept. Default: 1 min.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// The most bytes of one message of an agent, such as a screenshot.
    /// Default: 64 MiB.
    pub max_message: usize,
}

/// How watches are fed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// How often writes of other replicas are looked for; our own are seen at
    /// once. Default: 250 ms.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How often an idle watch gets a bookmark. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub bookmark: Duration,
    /// Events a slow watcher may lag behind before it is cut off. Default: 4096.
    pub lag: usize,
}

/// What is kept, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// How long a DELETED sandbox can still be read. Default: 1 h.
    #[serde(with = "humantime_serde")]
    pub deleted: Duration,
    /// How long a request id is remembered. Default: 24 h.
    #[serde(with = "humantime_serde")]
    pub request_ids: Duration,
    /// How often what is too old is removed. Default: 1 min.
    #[serde(with = "humantime_serde")]
    pub sweep: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let peer = |port| PeerConfig::at(format!("http://127.0.0.1:{port}"));
        Self {
            listen: at(7004),
            tls: None,
            metrics: None,
            registry: peer(7001),
            scheduler: peer(7002),
            tunnel_broker: peer(7003),
            ingress_url: None,
            database: DatabaseConfig::default(),
            telemetry: TelemetryConfig::default(),
            drain: Duration::from_secs(30),
            defaults: DefaultsConfig::default(),
            reconcile: ReconcileConfig::default(),
            reach: ReachConfig::default(),
            watch: WatchConfig::default(),
            retention: RetentionConfig::default(),
        }
    }
}

impl Default for DefaultsConfig {
    fn default() -> Self {
        Self {
            image: "wolfpack/sandbox-base:latest".to_owned(),
            desktop_image: "wolfpack/sandbox-desktop:latest".to_owned(),
            docker_image: "wolfpack/sandbox-docker:latest".to_owned(),
            desktop_docker_image: "wolfpack/sandbox-desktop-docker:latest".to_owned(),
        }
    }
}

impl Default for ReconcileConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            resync: Duration::from_secs(15),
            starts: 256,
            ends: 256,
            creates: 8192,
            agents: 8192,
            removals: 1024,
            wait_for_wolf: Duration::from_secs(60),
            place_again: Duration::from_secs(1),
            placements: 5,
            admit: Duration::from_secs(20),
            pull: Duration::from_secs(15 * 60),
            start: Duration::from_secs(60),
            tunnel_grace: Duration::from_secs(2),
            engine_failures: 3,
            orphan_grace: Duration::from_secs(10),
            log_lines: 200,
            call: Duration::from_secs(10),
            backoff: Duration::from_secs(10),
        }
    }
}

impl Default for ReachConfig {
    fn default() -> Self {
        Self {
            hedge: Duration::from_secs(1),
            probe: Duration::from_secs(5),
            bad_path: Duration::from_secs(5),
            channels: 4096,
            idle: Duration::from_secs(60),
            max_message: 64 << 20,
        }
    }
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { poll: Duration::from_millis(250), bookmark: Duration::from_secs(10), lag: 4096 }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            deleted: Duration::from_secs(3600),
            request_ids: Duration::from_secs(24 * 3600),
            sweep: Duration::from_secs(60),
        }
    }
}

impl Config {
    fn durations(&self) -> [(&'static str, Duration); 21] {
        let (reconcile, reach) = (&self.reconcile, &self.reach);
        [
            ("drain", self.drain),
            ("reconcile.lease", reconcile.lease),
            ("reconcile.resync", reconcile.resync),
            ("reconcile.wait_for_wolf", reconcile.wait_for_wolf),
            ("reconcile.place_again", reconcile.place_again),
            ("reconcile.admit", reconcile.admit),
            ("reconcile.pull", reconcile.pull),
            ("reconcile.start", reconcile.start),
            ("reconcile.tunnel_grace", reconcile.tunnel_grace),
            ("reconcile.orphan_grace", reconcile.orphan_grace),
            ("reconcile.call", reconcile.call),
            ("reconcile.backoff", reconcile.backoff),
            ("reach.hedge", reach.hedge),
            ("reach.probe", reach.probe),
            ("reach.bad_path", reach.bad_path),
            ("reach.idle", reach.idle),
            ("watch.poll", self.watch.poll),
            ("watch.bookmark", self.watch.bookmark),
            ("retention.deleted", self.retention.deleted),
            ("retention.request_ids", self.retention.request_ids),
            ("retention.sweep", self.retention.sweep),
        ]
    }

    fn numbers(&self) -> [(&'static str, bool); 10] {
        [
            ("reconcile.starts", self.reconcile.starts == 0),
            ("reconcile.ends", self.reconcile.ends == 0),
            ("reconcile.creates", self.reconcile.creates == 0),
            ("reconcile.agents", self.reconcile.agents == 0),
            ("reconcile.removals", self.reconcile.removals == 0),
            ("reconcile.placements", self.reconcile.placements == 0),
            ("reconcile.engine_failures", self.reconcile.engine_failures == 0),
            ("reach.channels", self.reach.channels == 0),
            ("reach.max_message", self.reach.max_message == 0),
            ("watch.lag", self.watch.lag == 0),
        ]
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.database.faults();
        faults.extend(self.telemetry.faults());
        for (key, value) in self.durations() {
            if value.is_zero() {
                faults.push(format!("{key} must be longer than nothing, such as 5s"));
            }
        }
        for (key, is_zero) in self.numbers() {
            if is_zero {
                faults.push(format!("{key} must be at least 1"));
            }
        }
        for (key, image) in [
            ("defaults.image", &self.defaults.image),
            ("defaults.desktop_image", &self.defaults.desktop_image),
            ("defaults.docker_image", &self.defaults.docker_image),
            ("defaults.desktop_docker_image", &self.defaults.desktop_docker_image),
        ] {
            if image.is_empty() {
                faults.push(format!("{key} is empty; name an image that the wolves have"));
            }
        }
        if let Some(url) = &self.ingress_url
            && !is_ingress_url(url)
        {
            faults.push(format!(
                "ingress_url is {url:?}; write https://*. and a domain of the gateway's ingress.domains"
            ));
        }
        faults
    }
}

/// A scheme, the star as the first label, and a host.
fn is_ingress_url(url: &str) -> bool {
    let host = url.strip_prefix("https://*.").or_else(|| url.strip_prefix("http://*."));
    host.is_some_and(|host| {
        let host = host.trim_end_matches('/');
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'))
    })
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
    fn the_defaults_lack_only_a_database() {
        assert_eq!(Config::default().faults().len(), 1);
        let config = Config { database: DatabaseConfig::memory(), ..Config::default() };
        assert_eq!(config.faults(), Vec::<String>::new());
    }

    #[test]
    fn an_ingress_url_has_its_star_first() {
        for good in ["https://*.box.example.com", "http://*.localhost:8080", "https://*.a/"] {
            assert!(is_ingress_url(good), "{good}");
        }
        for bad in
            ["https://box.example", "*.box", "https://x.*.box", "https://*.", "https://*.a/b"]
        {
            let config = Config {
                database: DatabaseConfig::memory(),
                ingress_url: Some(bad.to_owned()),
                ..Config::default()
            };
            assert_eq!(config.faults().len(), 1, "{bad}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let mut config = Config { database: DatabaseConfig::memory(), ..Config::default() };
        config.reconcile.lease = Duration::ZERO;
        config.reconcile.placements = 0;
        config.reconcile.removals = 0;
        config.defaults.image.clear();
        config.watch.lag = 0;
        assert_eq!(config.faults().len(), 5, "{:?}", config.faults());
    }
}
