//! The engine: what it says of itself, and what is known of its parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bollard::{API_DEFAULT_VERSION, Docker};

use super::check::Found;
use super::place::Look;
use super::vulnerabilities::{Vulnerability, of, packaged, parse};

/// How long the engine may take for an answer, in seconds.
const DEADLINE: u64 = 10;
/// Older engines lack what sandboxes need.
const LEAST: [u32; 3] = [20, 10, 0];
/// The oldest that is still mended by its makers.
const MENDED: [u32; 3] = [25, 0, 0];

/// What the engine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EngineLook {
    pub(super) driver: String,
    pub(super) data_root: Option<PathBuf>,
    pub(super) options: Vec<String>,
    /// Its parts and their versions, itself (`Engine`) among them.
    pub(super) parts: BTreeMap<String, String>,
}

/// Asks the engine.
pub(super) async fn look(socket: &Path) -> Result<EngineLook, String> {
    let path = socket.to_string_lossy();
    let docker = Docker::connect_with_unix(&path, DEADLINE, API_DEFAULT_VERSION)
        .map_err(|error| format!("{path}: {error}"))?;
    let answers = async {
        let docker = docker.negotiate_version().await?;
        Ok::<_, bollard::errors::Error>((docker.info().await?, docker.version().await?))
    };
    let deadline = std::time::Duration::from_secs(2 * DEADLINE);
    let (info, version) = tokio::time::timeout(deadline, answers)
        .await
        .map_err(|_| format!("{path}: no answer within {deadline:?}"))?
        .map_err(|error| format!("{path}: {error}"))?;
    let mut parts: BTreeMap<String, String> =
        version.components.into_iter().flatten().map(|part| (part.name, part.version)).collect();
    if let Some(engine) = version.version {
        parts.insert("Engine".to_owned(), engine);
    }
    Ok(EngineLook {
        driver: info.driver.unwrap_or_default(),
        data_root: info.docker_root_dir.map(PathBuf::from),
        options: info.security_options.unwrap_or_default(),
        parts,
    })
}

impl EngineLook {
    /// Whether root in containers is somebody else outside.
    fn remaps(&self) -> bool {
        self.options.iter().any(|option| {
            option.split(',').any(|part| part == "name=userns" || part == "name=rootless")
        })
    }
}

/// A check of the engine when there is none.
pub(super) fn away(why: &str) -> Found {
    Found::skip(format!("the engine does not answer: {why}"))
}

pub(super) fn version(look: &Look) -> Found {
    let engine = match &look.engine {
        Ok(engine) => engine,
        Err(why) => {
            return Found::fail(
                format!("the engine does not answer: {why}"),
                "start it, or set docker_host to its socket; its log says why it ended",
            );
        }
    };
    let said = engine.parts.get("Engine").cloned().unwrap_or_default();
    let words: Vec<String> =
        engine.parts.iter().map(|(part, version)| format!("{part} {version}")).collect();
    let words = words.join(", ");
    let mut found = match parse(&said) {
        Some((number, _)) if number < LEAST => {
            Found::fail(words, "install Docker 20.10 or newer; 27 or newer is best")
        }
        Some((number, _)) if number < MENDED && !packaged(&said) => Found::warn(
            words,
            "its makers mend this version no more: install a newer one, or your distribution's",
        ),
        Some(_) => Found::pass(words),
        None => Found::warn(words, "its version is no number: known holes cannot be looked up"),
    };
    for (part, version) in &engine.parts {
        found = found.fact(part, version);
    }
    found
}

pub(super) fn vulnerabilities(look: &Look) -> Found {
    match &look.engine {
        Ok(engine) => {
            known(engine.parts.iter().map(|(part, version)| (part.as_str(), version.as_str())))
        }
        Err(why) => away(why),
    }
}

/// What is known of these parts. One that a distribution made may be mended
/// though its number says not: that is a warning.
pub(super) fn known<'a>(parts: impl Iterator<Item = (&'a str, &'a str)>) -> Found {
    let mut open: Vec<(&Vulnerability, &str, &str)> = Vec::new();
    let mut looked = 0;
    for (part, version) in parts {
        looked += usize::from(parse(version).is_some());
        open.extend(of(part, version).into_iter().map(|hole| (hole, part, version)));
    }
    if looked == 0 {
        return Found::skip("no part has a version that can be looked up");
    }
    if open.is_empty() {
        return Found::pass("no known hole in engine, containerd or runc")
            .fact("looked_at", looked);
    }
    let serious = open.iter().any(|(hole, _, version)| hole.by_any_container && !packaged(version));
    let words: Vec<String> = open
        .iter()
        .map(|(hole, part, version)| format!("{} ({part} {version}: {})", hole.id, hole.what))
        .collect();
    let words = words.join("; ");
    let mut found = if serious {
        Found::fail(words, "install versions without them, before strangers' sandboxes run here")
    } else if open.iter().all(|(_, _, version)| packaged(version)) {
        Found::warn(
            words,
            "distributions mend without changing the number: see that its security updates are \
             in, and what its tracker says of these",
        )
    } else {
        Found::warn(words, "install versions without them")
    };
    for (hole, part, version) in open {
        found = found.fact(hole.id, format!("{part} {version}; {}", hole.source));
    }
    found
}

pub(super) fn user_remap(look: &Look) -> Found {
    match &look.engine {
        Ok(engine) if engine.remaps() => {
            Found::pass("root in a sandbox is nobody on this machine").fact("remapped", true)
        }
        Ok(_) => Found::warn(
            "root in a sandbox is root on this machine, kept in by the engine alone; no sandbox \
             can have an engine of its own",
            "run dockerd with --userns-remap=default, or use the wolf image, which does",
        )
        .fact("remapped", false),
        Err(why) => away(why),
    }
}
