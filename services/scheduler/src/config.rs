//! Configuration of the scheduler.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_rpc::client::PeerConfig;
use wolfpack_rpc::tls::TlsConfig;
use wolfpack_runtime::config::Validate;
use wolfpack_runtime::{HasTelemetry, TelemetryConfig};
use wolfpack_store::DatabaseConfig;

/// Everything the scheduler can be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens for the other services.
    pub listen: SocketAddr,
    /// Where `/metrics` and `/healthz` are served without TLS; nowhere when
    /// absent.
    pub metrics: Option<SocketAddr>,
    /// Its certificate, also shown to the registry. Without it nobody can prove
    /// to be a service, so only open calls are answered.
    pub tls: Option<TlsConfig>,
    /// The registry.
    pub registry: PeerConfig,
    /// Reservations.
    pub database: DatabaseConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
    /// What a shape that leaves a resource out is given.
    pub defaults: Defaults,
    /// Reservations.
    pub reservations: ReservationConfig,
    /// Leadership.
    pub leadership: LeadershipConfig,
    /// How long the registry may be away before nothing is placed any more.
    #[serde(with = "humantime_serde")]
    pub stale_after: Duration,
    /// How long a stop waits for calls that run.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

/// What a shape that leaves a resource out is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// CPU time in thousandths of a core.
    pub cpu_milli: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk in bytes; 0 is not counted.
    pub disk_bytes: u64,
    /// Processes and threads at a time.
    pub pids: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { cpu_milli: 1000, memory_bytes: 1 << 30, disk_bytes: 0, pids: 1024 }
    }
}

/// Life of reservations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReservationConfig {
    /// How long one lives unconfirmed.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// How long one that ended is kept, and its request id known.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// Decisions that may wait.
    pub queue: usize,
}

impl Default for ReservationConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(60),
            retention: Duration::from_secs(7 * 24 * 3600),
            queue: 4096,
        }
    }
}

/// Times of the leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeadershipConfig {
    /// How long the row is good without renewal.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// How often it is renewed, or asked for.
    #[serde(with = "humantime_serde")]
    pub renew: Duration,
    /// After how long without renewal this process stops deciding.
    #[serde(with = "humantime_serde")]
    pub step_down: Duration,
}

impl Default for LeadershipConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(5),
            renew: Duration::from_millis(1500),
            step_down: Duration::from_secs(3),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7002)),
            metrics: None,
            tls: None,
            registry: PeerConfig { address: "https://127.0.0.1:7001".into() },
            database: DatabaseConfig {
                url: "sqlite://scheduler.db?mode=rwc".into(),
                ..DatabaseConfig::default()
            },
            telemetry: TelemetryConfig::default(),
            defaults: Defaults::default(),
            reservations: ReservationConfig::default(),
            leadership: LeadershipConfig::default(),
            stale_after: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.telemetry.faults();
        faults.extend(self.database.faults());
        let times = self.leadership;
        if !(times.renew < times.step_down && times.step_down < times.ttl) {
            faults
                .push("leadership needs renew < step_down < ttl, such as 1500ms, 3s and 5s".into());
        }
        if times.renew.is_zero() {
            faults.push("leadership.renew is zero; write a time such as 1500ms".into());
        }
        if self.reservations.ttl < Duration::from_secs(1) {
            faults.push("reservations.ttl is under a second; write a time such as 60s".into());
        }
        if self.reservations.retention < self.reservations.ttl {
            faults.push(
                "reservations.retention is shorter than reservations.ttl; make it longer".into(),
            );
        }
        if self.reservations.queue == 0 {
            faults.push("reservations.queue is zero; write a number such as 4096".into());
        }
        if self.defaults.cpu_milli == 0
            || self.defaults.memory_bytes == 0
            || self.defaults.pids == 0
        {
            faults.push("defaults.cpu_milli, memory_bytes and pids must be more than zero".into());
        }
        if self.registry.address.is_empty() {
            faults.push("registry.address is empty; write https://HOST:PORT".into());
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
    fn the_default_is_usable_and_every_fault_is_told() {
        assert_eq!(Config::default().faults(), Vec::<String>::new());
        let bad = Config {
            leadership: LeadershipConfig {
                renew: Duration::ZERO,
                step_down: Duration::ZERO,
                ..LeadershipConfig::default()
            },
            reservations: ReservationConfig {
                ttl: Duration::ZERO,
                queue: 0,
                ..ReservationConfig::default()
            },
            defaults: Defaults { pids: 0, ..Defaults::default() },
            ..Config::default()
        };
        assert_eq!(bad.faults().len(), 5, "{:?}", bad.faults());
    }
}
