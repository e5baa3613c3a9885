//! What an exposure is and who may have one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use wolfpack_types::{Endpoint, ExposureId, Fault, Principal, ProjectId, Reason, Target};

use super::access::Owner;

/// Ports below belong to services of the system.
const UNPRIVILEGED: u16 = 1024;

/// Bounds of one exposure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExposureLimits {
    /// Connections at once; more are reset. At least 1.
    pub max_connections: u32,
    /// New connections in a second, and as many at once; more are reset. At least 1.
    pub connections_per_second: u32,
}

impl Default for ExposureLimits {
    fn default() -> Self {
        Self { max_connections: 1024, connections_per_second: 20_000 }
    }
}

/// A listener of the broker's own that leads to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposureSpec {
    /// Its name.
    pub id: ExposureId,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whose agent is dialed.
    pub endpoint: Endpoint,
    /// What the agent dials.
    pub target: Target,
    /// Its bounds.
    pub limits: ExposureLimits,
    /// Who asked for it; `None` for one of the configuration.
    pub origin: Option<Origin>,
}

/// Where an exposure that was asked for comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whose endpoint it was then; as soon as it is another's, nothing is let in.
    pub owner: Owner,
    /// `users/{id}` or `services/{name}`.
    pub creator: String,
    /// When it ends.
    pub expires: SystemTime,
    /// For idempotency, among those of the creator; empty for none.
    pub request_id: String,
}

/// What may be asked for, as configured.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposureRules {
    /// The address that all of them listen on.
    pub address: IpAddr,
    /// What callers are told in its place: a name or an address by which they reach
    /// it. Default: the address.
    #[serde(default)]
    pub host: Option<String>,
    /// The first port that may be given out; 0 with `last_port` 0 for any that is
    /// free.
    #[serde(default)]
    pub first_port: u16,
    /// The last one.
    #[serde(default)]
    pub last_port: u16,
    /// The most at once.
    #[serde(default = "most")]
    pub max: usize,
    /// The most at once of one project.
    #[serde(default = "most_of_a_project")]
    pub max_per_project: usize,
    /// The longest one may live.
    #[serde(default = "longest", with = "humantime_serde")]
    pub max_lifetime: Duration,
    /// The most that the limits of one may be.
    #[serde(default)]
    pub limits: ExposureLimits,
}

fn most() -> usize {
    1000
}

fn most_of_a_project() -> usize {
    50
}

fn longest() -> Duration {
    Duration::from_secs(7 * 24 * 3600)
}

impl ExposureRules {
    /// Any port that is free on an address, within the default bounds.
    #[must_use]
    pub fn any_port_of(address: IpAddr) -> Self {
        Self {
            address,
            host: None,
            first_port: 0,
            last_port: 0,
            max: most(),
            max_per_project: most_of_a_project(),
            max_lifetime: longest(),
            limits: ExposureLimits::default(),
        }
    }

    /// The ports to try, in order: `wanted`, if it may be had, or all.
    ///
    /// # Errors
    /// `REQUEST_INVALID` for a port outside of the range.
    pub fn ports(&self, wanted: Option<u16>) -> Result<std::ops::RangeInclusive<u16>, Fault> {
        match wanted {
            None => Ok(self.first_port..=self.last_port),
            Some(port)
                if (self.last_port == 0 && port >= UNPRIVILEGED)
                    || (self.first_port..=self.last_port).contains(&port) =>
            {
                Ok(port..=port)
            }
            Some(_) => Err(Fault::new(
                Reason::RequestInvalid,
                format!(
                    "this broker gives out ports {} to {}; ask for one of them or for none",
                    self.first_port.max(UNPRIVILEGED),
                    if self.last_port == 0 { u16::MAX } else { self.last_port }
                ),
            )
            .violates("port", "must be in the broker's range")),
        }
    }

    /// Where callers connect for a port that listens at `listening`.
    #[must_use]
    pub fn reached_at(&self, listening: SocketAddr) -> String {
        match self.host.as_deref() {
            None => listening.to_string(),
            Some(host) if host.parse::<Ipv6Addr>().is_ok() => {
                format!("[{host}]:{}", listening.port())
            }
            Some(host) => format!("{host}:{}", listening.port()),
        }
    }

