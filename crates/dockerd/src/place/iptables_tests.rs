use proptest::prelude::*;

use super::*;

fn probes(nft: Result<Rules, String>, legacy: Result<Rules, String>) -> Vec<Probe> {
    vec![
        Probe { backend: Backend::Nft, rules: nft },
        Probe { backend: Backend::Legacy, rules: legacy },
    ]
}

fn rules(all: usize, docker: usize) -> Result<Rules, String> {
    Ok(Rules { all, docker })
}

#[test]
fn rules_of_an_engine_are_counted() {
    let listing = "-P FORWARD DROP\n-N DOCKER\n-A FORWARD -o docker0 -j DOCKER\n-A INPUT -j X\n";
    assert_eq!(Rules::count(listing), Rules { all: 2, docker: 1 });
    assert_eq!(Rules::count("-P INPUT ACCEPT\n"), Rules::default());
}

#[test]
fn the_one_with_the_engines_rules_is_taken() {
    let chosen = |nft, legacy| choose(&probes(nft, legacy)).unwrap().backend;
    assert_eq!(chosen(rules(0, 0), rules(6, 4)), Backend::Legacy);
    assert_eq!(chosen(rules(6, 4), rules(9, 0)), Backend::Nft);
    assert_eq!(chosen(rules(0, 0), rules(1, 0)), Backend::Legacy);
    assert_eq!(chosen(rules(0, 0), rules(0, 0)), Backend::Nft);
    assert_eq!(chosen(rules(3, 2), rules(3, 2)), Backend::Nft);
    assert_eq!(chosen(Err("no".into()), rules(0, 0)), Backend::Legacy);
}

#[test]
fn when_none_works_both_say_why() {
    let failed = choose(&probes(Err("not permitted".into()), Err("no module".into()))).unwrap_err();
    assert_eq!(failed.step, STEP);
    assert!(failed.why.contains("nft: not permitted") && failed.why.contains("legacy: no module"));
    assert!(failed.fix.contains("NET_ADMIN"));
}

proptest! {
    #[test]
    fn what_is_chosen_works_and_holds_the_most(
        nft in proptest::option::of((0usize..5, 0usize..5)),
        legacy in proptest::option::of((0usize..5, 0usize..5)),
    ) {
        let of = |counts: Option<(usize, usize)>| {
            counts.map(|(docker, more)| Rules { all: docker + more, docker }).ok_or_else(|| "off".to_owned())
        };
        let asked = probes(of(nft), of(legacy));
        match choose(&asked) {
            Err(_) => prop_assert!(nft.is_none() && legacy.is_none()),
            Ok(choice) => {
                let rules = |backend| {
                    asked.iter().find(|p| p.backend == backend).unwrap().rules.clone()
                };
                let own = rules(choice.backend);
                prop_assert!(own.is_ok());
                for probe in &asked {
                    if let (Ok(own), Ok(other)) = (&own, &probe.rules) {
                        prop_assert!(own.docker >= other.docker);
                    }
                }
            }
        }
    }
}

#[test]
fn the_chosen_one_is_first_in_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("bin");
    install(&folder, Backend::Nft).unwrap();
    // Again, with the other kind, as after a change.
    install(&folder, Backend::Legacy).unwrap();
    let path = path_with(&folder);
    assert_eq!(std::env::split_paths(&path).next().unwrap(), folder);
    if let Ok(program) = find("iptables-legacy") {
        assert_eq!(std::fs::read_link(folder.join("iptables")).unwrap(), program);
    }
    let again = std::env::split_paths(&path).filter(|entry| *entry == folder).count();
    assert_eq!(again, 1);
}
