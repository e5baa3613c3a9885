//! The arrows of the house, asserted from cargo metadata: who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

const SERVICES: [&str; 5] =
    ["registry", "scheduler", "tunnel-broker", "sandbox-manager", "gateway"];
const AGENTS: [&str; 2] = ["wolf-agent", "sandbox-agent"];
/// PID 1 of the wolf image, which outlives the agent and knows nothing of it.
const INIT: &str = "wolf-init";

/// Normal and build dependencies among our own crates, without the prefix `wolfpack-`.
fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    metadata
        .packages
        .iter()
        .map(|package| {
            let ours = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .filter_map(|dependency| dependency.name.strip_prefix("wolfpack-"))
                .map(str::to_owned)
                .collect();
            (package.name.trim_start_matches("wolfpack-").to_owned(), ours)
        })
        .collect()
}

/// What each crate may depend on, at most.
fn allowed(name: &str) -> Option<Vec<&'static str>> {
    const KITS: [&str; 6] = ["types", "proto", "runtime", "rpc", "store", "tunnel"];
    Some(match name {
        "types" | "proto" => vec![],
        "runtime" => vec!["types"],
        "rpc" => vec!["types", "proto", "runtime"],
        "store" => vec!["types", "runtime"],
        "dockerd" => vec!["types", "runtime"],
        INIT => vec!["types", "runtime", "dockerd"],
        "tunnel" => vec!["types", "proto", "runtime", "rpc"],
        service if SERVICES.contains(&service) => KITS.to_vec(),
        agent if AGENTS.contains(&agent) => {
            vec!["types", "proto", "runtime", "rpc", "tunnel", "dockerd"]
        }
        "cli" | "testkit" | "tests" | "bench" => {
            let mut all = KITS.to_vec();
            all.extend(SERVICES);
            all.extend(AGENTS);
            all.push("dockerd");
            all.push("testkit");
            all
        }
        _ => return None,
    })
}

#[test]
fn arrows_point_down_and_services_never_import_each_other() {
    let graph = graph();
    let mut broken = Vec::new();
    for (name, dependencies) in &graph {
        let Some(allowed) = allowed(name) else {
            broken.push(format!(
                "{name} is not on the map: add it to this test and to docs/architecture.md"
            ));
            continue;
        };
        for dependency in dependencies {
            if !allowed.contains(&dependency.as_str()) {
                broken.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    for name in SERVICES.iter().chain(&AGENTS) {
        assert!(graph.contains_key(*name), "{name} is missing");
    }
}

#[test]
fn the_cli_is_not_a_way_into_tests() {
    assert!(!graph()["cli"].contains("testkit"), "testkit is for development only");
}
