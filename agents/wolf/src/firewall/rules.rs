//! From the rules that are there to the changes that are needed, as lines for
//! `iptables-restore --noflush`. Pure.

use std::collections::BTreeSet;

/// The chain that Docker evaluates before its own and never fills.
const USER: &str = "DOCKER-USER";
/// Where what is for the host itself arrives.
const INPUT: &str = "INPUT";
/// Where clouds hand out what a machine may do: link-local addresses, and the
/// two that are not (Azure's and Alibaba's).
const METADATA: [&str; 3] = ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32"];
/// Both have ports, of which only the resolver's is left open.
const PROTOCOLS: [&str; 2] = ["tcp", "udp"];
const TAG: &str = "wolfpack:";

/// What makes the wolf's chain have these ports and nothing else.
pub(super) fn door(listing: &str, chain: &str, ports: &BTreeSet<u16>) -> Vec<String> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let wanted = [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN".to_owned(),
        format!("-p tcp -m multiport --dports {} -j ACCEPT", ports.join(",")),
        "-p udp -m udp --dport 53 -j ACCEPT".to_owned(),
        "-p icmp -j ACCEPT".to_owned(),
        "-j DROP".to_owned(),
    ];
    let found: Vec<Vec<String>> = rules(listing, chain).collect();
    let there = wanted.len() == found.len()
        && wanted.iter().zip(&found).all(|(wanted, found)| same(&words(wanted), found));
    if there {
        return Vec::new();
    }
    let emptied = format!(":{chain} - [0:0]");
    let filled = wanted.iter().map(|rule| format!("-A {chain} {rule}"));
    std::iter::once(emptied).chain(filled).collect()
}

/// What takes the wolf's chain away, once nothing leads to it.
pub(super) fn no_door(listing: &str, chain: &str) -> Vec<String> {
    if listing.lines().any(|line| line == format!("-N {chain}")) {
        vec![format!("-F {chain}"), format!("-X {chain}")]
    } else {
        Vec::new()
    }
}

/// What makes each rule of the bridge be there once and no other of this
/// network.
pub(super) fn bridge(
    listing: &str,
    network: &str,
    bridge: Option<&str>,
    door: &str,
) -> Vec<String> {
    let comment = format!("{TAG}{network}");
    let mut script = Vec::new();
    for chain in [USER, INPUT] {
        let mut missing: Vec<Vec<String>> = match (chain, bridge) {
            (USER, Some(bridge)) => metadata(bridge, &comment),
            (_, Some(bridge)) => {
                vec![words(&format!("-i {bridge} -m comment --comment {comment} -j {door}"))]
            }
            (_, None) => Vec::new(),
        };
        for found in rules(listing, chain).filter(|found| tag(found) == Some(&comment)) {
            match missing.iter().position(|wanted| same(wanted, &found)) {
                Some(there) => {
                    missing.remove(there);
                }
                None => script.push(format!("-D {chain} {}", found.join(" "))),
            }
        }
        script.extend(missing.iter().map(|rule| format!("-I {chain} 1 {}", rule.join(" "))));
    }
    script
}

/// The networks that have rules and whose names end so.
pub(super) fn networks(listing: &str, suffix: &str) -> BTreeSet<String> {
    [USER, INPUT]
        .into_iter()
        .flat_map(|chain| rules(listing, chain))
        .filter_map(|rule| tag(&rule)?.strip_prefix(TAG).map(str::to_owned))
        .filter(|network| network.ends_with(suffix))
        .collect()
}

/// The networks whose bridges lead to the wolf's chain; once a rule.
pub(super) fn leading_to(listing: &str, chain: &str) -> impl Iterator<Item = String> {
    rules(listing, INPUT).filter(move |rule| rule.last().is_some_and(|last| last == chain)).map(
        |rule| {
            let network = tag(&rule).and_then(|tag| tag.strip_prefix(TAG));
            network.unwrap_or_default().to_owned()
        },
    )
}

/// How many rules are of such networks, of this one, or in the chain.
pub(super) fn count(listing: &str, suffix: &str, network: &str, chain: &str) -> usize {
    let ours = |rule: &Vec<String>| {
        let of = tag(rule).and_then(|tag| tag.strip_prefix(TAG));
        of.is_some_and(|of| of == network || of.ends_with(suffix))
    };
    let tagged = [USER, INPUT].into_iter().flat_map(|chain| rules(listing, chain)).filter(ours);
    tagged.count() + rules(listing, chain).count()
}

fn metadata(bridge: &str, comment: &str) -> Vec<Vec<String>> {
    let rule = |address: &str, protocol: &str| {
        words(&format!(
            "-i {bridge} -d {address} -p {protocol} -m {protocol} ! --dport 53 \
             -m comment --comment {comment} -j DROP"
        ))
    };
    METADATA.iter().flat_map(|address| PROTOCOLS.map(|protocol| rule(address, protocol))).collect()
}

/// The rules of a chain, without its name.
fn rules(listing: &str, chain: &str) -> impl Iterator<Item = Vec<String>> {
    listing.lines().filter_map(move |line| {
        let mut rule = words(line);
        let here = rule.len() > 2 && rule[0] == "-A" && rule[1] == chain;
        here.then(|| rule.split_off(2))
    })
}