    /// Every rule that makes no sense.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.first_port > self.last_port || (self.first_port == 0) != (self.last_port == 0) {
            faults.push("exposures.on_request.first_port must not be above last_port; leave both out for any port".to_owned());
        }
        if self.max == 0 || self.max_per_project == 0 || self.max_lifetime.is_zero() {
            faults.push("exposures.on_request: max, max_per_project and max_lifetime must not be zero; leave on_request out to allow none".to_owned());
        }
        if self.address.is_unspecified() && self.host.is_none() {
            faults.push("exposures.on_request.address is every address of the machine: set host to the name by which callers reach it".to_owned());
        }
        if self.host.as_deref().is_some_and(|host| !is_host(host)) {
            faults.push("exposures.on_request.host must be a name or an address, without a port; leave it out for the address".to_owned());
        }
        faults.extend(self.limits.faults("exposures.on_request.limits"));
        faults
    }
}

impl ExposureLimits {
    /// Every limit that makes no sense, each named under `at`.
    #[must_use]
    pub fn faults(&self, at: &str) -> Vec<String> {
        if self.max_connections == 0 || self.connections_per_second == 0 {
            return vec![format!(
                "{at}: max_connections and connections_per_second must be at least 1"
            )];
        }
        Vec::new()
    }
}

/// A name as DNS has it, or an address without brackets.
fn is_host(host: &str) -> bool {
    let letters = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    match host.parse::<IpAddr>() {
        // Nobody connects to 0.0.0.0.
        Ok(address) => !address.is_unspecified(),
        Err(_) => (1..=253).contains(&host.len()) && host.chars().all(letters),
    }
}

/// Whether a caller may see an exposure; one of the configuration only services
/// and admins of the platform may.
#[must_use]
pub fn may_see(caller: &Principal, origin: Option<&Origin>) -> bool {
    match (caller, origin) {
        (Principal::Service(_) | Principal::User { platform_admin: true, .. }, _) => true,
        (Principal::User { project, .. }, Some(origin)) => is_of(&origin.owner, project),
        _ => false,
    }
}

fn is_of(owner: &Owner, project: &ProjectId) -> bool {
    matches!(owner, Owner::Project(own) if own == project)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(first_port: u16, last_port: u16) -> ExposureRules {
        let address = IpAddr::from([127, 0, 0, 1]);
        ExposureRules { first_port, last_port, ..ExposureRules::any_port_of(address) }
    }

    #[test]
    fn a_port_is_of_the_range_or_any() {
        let ranged = rules(30_000, 30_010);
        assert_eq!(ranged.ports(None).unwrap(), 30_000..=30_010);
        assert_eq!(ranged.ports(Some(30_010)).unwrap(), 30_010..=30_010);
        for outside in [29_999, 30_011, 22] {
            let fault = ranged.ports(Some(outside)).unwrap_err();
            assert_eq!(fault.reason, Reason::RequestInvalid, "{outside}");
        }
        assert_eq!(rules(0, 0).ports(None).unwrap(), 0..=0);
        assert_eq!(rules(0, 0).ports(Some(8080)).unwrap(), 8080..=8080);
        assert!(rules(0, 0).ports(Some(22)).is_err(), "a service's of the system");
    }

    #[test]
    fn callers_are_told_where_they_reach_it() {
        let listening = SocketAddr::from(([127, 0, 0, 1], 30_000));
        let told = |host: Option<&str>| {
            let rules = ExposureRules { host: host.map(str::to_owned), ..rules(0, 0) };
            (rules.reached_at(listening), rules.faults().is_empty())
        };
        let good = |told: &str| (told.to_owned(), true);
        assert_eq!(told(None), good("127.0.0.1:30000"));
        assert_eq!(told(Some("tcp.example.org")), good("tcp.example.org:30000"));
        assert_eq!(told(Some("10.0.0.5")), good("10.0.0.5:30000"));
        assert_eq!(told(Some("fd00::5")), good("[fd00::5]:30000"));
        let nowhere = IpAddr::from([0, 0, 0, 0]);
        assert_eq!(ExposureRules::any_port_of(nowhere).faults().len(), 1, "nobody connects to it");
        for wrong in ["", "0.0.0.0", "::", "a:80", "[fd00::5]", "http://a", "a b"] {
            assert!(!told(Some(wrong)).1, "{wrong}");
        }
    }

    #[test]
    fn rules_without_sense_are_named() {
        assert!(rules(0, 0).faults().is_empty());
        assert!(rules(1, 2).faults().is_empty());
        for (first, last) in [(2, 1), (0, 1)] {
            assert_eq!(rules(first, last).faults().len(), 1, "{first} {last}");
        }
        let none = ExposureLimits { max_connections: 0, ..ExposureLimits::default() };
        assert_eq!(none.faults("x").len(), 1);
    }
}
