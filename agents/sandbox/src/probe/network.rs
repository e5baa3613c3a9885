//! What answers on the network. Every connection is closed as soon as it is
//! there; nothing is said on it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::net::TcpStream;

use super::{Facts, Finding};

/// Ports that are tried on other sandboxes.
const NEIGHBOUR_PORTS: [u16; 5] = [22, 80, 443, 2375, 8443];
/// Ports that are tried on the wolf: what machines, engines and our own
/// processes listen on.
const WOLF_PORTS: [u16; 31] = [
    22, 25, 80, 111, 139, 443, 445, 2049, 2375, 2376, 2377, 4243, 5000, 5432, 6443, 7001, 7002,
    7003, 7004, 8080, 8443, 8444, 9000, 9090, 9100, 9323, 9443, 10250, 10255, 16443, 47989,
];
/// Where clouds serve metadata.
const METADATA: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
];
const PATIENCE: Duration = Duration::from_millis(700);
/// Connections at a time.
const AT_ONCE: usize = 256;

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Open,
    /// Its kernel answered: it is reached, though nobody listens there.
    Closed,
    Silent,
}

/// The way out of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Uplink {
    own: Ipv4Addr,
    gateway: Ipv4Addr,
    prefix: u8,
}

pub(super) fn neighbour_ports(_: &Facts) -> Finding {
    let Some(uplink) = uplink() else {
        return Finding::blocked("there is no way out of the sandbox's network");
    };
    let hosts = around(uplink);
    let targets: Vec<SocketAddr> = hosts
        .iter()
        .flat_map(|host| NEIGHBOUR_PORTS.map(|port| SocketAddr::from((*host, port))))
        .collect();
    let asked = format!("{} addresses around {}", hosts.len(), uplink.own);
    match knock(targets) {
        Err(why) => Finding::unknown(why),
        Ok(answers) => match answers.iter().find(|(_, answer)| *answer != Answer::Silent) {
            Some((address, answer)) => {
                Finding::allowed(format!("{address} answers ({answer:?}); {asked}"))
            }
            None => Finding::blocked(format!("{asked}: none answers")),
        },
    }
}

/// The wolf's firewall drops what it does not let in, so a port where nobody
/// listens is as silent as one that is open: a refusal came from the wolf, and
/// shows that nothing keeps the sandbox from it.
pub(super) fn wolf_ports(facts: &Facts) -> Finding {
    let mut hosts: Vec<Ipv4Addr> = uplink().map(|uplink| uplink.gateway).into_iter().collect();
    hosts.extend(&facts.wolf_addresses);
    hosts.sort_unstable();
    hosts.dedup();
    if hosts.is_empty() {
        return Finding::blocked("there is no way out of the sandbox's network");
    }
    let targets = wolf_targets(&hosts, &facts.relay_ports);
    let asked = format!("{} ports of {}", targets.len(), shown(&hosts));
    match knock(targets) {
        Err(why) => Finding::unknown(why),
        Ok(answers) => judge_wolf(&answers, &asked, &facts.relay_ports),
    }
}

/// The relay's ports are the sandbox's way home.
fn wolf_targets(hosts: &[Ipv4Addr], relay: &[u16]) -> Vec<SocketAddr> {
    let ports = WOLF_PORTS.iter().filter(|port| !relay.contains(port));
    ports.flat_map(|port| hosts.iter().map(|host| SocketAddr::from((*host, *port)))).collect()
}

fn judge_wolf(answers: &[(SocketAddr, Answer)], asked: &str, relay: &[u16]) -> Finding {
    const MOST: usize = 8;
    let of = |wanted: Answer| {
        let mut found: Vec<SocketAddr> = answers
            .iter()
            .filter(|(_, answer)| *answer == wanted)
            .map(|(address, _)| *address)
            .collect();
        found.sort_unstable();
        (found.len(), shown(&found[..found.len().min(MOST)]))
    };
    let ((open, which), (closed, refused)) = (of(Answer::Open), of(Answer::Closed));
    if open + closed == 0 {
        return Finding::blocked(format!("{asked} beside the relay's {relay:?}: none answers"));
    }
    Finding::allowed(format!(
        "{asked} beside the relay's {relay:?}: {open} open [{which}], {closed} refused [{refused}]"
    ))
}

