//! What stands around an engine that is about to start: the routes of every
//! table, the uplink's MTU, the resolvers.

mod docker_bridges;
mod fib_trie;
mod resolv_conf;
mod route_table;
mod uplink;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::{fs, io};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use fib_trie::FibRoute;
use route_table::DeviceRoute;

pub use resolv_conf::ResolvConf;

/// What stands around an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outer {
    /// What is routed, in whatever table, and what this network namespace has
    /// itself; without default routes and without loopback. Sorted, each once.
    pub routes: Vec<Ipv4Net>,
    /// Networks of Docker bridges in this very network namespace: those of an
    /// engine that ran here before, or of another one. Not in `routes`.
    pub bridges: Vec<Ipv4Net>,
    /// The resolvers, in order.
    pub nameservers: Vec<IpAddr>,
    /// Domains that names are completed with, in order.
    pub search: Vec<String>,
    /// The most bytes a packet may have on its way out; absent when there is
    /// no default route.
    pub uplink_mtu: Option<u32>,
}

impl Outer {
    /// Reads `/proc/net`, `/sys/class/net` and `/etc/resolv.conf` below `root`.
    /// With `/` the kernel is asked for the MTU of the way out, too, so that
    /// a smaller one of a VPN or of a route counts. A resolv.conf that is not
    /// there is an empty one.
    ///
    /// # Errors
    /// When the routes cannot be read, or are not in a form that is known.
    pub async fn read(root: &Path) -> io::Result<Self> {
        let root = root.to_owned();
        tokio::task::spawn_blocking(move || read(&root)).await.map_err(io::Error::other)?
    }
}

/// The longest prefix that still counts as a default route: VPNs put two
/// routes of length 1 over the one of length 0.
const DEFAULT_PREFIX: u8 = 1;

pub(crate) fn is_default(net: &Ipv4Net) -> bool {
    net.prefix_len() <= DEFAULT_PREFIX
}

fn read(root: &Path) -> io::Result<Outer> {
    let net = root.join("proc/net");
    let sys_class_net = root.join("sys/class/net");
    let fib = fib_trie::parse(
        &fs::read_to_string(net.join("fib_trie"))
            .map_err(|error| named(&error, "read the routes in /proc/net/fib_trie"))?,
    )?;
    let main = route_table::parse(&match fs::read_to_string(net.join("route")) {
        Ok(text) => text,
        Err(error) => return Err(named(&error, "read the devices of routes in /proc/net/route")),
    })?;
    let (docker, others): (Vec<DeviceRoute>, Vec<DeviceRoute>) = main
        .into_iter()
        .partition(|route| docker_bridges::is_docker_bridge(&sys_class_net, &route.device));

    let bridges: BTreeSet<Ipv4Net> = docker.iter().map(|route| route.net).collect();
    // What a bridge brings with it: its network, its own address, broadcasts.
    let of_bridge = |route: &FibRoute| {
        route.well_known
            && bridges.iter().any(|bridge| {
                route.net == *bridge
                    || (route.net.prefix_len() == 32 && bridge.contains(&route.net))
            })
    };
    let mut routes: BTreeSet<Ipv4Net> =
        fib.iter().filter(|route| !of_bridge(route)).map(|route| route.net).collect();
    // The same network by another device, too, and gateways beside any network.
    routes.extend(others.iter().map(|route| route.net));
    let gateways = others.iter().filter_map(|route| route.gateway);
    routes.extend(
        gateways.filter(|at| !bridges.iter().any(|bridge| bridge.contains(at))).map(Ipv4Net::from),
    );
    routes.retain(|net| !is_default(net) && !net.addr().is_loopback());

    let resolvers = match fs::read_to_string(root.join("etc/resolv.conf")) {
        Ok(text) => ResolvConf::parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => ResolvConf::default(),
        Err(error) => return Err(named(&error, "read /etc/resolv.conf")),
    };
    let device_mtu = uplink::of_device(&others, &sys_class_net);
    let path_mtu = if root == Path::new("/") { uplink::of_path() } else { None };
    Ok(Outer {
        routes: routes.into_iter().collect(),
        bridges: bridges.into_iter().collect(),
        nameservers: resolvers.nameservers,
        search: resolvers.search,
        uplink_mtu: [device_mtu, path_mtu].into_iter().flatten().min(),
    })
}

fn number(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn named(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests;