/// Our comments have neither blanks nor quotes in them.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect()
}

fn tag(rule: &[String]) -> Option<&String> {
    let at = rule.iter().position(|word| word == "--comment")?;
    rule.get(at + 1).filter(|comment| comment.starts_with(TAG))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Does to a listing what the program would do to the chains.
    fn apply(chain: &mut Vec<String>, script: &[String]) {
        for change in script {
            let mut parts = change.splitn(3, ' ');
            let (verb, name) = (parts.next().unwrap(), parts.next().unwrap_or(""));
            let rest = parts.next().unwrap_or("");
            match verb {
                "-I" => chain.insert(0, format!("-A {name} {}", rest.strip_prefix("1 ").unwrap())),
                "-A" => chain.push(change.clone()),
                "-F" => chain.retain(|line| !line.starts_with(&format!("-A {name} "))),
                "-X" => chain.retain(|line| line != &format!("-N {name}")),
                "-D" => {
                    let gone = format!("-A {name} {rest}");
                    let at = chain.iter().position(|line| line.replace('"', "") == gone);
                    chain.remove(at.expect("only what is there is deleted"));
                }
                _ => {
                    let name = verb.strip_prefix(':').expect(change);
                    chain.retain(|line| !line.starts_with(&format!("-A {name} ")));
                    chain.retain(|line| line != &format!("-N {name}"));
                    chain.insert(0, format!("-N {name}"));
                }
            }
        }
    }

    #[test]
    fn each_rule_is_there_once_whatever_was_there_before() {
        let foreign = [
            "-A DOCKER-USER -i br-1 -m comment --comment \"wolfpack:other\" -j DROP".to_owned(),
            "-A DOCKER-USER -j RETURN".to_owned(),
            "-A INPUT -i lo -j ACCEPT".to_owned(),
        ];
        let mut chain = foreign.to_vec();
        let settle = |chain: &mut Vec<String>, of: Option<&str>| {
            let wanted = bridge(&chain.join("\n"), "w-1", of, "in");
            apply(chain, &wanted);
            wanted.len()
        };
        assert_eq!(settle(&mut chain, Some("br-1")), 7);
        assert_eq!(chain.iter().filter(|line| line.contains("-i br-1")).count(), 8, "{chain:?}");
        assert_eq!(settle(&mut chain, Some("br-1")), 0);
        // As the program says it: in an order of its own, quoted.
        let at = chain.iter().position(|line| line.contains("169.254.0.0/16 -p tcp")).unwrap();
        chain[at] = "-A DOCKER-USER -d 169.254.0.0/16 -i br-1 -p tcp -m tcp ! --dport 53 -m comment --comment \"wolfpack:w-1\" -j DROP".to_owned();
        assert_eq!(settle(&mut chain, Some("br-1")), 0);
        // Twice, from an older bridge, or turned into something else.
        chain.push(chain[at].clone());
        chain.push(chain[at].replace("br-1", "br-0"));
        let at = chain.iter().position(|line| line.ends_with("-j in")).unwrap();
        chain[at] = chain[at].replace("-j in", "-j ACCEPT");
        assert_eq!(settle(&mut chain, Some("br-1")), 4);
        assert_eq!(settle(&mut chain, Some("br-1")), 0);
        assert_eq!(count(&chain.join("\n"), "-1", "w-1", "in"), 7);
        assert_eq!(networks(&chain.join("\n"), "-1"), BTreeSet::from(["w-1".to_owned()]));
        assert_eq!(leading_to(&chain.join("\n"), "in").collect::<Vec<_>>(), ["w-1"]);
        assert_eq!(settle(&mut chain, None), 7);
        assert_eq!(chain, foreign);
    }

    #[test]
    fn the_door_is_closed_behind_what_it_lets_in_and_goes_whole() {
        let mut chain = vec!["-P INPUT ACCEPT".to_owned()];
        let ports = BTreeSet::from([53, 8443, 8444]);
        let settle = |chain: &mut Vec<String>, ports: &BTreeSet<u16>| {
            let wanted = door(&chain.join("\n"), "in", ports);
            apply(chain, &wanted);
            wanted.len()
        };
        assert_eq!(settle(&mut chain, &ports), 6);
        assert_eq!(settle(&mut chain, &ports), 0);
        assert_eq!(chain.last().unwrap(), "-A in -j DROP");
        assert!(chain.iter().any(|line| line.contains("--dports 53,8443,8444 -j ACCEPT")));
        // A rule in the wrong place opens or closes what it should not.
        let last = chain.len() - 1;
        chain.swap(last, last - 1);
        assert_eq!(settle(&mut chain, &ports), 6);
        assert_eq!(settle(&mut chain, &BTreeSet::from([53, 9000])), 6);
        assert_eq!(count(&chain.join("\n"), "-none", "none", "in"), 5);
        let gone = no_door(&chain.join("\n"), "in");
        apply(&mut chain, &gone);
        assert_eq!(chain, ["-P INPUT ACCEPT"]);
        assert!(no_door(&chain.join("\n"), "in").is_empty());
    }
}