fn shown<T: ToString>(things: &[T]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn metadata(_: &Facts) -> Finding {
    let targets = METADATA.map(|address| SocketAddr::from((IpAddr::from(address), 80))).to_vec();
    match knock(targets) {
        Err(why) => Finding::unknown(why),
        Ok(answers) => match answers.iter().find(|(_, answer)| *answer == Answer::Open) {
            Some((address, _)) => Finding::allowed(format!("{address} takes connections")),
            None => Finding::blocked(format!("none of {METADATA:?} takes connections")),
        },
    }
}

/// Tries all of them, many at a time.
fn knock(targets: Vec<SocketAddr>) -> Result<Vec<(SocketAddr, Answer)>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no connections can be tried: {error}"))?;
    let trying = futures::stream::iter(targets).map(|target| async move {
        let answer = match tokio::time::timeout(PATIENCE, TcpStream::connect(target)).await {
            Ok(Ok(_closed_at_once)) => Answer::Open,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Answer::Closed
            }
            Ok(Err(_)) | Err(_) => Answer::Silent,
        };
        (target, answer)
    });
    Ok(runtime.block_on(trying.buffer_unordered(AT_ONCE).collect()))
}

fn uplink() -> Option<Uplink> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    let (device, gateway) = default_route(&routes)?;
    nix::ifaddrs::getifaddrs().ok()?.find_map(|interface| {
        if interface.interface_name != device {
            return None;
        }
        let own = interface.address?.as_sockaddr_in()?.ip();
        let mask = u32::from(interface.netmask?.as_sockaddr_in()?.ip());
        Some(Uplink { own, gateway, prefix: u8::try_from(mask.leading_ones()).ok()? })
    })
}

/// Device and gateway of the default route in `/proc/net/route`.
fn default_route(routes: &str) -> Option<(String, Ipv4Addr)> {
    routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[device, "00000000", gateway, ..] = fields.as_slice() else { return None };
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        Some((device.to_owned(), Ipv4Addr::from(gateway.to_ne_bytes())))
    })
}

/// Addresses of its network but its own and the wolf's; of a large one the /24
/// around its own.
fn around(uplink: Uplink) -> Vec<Ipv4Addr> {
    let prefix = uplink.prefix.clamp(24, 32);
    let Ok(net) = ipnet::Ipv4Net::new(uplink.own, prefix) else { return Vec::new() };
    net.hosts().filter(|host| *host != uplink.own && *host != uplink.gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Verdict;

    #[test]
    fn the_default_route_is_read() {
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
eth0 000014AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n\
eth0 00000000 010014AC 0003 0 0 0 00000000 0 0 0\n";
        let found = default_route(routes);
        if cfg!(target_endian = "little") {
            assert_eq!(found, Some(("eth0".to_owned(), Ipv4Addr::new(172, 20, 0, 1))));
        }
        assert_eq!(default_route("Iface\n"), None);
    }

    #[test]
    fn a_large_network_is_looked_at_in_part() {
        let own = Ipv4Addr::new(172, 20, 3, 9);
        let uplink = |prefix| Uplink { own, gateway: Ipv4Addr::new(172, 20, 3, 1), prefix };
        assert_eq!(around(uplink(16)).len(), 252);
        assert_eq!(around(uplink(26)).len(), 60);
        assert!(around(uplink(30)).len() <= 2);
        assert!(!around(uplink(24)).contains(&own));
    }

    #[test]
    fn a_wolf_that_refuses_is_reached_and_only_silence_is_blocked() {
        let relay = [8443, 8444];
        let (gateway, uplink) = (Ipv4Addr::new(172, 20, 0, 1), Ipv4Addr::new(172, 17, 0, 2));
        let targets = wolf_targets(&[gateway, uplink], &relay);
        assert_eq!(targets.len(), 2 * (WOLF_PORTS.len() - relay.len()));
        assert!(targets.iter().all(|target| !relay.contains(&target.port())));
        let verdict = |which: usize, answer| {
            let mut answers: Vec<_> = targets.iter().map(|t| (*t, Answer::Silent)).collect();
            answers[which].1 = answer;
            judge_wolf(&answers, "ports", &relay).verdict
        };
        for which in 0..targets.len() {
            assert_eq!(verdict(which, Answer::Open), Verdict::Allowed);
            assert_eq!(verdict(which, Answer::Closed), Verdict::Allowed);
            assert_eq!(verdict(which, Answer::Silent), Verdict::Blocked);
        }
    }

    #[test]
    fn what_is_open_closed_and_silent_is_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            gone.local_addr().unwrap()
        };
        let mut answers = knock(vec![open, closed]).unwrap();
        answers.sort_by_key(|(address, _)| *address != open);
        assert_eq!(answers, [(open, Answer::Open), (closed, Answer::Closed)]);
    }
}
