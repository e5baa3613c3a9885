//! Which networks an engine may use: a pure choice that never overlaps what
//! is around it, nor what engines above or below it choose.

mod candidates;
mod choose;
mod error;
mod file;
mod split;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use choose::plan;
pub use error::PlanError;

/// The deepest engine that has networks of its own: an engine of a machine is
/// at 0, that of a wolf container at 1, that of a sandbox on it at 2.
pub const MAX_DEPTH: u8 = 8;

/// The networks of one engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// The address and prefix of the default bridge, docker0.
    pub bridge: Ipv4Net,
    /// Where its other networks come from, in the order they are used.
    pub pools: Vec<AddressPool>,
    /// MTU of its networks.
    pub mtu: u32,
    /// How deep the engine is, from 1.
    pub depth: u8,
    /// What was known to be in use around it when this was planned.
    #[serde(default)]
    pub avoided: Vec<Ipv4Net>,
    /// What was chosen and why, in words.
    pub reasons: Vec<String>,
}

/// Where networks come from: `base` is cut into networks of `/size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    /// All of it.
    pub base: Ipv4Net,
    /// Prefix length of one network.
    pub size: u8,
}

/// What is asked of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// How deep the engine is, from 1 to [`MAX_DEPTH`].
    pub depth: u8,
    /// The range to plan in, as the operator says; none means one is chosen.
    pub pool: Option<Ipv4Net>,
    /// What must stay reachable though no route here tells of it: the control
    /// plane's address, what the engine above avoids ([`NetworkPlan::inherited`]).
    pub avoid: Vec<Ipv4Net>,
    /// The most the MTU may be, as the operator says: for a way out that is
    /// narrower than what can be seen from here.
    pub mtu: Option<u32>,
}

impl Wanted {
    /// Nothing but the depth.
    #[must_use]
    pub fn at_depth(depth: u8) -> Self {
        Self { depth, pool: None, avoid: Vec::new(), mtu: None }
    }
}

impl NetworkPlan {
    /// The bridge's network and all of the pools.
    #[must_use]
    pub fn networks(&self) -> Vec<Ipv4Net> {
        let pools = self.pools.iter().map(|pool| pool.base);
        std::iter::once(self.bridge.trunc()).chain(pools).collect()
    }

    /// What the next deeper engine must avoid beside what it sees: hand it on
    /// as [`Wanted::avoid`].
    #[must_use]
    pub fn inherited(&self) -> Vec<Ipv4Net> {
        let mut all = self.avoided.clone();
        all.extend(self.networks());
        Ipv4Net::aggregate(&all)
    }

    /// Whether a bridge with this network is one that an engine with this plan
    /// made.
    pub(crate) fn made(&self, network: &Ipv4Net) -> bool {
        *network == self.bridge.trunc()
            || self
                .pools
                .iter()
                .any(|pool| network.prefix_len() == pool.size && pool.base.contains(network))
    }

    /// Whether an engine can use it: a stored plan may be anything.
    fn well_formed(&self) -> bool {
        let sizes = self.pools.iter().all(|pool| {
            pool.size >= pool.base.prefix_len() && pool.size <= 30 && pool.base.trunc() == pool.base
        });
        let bridge = self.bridge.prefix_len() <= 30
            && self.bridge.addr() != self.bridge.network()
            && self.bridge.addr() != self.bridge.broadcast();
        let nets = self.networks();
        let apart =
            nets.iter().enumerate().all(|(i, a)| nets[i + 1..].iter().all(|b| !overlap(a, b)));
        sizes && bridge && apart && !self.pools.is_empty()
    }
}

/// Whether two networks have an address in common.
pub(crate) fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    // They do when they agree on the bits of the shorter prefix.
    let shorter = a.prefix_len().min(b.prefix_len());
    let mask = u32::MAX.checked_shl(32 - u32::from(shorter)).unwrap_or(0);
    (a.addr().to_bits() ^ b.addr().to_bits()) & mask == 0
}

#[cfg(test)]
mod tests;
