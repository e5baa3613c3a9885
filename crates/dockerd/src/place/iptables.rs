//! Which of the two iptables an engine uses. Rules of both kinds in one kernel
//! do not see each other: a packet must pass both, and what one accepts the
//! other drops. So the kind that already holds rules is the one to use.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StepFailed;
use super::program::run;

/// The step's name.
pub const STEP: &str = "iptables";
/// Legacy tables that exist in this network namespace; asking the program
/// itself would make them.
const LEGACY_TABLES: &str = "proc/net/ip_tables_names";
/// What is called by its plain name.
const NAMES: [(&str, &str); 6] = [
    ("iptables", ""),
    ("iptables", "-save"),
    ("iptables", "-restore"),
    ("ip6tables", ""),
    ("ip6tables", "-save"),
    ("ip6tables", "-restore"),
];
/// How long it may wait for another one's lock, in seconds.
const LOCK: &str = "5";

/// A kind of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Over nf_tables.
    Nft,
    /// The kernel's older tables.
    Legacy,
}

impl Backend {
    /// As in the program's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

/// What one kind says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Which.
    pub backend: Backend,
    /// How many rules it holds, and how many of them an engine made; or why it
    /// does not work here.
    pub rules: Result<Rules, String>,
}

/// Rules that are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// All of them.
    pub all: usize,
    /// Those in an engine's chains.
    pub docker: usize,
}

impl Rules {
    /// Counts what `iptables -S` lists.
    #[must_use]
    pub fn count(listing: &str) -> Self {
        let rules = || listing.lines().filter(|line| line.starts_with("-A "));
        Self {
            all: rules().count(),
            docker: rules().filter(|rule| rule.contains("DOCKER")).count(),
        }
    }
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Which.
    pub backend: Backend,
    /// Why, in words.
    pub reason: String,
}

/// Chooses: the kind that holds an engine's rules, else the one that holds any,
/// else the newer one of those that work. Pure.
///
/// # Errors
/// When none works.
pub fn choose(probes: &[Probe]) -> Result<Choice, StepFailed> {
    let working: Vec<(Backend, Rules)> = probes
        .iter()
        .filter_map(|probe| probe.rules.as_ref().ok().map(|rules| (probe.backend, *rules)))
        .collect();
    let most = |count: fn(&Rules) -> usize| {
        // Of equals the first one, and nft is asked first.
        working.iter().rev().filter(|(_, rules)| count(rules) > 0).max_by_key(|(_, r)| count(r))
    };
    let chosen = |backend, reason: &str| Choice { backend, reason: reason.to_owned() };
    if let Some((backend, _)) = most(|rules| rules.docker) {
        return Ok(chosen(*backend, "the outer engine's rules are there"));
    }
    if let Some((backend, _)) = most(|rules| rules.all) {
        return Ok(chosen(*backend, "it holds rules already"));
    }
    if let Some((backend, _)) = working.first() {
        return Ok(chosen(*backend, "it works here, and no rules are there yet"));
    }
    let why: Vec<String> = probes
        .iter()
        .filter_map(|probe| {
            let why = probe.rules.as_ref().err()?;
            Some(format!("{}: {why}", probe.backend.as_str()))
        })
        .collect();
    Err(StepFailed::new(
        STEP,
        why.join("; "),
        "start the container with --cap-add NET_ADMIN, and load nf_tables or ip_tables on the \
         machine (modprobe nf_tables)",
    ))
}

/// Asks both kinds. `root` is `/`; tests give a tree of their own.
pub async fn probe(root: &Path) -> Vec<Probe> {
    let nft = listing(Backend::Nft).await;
    let tables = std::fs::read_to_string(root.join(LEGACY_TABLES)).unwrap_or_default();
    let legacy = if nft.is_ok() && tables.trim().is_empty() {
        Ok(Rules::default())
    } else {
        listing(Backend::Legacy).await
    };
    vec![
        Probe { backend: Backend::Nft, rules: nft },
        Probe { backend: Backend::Legacy, rules: legacy },
    ]
}

async fn listing(backend: Backend) -> Result<Rules, String> {
    let program = find(&format!("iptables-{}", backend.as_str()))?;
    let mut rules = Rules::default();
    for table in ["nat", "filter"] {
        let listing = run(program.as_os_str(), &["-w", LOCK, "-t", table, "-S"]).await?;
        let counted = Rules::count(&listing);
        rules.all += counted.all;
        rules.docker += counted.docker;
    }
    Ok(rules)
}

/// Where a program is: the `PATH`, then where Debian has those for root.
fn find(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| format!("{name} is not installed"))
}

/// Makes the chosen kind the one that is called by its plain name for whoever
/// has `folder` first in the `PATH`.
///
/// # Errors
/// When the folder or a link cannot be made.
pub fn install(folder: &Path, backend: Backend) -> Result<(), StepFailed> {
    let failed = |why: &dyn std::fmt::Display| {
        StepFailed::new(STEP, why, format!("make {} writable (--tmpfs /run)", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    for (family, suffix) in NAMES {
        let link = folder.join(format!("{family}{suffix}"));
        let Ok(program) = find(&format!("{family}-{}{suffix}", backend.as_str())) else { continue };
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
            Ok(()) | Err(_) => {}
        }
        std::os::unix::fs::symlink(program, &link).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Has the kernel pass on what is addressed to others: engines set the policy
/// to drop when they are the first to switch forwarding on, and containers
/// further in would reach nothing.
///
/// # Errors
/// When the rule cannot be set.
pub async fn accept_forwarded(backend: Backend) -> Result<(), StepFailed> {
    let set = async {
        let program = find(&format!("iptables-{}", backend.as_str()))?;
        run(program.as_os_str(), &["-w", LOCK, "-P", "FORWARD", "ACCEPT"]).await
    };
    match set.await {
        Ok(_) => Ok(()),
        Err(why) => Err(StepFailed::new(STEP, why, "start the container with --cap-add NET_ADMIN")),
    }
}

/// The `PATH` with `folder` first.
#[must_use]
pub fn path_with(folder: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_else(|| {
        OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").to_owned()
    });
    let rest = std::env::split_paths(&path).filter(|entry| entry != folder);
    // It fails only for a folder with a colon, which is no use in a PATH.
    std::env::join_paths(std::iter::once(folder.to_owned()).chain(rest)).unwrap_or(path)
}

#[cfg(test)]
#[path = "iptables_tests.rs"]
mod tests;
