//! Names: the wolf's resolvers, and what answers on the bridge.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use wolfpack_dockerd::dns::lookup;

use super::check::Found;
use super::place::Look;
use crate::config::HostPort;

/// How long a resolver may take.
const DEADLINE: Duration = Duration::from_secs(4);
/// A name that every resolver can say something about.
const ANY: &str = "localhost";
/// The name that sandboxes reach the control plane by.
const HOME: &str = "wolfpack.internal";
/// The response code for a name that does not exist.
const NXDOMAIN: u16 = 3;

pub(super) async fn wolf(look: &Look) -> Found {
    let servers = match &look.outer {
        Ok(outer) => outer.nameservers.clone(),
        Err(why) => return Found::skip(format!("the resolvers cannot be read: {why}")),
    };
    if servers.is_empty() {
        return Found::fail(
            "/etc/resolv.conf names no resolver",
            "name one there: nameserver ADDRESS (docker run --dns)",
        );
    }
    let gateway = gateway_name(&look.place.gateway);
    let name = gateway.as_deref().unwrap_or(ANY);
    let asked = join_all(servers.iter().map(|server| {
        let server = SocketAddr::new(*server, look.place.dns_port);
        async move { (server, lookup(server, name, DEADLINE).await) }
    }))
    .await;
    let mut silent = Vec::new();
    let mut answers = Vec::new();
    for (server, answer) in &asked {
        match answer {
            Ok(said) => answers.push(said),
            Err(error) => silent.push(format!("{} ({error})", server.ip())),
        }
    }
    let facts = |found: Found| {
        let all: Vec<String> = servers.iter().map(ToString::to_string).collect();
        found.fact("nameservers", all.join(" ")).fact("asked_for", name)
    };
    if answers.is_empty() {
        return facts(Found::fail(
            format!("no resolver answers: {}", silent.join(", ")),
            "see that UDP port 53 to them is open, or name others in /etc/resolv.conf",
        ));
    }
    let knows = answers.iter().any(|said| said.code == 0 && !said.addresses.is_empty());
    if let Some(gateway) = gateway.as_deref().filter(|_| !knows) {
        let code = answers.iter().map(|said| said.code).max().unwrap_or_default();
        let how = if code == NXDOMAIN {
            "does not exist for them".to_owned()
        } else {
            format!("gets code {code}, no address")
        };
        return facts(Found::fail(
            format!("the resolvers answer, and the gateway's name {gateway} {how}"),
            "use a resolver that knows it, or write it into /etc/hosts",
        ));
    }
    facts(if silent.is_empty() {
        Found::pass(format!("{} resolver(s) answer", answers.len()))
    } else {
        Found::warn(
            format!("some resolvers do not answer: {}", silent.join(", ")),
            "take them out of /etc/resolv.conf: each costs two seconds at times",
        )
    })
}

/// The gateway's host when it is a name that resolvers are asked for.
fn gateway_name(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.trim_end_matches('/');
    let host = HostPort::parse(authority, Some(443)).ok()?.host;
    let asked = host.contains('.') && host.parse::<IpAddr>().is_err();
    asked.then_some(host)
}

pub(super) async fn bridge(look: &Look) -> Found {
    let Some(init) = &look.init else {
        return Found::skip("names in sandboxes are answered by the machine's engine");
    };
    if init.dns.is_empty() {
        return Found::fail(
            "nothing answers names on the bridge",
            "restart the wolf; its init says in its log why the step dns failed",
        );
    }
    for address in &init.dns {
        let failed = |why: String| {
            Found::fail(
                format!("{address} does not answer for {HOME}: {why}"),
                "restart the wolf; while it is so, sandboxes resolve no names",
            )
        };
        match lookup(*address, HOME, DEADLINE).await {
            Ok(said) if said.code == 0 && !said.addresses.is_empty() => {}
            Ok(said) => {
                return failed(format!("code {}, {} addresses", said.code, said.addresses.len()));
            }
            Err(error) => return failed(error.to_string()),
        }
    }
    let all: Vec<String> = init.dns.iter().map(ToString::to_string).collect();
    Found::pass(format!("names are answered on {}", all.join(" "))).fact("addresses", all.join(" "))
}
