//! The two kinds of iptables: rules of both in one kernel do not see each other.

use std::path::PathBuf;

use wolfpack_dockerd::place::iptables::Rules;

use super::check::Found;
use super::place::{Look, Place};
use super::program::run;

/// Tables of the older kind that exist; asking its program would make them.
const LEGACY_TABLES: &str = "proc/net/ip_tables_names";

/// What one kind holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    rules: Rules,
    /// Whether what no rule accepts is not forwarded.
    drops: bool,
}

pub(super) async fn backends(look: &Look) -> Found {
    let place = &look.place;
    let nft = match nft_program(place).await {
        Some(program) => Some(list(&program).await),
        None => None,
    };
    let legacy_tables = place.text(LEGACY_TABLES).is_some_and(|tables| !tables.is_empty());
    let legacy = match legacy_program(place).await.filter(|_| legacy_tables) {
        Some(program) => Some(list(&program).await),
        None => None,
    };
    match (nft, legacy) {
        (None, None) if legacy_tables => {
            Found::skip("there are legacy rules and no program to list them")
        }
        (None, None) => Found::skip("no iptables is here to list rules"),
        (Some(Err(why)), None | Some(Err(_))) | (None, Some(Err(why))) => Found::fail(
            format!("the rules cannot be listed: {why}"),
            "the wolf needs NET_ADMIN, and a kernel with nf_tables or ip_tables",
        ),
        (nft, legacy) => {
            judged(nft.and_then(Result::ok).as_ref(), legacy.and_then(Result::ok).as_ref())
        }
    }
}

fn judged(nft: Option<&Held>, legacy: Option<&Held>) -> Found {
    let of = |held: Option<&Held>| {
        held.map_or((0, 0, false), |held| (held.rules.all, held.rules.docker, held.drops))
    };
    let ((nft_all, nft_docker, nft_drops), (old_all, old_docker, old_drops)) =
        (of(nft), of(legacy));
    let found = if nft_docker > 0 && old_docker > 0 {
        Found::fail(
            "an engine has rules in nft and in legacy tables: what one accepts the other drops",
            "restart the wolf's container; on a machine choose one by update-alternatives --config \
             iptables and restart",
        )
    } else if (nft_docker > 0 && old_drops) || (old_docker > 0 && nft_drops) {
        Found::fail(
            "the tables that the engine does not use drop what is forwarded: sandboxes have no way out",
            "let them accept it: iptables-legacy -P FORWARD ACCEPT, or iptables-nft -P FORWARD ACCEPT",
        )
    } else if nft_all > 0 && old_all > 0 {
        Found::warn(
            "there are rules in nft and in legacy tables: a packet must pass both",
            "move them to the kind that the engine uses",
        )
    } else if nft_docker + old_docker > 0 {
        Found::pass(format!(
            "the engine's rules are in {}",
            if nft_docker > 0 { "nft" } else { "legacy" }
        ))
    } else {
        Found::warn(
            "the engine has no rules: sandboxes may have no way out",
            "let dockerd manage them (iptables: true), or make rules that forward and masquerade",
        )
    };
    found
        .fact("nft_rules", nft_all)
        .fact("nft_engine_rules", nft_docker)
        .fact("legacy_rules", old_all)
        .fact("legacy_engine_rules", old_docker)
}

async fn list(program: &std::path::Path) -> Result<Held, String> {
    let listing = run(program, &["-w", "5", "-S"]).await?;
    let drops = listing.lines().any(|line| line == "-P FORWARD DROP");
    Ok(Held { rules: Rules::count(&listing), drops })
}

async fn nft_program(place: &Place) -> Option<PathBuf> {
    match place.program("iptables-nft") {
        Some(program) => Some(program),
        None => plain(place, true).await,
    }
}

async fn legacy_program(place: &Place) -> Option<PathBuf> {
    match place.program("iptables-legacy") {
        Some(program) => Some(program),
        None => plain(place, false).await,
    }
}

/// The program of the plain name, when it is of this kind.
async fn plain(place: &Place, nft: bool) -> Option<PathBuf> {
    let program = place.program("iptables")?;
    let version = run(&program, &["--version"]).await.ok()?;
    (version.contains("nf_tables") == nft).then_some(program)
}
