//! Why there is no plan.

use ipnet::Ipv4Net;

use super::MAX_DEPTH;

/// Why there is no plan, and what to set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Engines this deep have no networks of their own.
    #[error("an engine at depth {0} has no networks to plan: set a depth from 1 to {MAX_DEPTH}")]
    Depth(u8),
    /// The operator's range cannot be used by anybody.
    #[error(
        "the address pool {pool} cannot be used, {why}: set a private range such as 172.28.0.0/16"
    )]
    PoolUnfit {
        /// The range.
        pool: Ipv4Net,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operator's range is in use.
    #[error("the address pool {pool} has no room beside {}: set another one, or free it", list(by))]
    PoolTaken {
        /// The range.
        pool: Ipv4Net,
        /// What overlaps it.
        by: Vec<Ipv4Net>,
    },
    /// Every private range is in use.
    #[error(
        "no private range is free at depth {depth}, all are routed already ({}): \
         set an address pool (a /16 to /24) that nobody needs to be reached in",
        list(by)
    )]
    NoRoom {
        /// The engine's depth.
        depth: u8,
        /// What is in use.
        by: Vec<Ipv4Net>,
    },
}

/// How many networks a sentence names.
const NAMED: usize = 8;

/// Networks in words, the first few of them.
pub(super) fn list(nets: &[Ipv4Net]) -> String {
    let mut words: Vec<String> = nets.iter().take(NAMED).map(ToString::to_string).collect();
    if nets.len() > NAMED {
        words.push(format!("{} more", nets.len() - NAMED));
    }
    words.join(", ")
}
