//! What the sandbox is, as the kernel says.

use std::net::Ipv4Addr;
use std::path::Path;

use serde::Serialize;

use crate::boot::BootDir;

/// The initial user namespace maps every id to itself.
const ALL_IDS: u64 = u32::MAX as u64;
/// The comm of the sandbox's agent: the kernel keeps 15 characters.
pub(super) const AGENT: &str = "wolfpack-sandbo";
/// Where the relay listens when nothing else is said.
const RELAY_PORTS: [u16; 2] = [8443, 8444];

/// What the checks judge by.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// Its user id in its own namespace.
    pub uid: u32,
    /// Whether its root is the host's root.
    pub host_root: bool,
    /// Its effective capabilities, as the kernel writes them.
    pub capabilities: String,
    /// 0 off, 1 strict, 2 filter.
    pub seccomp: String,
    /// Whether programs cannot gain privileges.
    pub no_new_privileges: bool,
    /// Ports of the wolf that it may reach.
    pub relay_ports: Vec<u16>,
    /// Addresses of the wolf beside the way out.
    pub wolf_addresses: Vec<Ipv4Addr>,
}

impl Facts {
    /// Reads them; `ports` replace those of the boot when there are any, and
    /// `wolf` is what is known of the wolf's addresses.
    #[must_use]
    pub fn gather(ports: &[u16], wolf: &[Ipv4Addr]) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let field = |name: &str| field(&status, name).unwrap_or_default().to_owned();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            host_root: maps_all(&map),
            capabilities: field("CapEff"),
            seccomp: field("Seccomp"),
            no_new_privileges: field("NoNewPrivs") == "1",
            relay_ports: if ports.is_empty() { relay_ports() } else { ports.to_vec() },
            wolf_addresses: wolf.to_vec(),
        }
    }

    /// Whether it has a capability by number.
    #[must_use]
    pub fn has(&self, capability: u32) -> bool {
        u64::from_str_radix(&self.capabilities, 16).is_ok_and(|all| all & (1 << capability) != 0)
    }

    /// In one line.
    #[must_use]
    pub fn words(&self) -> String {
        format!(
            "uid {}, root here is {}, capabilities {}, seccomp {}, no new privileges {}",
            self.uid,
            if self.host_root { "root on the host" } else { "nobody on the host" },
            self.capabilities,
            self.seccomp,
            self.no_new_privileges,
        )
    }
}

/// A field of `/proc/*/status`.
pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == name).then(|| value.trim())
    })
}

fn maps_all(map: &str) -> bool {
    let mut lines = map.lines();
    let line: Option<Vec<u64>> =
        lines.next().map(|line| line.split_whitespace().filter_map(|n| n.parse().ok()).collect());
    line.as_deref() == Some(&[0, 0, ALL_IDS]) && lines.next().is_none()
}

/// The ports in the boot's addresses; readable by the sandbox's root only.
fn relay_ports() -> Vec<u16> {
    let boot = BootDir::at(Path::new(wolfpack_types::sandbox_boot::BOOT_DIR)).config();
    let port = |url: &str| url.rsplit_once(':')?.1.trim_end_matches('/').parse().ok();
    match boot {
        Ok(boot) => [&boot.broker, &boot.gateway].into_iter().filter_map(|url| port(url)).collect(),
        Err(_) => RELAY_PORTS.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_namespace_is_told_from_others() {
        assert!(maps_all("         0          0 4294967295\n"));
        assert!(!maps_all("         0     100000      65536\n"));
        assert!(!maps_all("0 0 1\n1 1 4294967294\n"));
        assert!(!maps_all(""));
    }

    #[test]
    fn capabilities_are_bits() {
        let facts = Facts { capabilities: "0000000000200000".into(), ..Facts::default() };
        assert!(facts.has(21) && !facts.has(20));
        assert_eq!(field("A:\t1\nCapEff:\t00ff\n", "CapEff"), Some("00ff"));
    }
}
