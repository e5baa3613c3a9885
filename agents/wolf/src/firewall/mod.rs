//! What sandboxes must not reach, by rules of the host for each of their
//! bridges:
//! - link-local addresses, where clouds answer with the credentials of the
//!   machine. Names may still be asked for: in some clouds the resolver is such
//!   an address. In the chain that Docker leaves to the host's operator.
//! - the wolf itself, but for the relay's ports and names. In a chain of the
//!   wolf's own that each bridge leads to.
//! - the wolf by IPv6, which a sandbox with an engine of its own could turn on
//!   at its end: it is turned off at ours.
//!
//! The rules are found again by a comment with the network's name, so that
//! they are there once, whatever ended before, and are changed all at once.

mod program;
mod rules;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use wolfpack_types::WolfId;

use crate::engine::Network;
use crate::sandbox::labels;

/// The port that names are asked for at.
const NAMES: u16 = 53;
const INTERFACES: &str = "/sys/class/net";
const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// The rules could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The engine has its bridge somewhere else.
    #[error("the bridge {0} is not an interface of this host")]
    NoBridge(String),
    /// The program is not there or does not run.
    #[error("iptables cannot be run: {0}; install it")]
    Program(#[source] io::Error),
    /// The program did not end in time.
    #[error("iptables did not end within {0:?}")]
    Deadline(Duration),
    /// The program refused.
    #[error("iptables failed: {0}")]
    Failed(String),
    /// IPv6 of a bridge cannot be turned off.
    #[error("IPv6 of the bridge {bridge} cannot be turned off: {source}; run the agent as root")]
    Ipv6 {
        /// The bridge.
        bridge: String,
        /// Why.
        source: io::Error,
    },
}

/// What sandboxes may reach of their wolf itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The wolf's chain.
    chain: String,
    /// The end of the names of the wolf's networks.
    suffix: String,
    /// Ports of TCP.
    ports: BTreeSet<u16>,
}

impl Door {
    /// The door of a wolf with these ports, and that of names.
    #[must_use]
    pub fn new(wolf: &WolfId, ports: impl IntoIterator<Item = u16>) -> Self {
        let suffix = labels::wolf_suffix(wolf);
        let chain = format!("wolfpack-in{suffix}");
        Self { chain, suffix, ports: ports.into_iter().chain([NAMES]).collect() }
    }
}

/// Has the host keep what comes from this bridge to what is allowed; rules of
/// an older bridge of that name go, those that are there stay.
///
/// # Errors
/// When the rules are not there as they should be. Call it again.
pub async fn guard(network: &Network, door: &Door) -> Result<(), FirewallError> {
    let interface = Path::new(INTERFACES).join(&network.bridge);
    if !tokio::fs::try_exists(&interface).await.unwrap_or(false) {
        return Err(FirewallError::NoBridge(network.bridge.clone()));
    }
    no_ipv6(&network.bridge).await?;
    let listing = program::list().await?;
    let mut script = rules::door(&listing, &door.chain, &door.ports);
    script.extend(rules::bridge(&listing, &network.name, Some(&network.bridge), &door.chain));
    program::change(&script).await
}

/// Takes the rules of a network away, and with those of the wolf's last one
/// its chain; without any that is done.
///
/// # Errors
/// When one of them stays.
pub async fn lift(network: &str, door: &Door) -> Result<(), FirewallError> {
    let listing = program::list().await?;
    let mut script = rules::bridge(&listing, network, None, &door.chain);
    if rules::leading_to(&listing, &door.chain).all(|other| other == network) {
        script.extend(rules::no_door(&listing, &door.chain));
    }
    program::change(&script).await
}

/// Takes the rules of this network and of all the wolf's others away, and its
/// chain.
///
/// # Errors
/// When one of them stays.
pub async fn lift_all(network: &str, door: &Door) -> Result<(), FirewallError> {
    let listing = program::list().await?;
    let mut networks = rules::networks(&listing, &door.suffix);
    networks.insert(network.to_owned());
    let mut script = Vec::new();
    for network in networks {
        script.extend(rules::bridge(&listing, &network, None, &door.chain));
    }
    script.extend(rules::no_door(&listing, &door.chain));
    program::change(&script).await
}

/// The wolf's networks that have rules.
///
/// # Errors
/// When the rules cannot be listed.
pub async fn networks(door: &Door) -> Result<BTreeSet<String>, FirewallError> {
    Ok(rules::networks(&program::list().await?, &door.suffix))
}

/// How many rules of the host are this wolf's: of its networks, and of its
/// chain.
///
/// # Errors
/// When they cannot be listed.
pub async fn count(wolf: &WolfId, network: &str) -> Result<usize, FirewallError> {
    let door = Door::new(wolf, []);
    let listing = program::list().await?;
    Ok(rules::count(&listing, &door.suffix, network, &door.chain))
}

async fn no_ipv6(bridge: &str) -> Result<(), FirewallError> {
    let switch = Path::new(IPV6).join(bridge).join("disable_ipv6");
    match tokio::fs::read_to_string(&switch).await {
        Ok(off) if off.trim() == "1" => return Ok(()),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(_) | Err(_) => {}
    }
    let written = tokio::fs::write(&switch, "1").await;
    written.map_err(|source| FirewallError::Ipv6 { bridge: bridge.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bridge_elsewhere_is_said_and_nothing_is_changed() {
        let network = Network {
            name: "n".into(),
            gateway: std::net::Ipv4Addr::LOCALHOST,
            bridge: "br-nowhere".into(),
        };
        let door = Door::new(&WolfId::new(), [8443]);
        assert!(matches!(guard(&network, &door).await, Err(FirewallError::NoBridge(_))));
    }
}
