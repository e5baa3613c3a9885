//! The networks of the wolf's engine: planned around what is there, and kept.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use ipnet::Ipv4Net;
use wolfpack_dockerd::outer::Outer;
use wolfpack_dockerd::place::StepFailed;
use wolfpack_dockerd::plan::{self, NetworkPlan, Wanted};
use wolfpack_dockerd::status::Outcome;

use super::Achieved;
use crate::Config;

/// Where the agent is told the control plane's address.
const SERVER: &str = "WOLFPACK_WOLF__SERVER";
/// How long its name may take. Without an answer it is not avoided by number,
/// and what is routed is avoided all the same.
const LOOKUP: Duration = Duration::from_secs(3);

pub(super) async fn plan(config: &Config) -> Achieved<NetworkPlan> {
    let failed = |why: &dyn std::fmt::Display| {
        let fix = "give WOLFPACK_INIT__POOL a range that is free, 10.200.0.0/16 for one";
        StepFailed::new("network", why, fix)
    };
    let outer = Outer::read(Path::new("/")).await.map_err(|error| failed(&error))?;
    let file = config.plan_file();
    let kept = NetworkPlan::load(&file).map_err(|error| failed(&error))?;
    let mut avoid = config.avoid.clone();
    avoid.extend(server().await.into_iter().map(Ipv4Net::from));
    let wanted = Wanted { depth: config.depth, pool: config.pool, avoid, mtu: config.mtu };
    let plan = plan::plan(&outer, &wanted, kept.as_ref()).map_err(|error| failed(&error))?;
    plan.store(&file).map_err(|error| {
        let fix = format!("make {} writable", file.display());
        StepFailed::new("network", format!("{}: {error}", file.display()), fix)
    })?;
    let pools: Vec<String> = plan.pools.iter().map(|pool| pool.base.to_string()).collect();
    let note = format!(
        "bridge {}, networks in {}, mtu {}; {}",
        plan.bridge,
        pools.join(" "),
        plan.mtu,
        plan.reasons.join("; ")
    );
    Ok((plan, Outcome::Done, note))
}

/// Where the control plane is now; the wolf must never route it to itself.
async fn server() -> Vec<Ipv4Addr> {
    let Ok(server) = std::env::var(SERVER) else { return Vec::new() };
    let authority = server.strip_prefix("https://").unwrap_or(&server).trim_end_matches('/');
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_owned();
    let looked_up = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, 443))).await;
    let addresses = looked_up.map(|found| found.map(Vec::from_iter).unwrap_or_default());
    addresses
        .unwrap_or_default()
        .into_iter()
        .filter_map(|address| match address.ip() {
            IpAddr::V4(address) if !address.is_loopback() => Some(address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
        .collect()
}
