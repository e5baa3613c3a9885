//! What sandboxes of this wolf may have: Docker, and folders of the host.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The most folders the registry takes.
const FOLDERS: usize = 64;
/// The longest path the registry takes, in bytes.
const PATH_LEN: usize = 1_024;
/// The deepest an engine can be: each level has address pools of its own.
const DEPTHS: std::ops::RangeInclusive<u8> = 1..=8;

/// What sandboxes may have of Docker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// Whether sandboxes may ask for this wolf's own engine. Whoever is in such
    /// a sandbox owns the wolf. Default: false.
    pub shared: bool,
    /// How many engines are above the one of a sandbox: 1 where this wolf uses
    /// a machine's own engine, 2 where the wolf is a container itself. Address
    /// pools follow from it. Default: 1.
    pub depth: u8,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self { shared: false, depth: 1 }
    }
}

/// Which folders of the host sandboxes may see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MountsConfig {
    /// Absolute paths; what is below them may be mounted. Default: none.
    pub allow: Vec<PathBuf>,
    /// Whether sandboxes of every project may. Otherwise only those of the
    /// project that the wolf is joined for, and on a wolf of all projects none:
    /// through a folder tenants meet. Default: false.
    pub every_project: bool,
}

impl DockerConfig {
    pub(super) fn faults(&self) -> Vec<String> {
        let fault = || "docker.depth must be 1 to 8".to_owned();
        (!DEPTHS.contains(&self.depth)).then(fault).into_iter().collect()
    }
}

impl MountsConfig {
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.allow.len() > FOLDERS {
            faults.push("mounts.allow: at most 64 paths".to_owned());
        }
        for path in &self.allow {
            if !plain(path) || path.as_os_str().len() > PATH_LEN {
                faults.push(format!(
                    "mounts.allow: {} must be an absolute path without . or .., other than /",
                    path.display()
                ));
            }
        }
        faults
    }
}

/// Whether a path is absolute, not the root, and names each folder.
fn plain(path: &Path) -> bool {
    let mut parts = path.components();
    path.to_str().is_some()
        && parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && !path.to_string_lossy().split('/').any(|part| part == ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_that_are_named_are_allowed() {
        let allow = |path: &str| {
            MountsConfig { allow: vec![path.into()], ..MountsConfig::default() }.faults().is_empty()
        };
        assert!(allow("/srv/code") && allow("/srv/code/"));
        for odd in ["/", "", "srv", "./srv", "/srv/../etc", "/srv/./x", "//"] {
            assert!(!allow(odd), "{odd}");
        }
        let many = MountsConfig { allow: vec!["/srv".into(); 65], ..MountsConfig::default() };
        assert_eq!(many.faults().len(), 1);
        assert!(!many.every_project, "tenants meet in a folder only where it is said");
    }

    #[test]
    fn a_depth_is_a_small_number() {
        assert!(DockerConfig::default().faults().is_empty());
        assert_eq!(DockerConfig { depth: 0, ..DockerConfig::default() }.faults().len(), 1);
    }
}
