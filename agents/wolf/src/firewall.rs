//! What sandboxes must not reach: the link-local addresses, where clouds
//! answer with the credentials of the machine. The host drops what the
//! sandboxes' bridge forwards there, by rules in the chain that Docker leaves
//! to the host's operator. Names may still be asked for: in some clouds the
//! resolver is such an address.
//!
//! The rules are found again by a comment with the network's name, so that
//! they are there once, whatever ended before.

use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::engine::{EngineError, Network};

/// The chain that Docker evaluates before its own and never fills.
const CHAIN: &str = "DOCKER-USER";
const LINK_LOCAL: &str = "169.254.0.0/16";
/// Both have ports, of which only the resolver's is left open.
const PROTOCOLS: [&str; 2] = ["tcp", "udp"];
/// Where to look when the program is not in the path of a service.
const PROGRAMS: [&str; 3] = ["iptables", "/usr/sbin/iptables", "/sbin/iptables"];
/// How long the program may wait for another one's lock, in seconds.
const LOCK: &str = "5";
/// How long one run of it may take.
const DEADLINE: Duration = Duration::from_secs(10);

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
    #[error("iptables did not end within {DEADLINE:?}")]
    Deadline,
    /// The program refused.
    #[error("iptables failed: {0}")]
    Failed(String),
}

/// Has the host drop what this bridge forwards to link-local addresses; rules
/// of an older bridge of that name go, those that are there stay.
///
/// # Errors
/// When the rules are not there as they should be. Call it again.
pub async fn guard(network: &Network) -> Result<(), FirewallError> {
    let interface = Path::new("/sys/class/net").join(&network.bridge);
    if !tokio::fs::try_exists(&interface).await.unwrap_or(false) {
        return Err(FirewallError::NoBridge(network.bridge.clone()));
    }
    let listing = iptables(&["-S".to_owned(), CHAIN.to_owned()]).await?;
    for change in changes(&listing, &network.name, Some(&network.bridge)) {
        iptables(&change).await?;
    }
    Ok(())
}

/// Takes the rules of a network away; without any that is done.
///
/// # Errors
/// When one of them stays.
pub async fn lift(network: &str) -> Result<(), FirewallError> {
    let listing = iptables(&["-S".to_owned(), CHAIN.to_owned()]).await?;
    for change in changes(&listing, network, None) {
        iptables(&change).await?;
    }
    Ok(())
}

/// What to call the program with, so that the chain has each rule of the
/// bridge once and no other of this network.
fn changes(listing: &str, network: &str, bridge: Option<&str>) -> Vec<Vec<String>> {
    let comment = format!("wolfpack:{network}");
    let mut missing: Vec<Vec<String>> = bridge
        .into_iter()
        .flat_map(|bridge| PROTOCOLS.map(|protocol| rule(bridge, protocol, &comment)))
        .collect();
    let mut changes = Vec::new();
    for line in listing.lines() {
        // Our comments have neither blanks nor quotes in them.
        let words: Vec<String> =
            line.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
        let ours = words.windows(2).any(|pair| pair[0] == "--comment" && pair[1] == comment);
        let Some(("-A", found)) = words.split_first().map(|(first, rest)| (first.as_str(), rest))
        else {
            continue;
        };
        if !ours {
            continue;
        }
        match missing.iter().position(|wanted| same(wanted, &found[1..])) {
            Some(there) => {
                missing.remove(there);
            }
            None => changes.push([&["-D".to_owned()], found].concat()),
        }
    }
    for rule in missing {
        let front = ["-I", CHAIN, "1"].map(str::to_owned);
        changes.push([front.to_vec(), rule].concat());
    }
    changes
}

fn rule(bridge: &str, protocol: &str, comment: &str) -> Vec<String> {
    let words = [
        "-i",
        bridge,
        "-d",
        LINK_LOCAL,
        "-p",
        protocol,
        "-m",
        protocol,
        "!",
        "--dport",
        "53",
        "-m",
        "comment",
        "--comment",
        comment,
        "-j",
        "DROP",
    ];
    words.map(str::to_owned).to_vec()
}

/// Whether two rules are the same, whatever the order their words come in.
fn same(one: &[String], other: &[String]) -> bool {
    let sorted = |words: &[String]| {
        let mut words = words.to_vec();
        words.sort();
        words
    };
    sorted(one) == sorted(other)
}

async fn iptables(arguments: &[String]) -> Result<String, FirewallError> {
    let running = async {
        let mut missing = io::Error::from(io::ErrorKind::NotFound);
        for program in PROGRAMS {
            match run(program, arguments).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
                other => return other,
            }
        }
        Err(missing)
    };
    let output = match tokio::time::timeout(DEADLINE, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(FirewallError::Program(error)),
        Err(_) => return Err(FirewallError::Deadline),
    };
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(FirewallError::Failed(EngineError::words(said.trim())))
    }
}

async fn run(program: &str, arguments: &[String]) -> io::Result<Output> {
    Command::new(program)
        .args(["-w", LOCK])
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does to a listing what the program would do to the chain.
    fn apply(chain: &mut Vec<String>, changes: &[Vec<String>]) {
        for change in changes {
            match change[0].as_str() {
                "-I" => chain.insert(0, format!("-A {CHAIN} {}", change[3..].join(" "))),
                _ => {
                    let gone = format!("-A {}", change[1..].join(" "));
                    let at = chain.iter().position(|line| line.replace('"', "") == gone);
                    chain.remove(at.expect("only what is there is deleted"));
                }
            }
        }
    }

    #[test]
    fn each_rule_is_there_once_whatever_was_there_before() {
        let foreign = [
            "-A DOCKER-USER -i br-1 -m comment --comment \"wolfpack:other\" -j DROP".to_owned(),
            "-A DOCKER-USER -j RETURN".to_owned(),
        ];
        let mut chain = foreign.to_vec();
        let settle = |chain: &mut Vec<String>, bridge: Option<&str>| {
            let wanted = changes(&format!("-N {CHAIN}\n{}\n", chain.join("\n")), "w-1", bridge);
            apply(chain, &wanted);
            wanted.len()
        };
        assert_eq!(settle(&mut chain, Some("br-1")), 2);
        assert!(chain[0].contains("-i br-1") && chain[1].contains("-i br-1"), "{chain:?}");
        assert_eq!(settle(&mut chain, Some("br-1")), 0);
        // As the program says it: in an order of its own, quoted.
        chain[0] = "-A DOCKER-USER -d 169.254.0.0/16 -i br-1 -p tcp -m tcp ! --dport 53 -m comment --comment \"wolfpack:w-1\" -j DROP".to_owned();
        chain[1] = chain[0].replace("tcp", "udp");
        assert_eq!(settle(&mut chain, Some("br-1")), 0);
        // Twice, from an older bridge, or turned into something else.
        chain.push(chain[0].clone());
        chain.push(chain[0].replace("br-1", "br-0"));
        chain[1] = chain[1].replace("DROP", "ACCEPT");
        assert_eq!(settle(&mut chain, Some("br-1")), 4);
        assert_eq!(chain.len(), 4);
        assert_eq!(settle(&mut chain, Some("br-1")), 0);
        assert_eq!(settle(&mut chain, None), 2);
        assert_eq!(chain, foreign);
    }

    #[tokio::test]
    async fn a_bridge_elsewhere_is_said_and_nothing_is_changed() {
        let network = Network {
            name: "n".into(),
            gateway: std::net::Ipv4Addr::LOCALHOST,
            bridge: "br-nowhere".into(),
        };
        assert!(matches!(guard(&network).await, Err(FirewallError::NoBridge(_))));
    }
}
