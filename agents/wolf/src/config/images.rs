//! How images are kept, and which registries ask who we are.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is kept of images, and how much disk stays free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Bytes that stay free on the disk of the engine and on that of
    /// `data_dir`. Nothing new is placed on the wolf, and images that no
    /// container uses are removed, while less than twice as much is free.
    /// Default: 2 GiB.
    pub reserve_bytes: u64,
    /// The same in percent of the disk; the larger one counts. Default: 2.
    pub reserve_percent: u8,
    /// How long an image is kept that no sandbox uses; `0s` for as long as the
    /// disk has room. Only images that this agent fetched or loaded are ever
    /// removed by it. Default: 30 days.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// Images that stay in any case: names, or beginnings of names with `*`.
    /// Default: `wolfpack/*`.
    pub pin: Vec<String>,
    /// The most bytes of uploads that are under way or may be gone on with.
    /// Default: 64 GiB.
    pub uploads_bytes: u64,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            reserve_bytes: 2 << 30,
            reserve_percent: 2,
            keep: Duration::from_secs(30 * 24 * 3_600),
            pin: vec!["wolfpack/*".to_owned()],
            uploads_bytes: 64 << 30,
        }
    }
}

impl ImagesConfig {
    /// What stays free of a disk of this size.
    #[must_use]
    pub fn reserve(&self, total: u64) -> u64 {
        self.reserve_bytes.max(total / 100 * u64::from(self.reserve_percent))
    }

    /// Whether an image of this name stays in any case.
    #[must_use]
    pub fn pins(&self, reference: &str) -> bool {
        let short = ["docker.io/library/", "docker.io/"]
            .into_iter()
            .find_map(|prefix| reference.strip_prefix(prefix))
            .unwrap_or(reference);
        self.pin.iter().any(|pin| match pin.strip_suffix('*') {
            Some(beginning) => short.starts_with(beginning) || reference.starts_with(beginning),
            None => {
                let pin = crate::engine::image::with_tag(pin);
                short == pin || reference == pin
            }
        })
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.reserve_percent > 50 {
            faults.push("images.reserve_percent must be at most 50".to_owned());
        }
        if self.uploads_bytes == 0 {
            faults.push("images.uploads_bytes must be at least 1".to_owned());
        }
        faults
    }
}

/// An account at a registry. It is used by this agent's pulls only and reaches
/// no sandbox, but for one that shares the engine and so owns the wolf. What was pulled with it may be used by every sandbox on
/// the wolf that names the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// The registry as `docker login` names it: `ghcr.io`, `host:5000`,
    /// `docker.io`.
    pub host: String,
    /// The account's name.
    pub username: String,
    /// A file with its password or token; read at each pull.
    pub password_file: PathBuf,
}

pub(super) fn registry_faults(registries: &[RegistryConfig]) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, registry) in registries.iter().enumerate() {
        let RegistryConfig { host, username, password_file } = registry;
        if host.is_empty() || host.contains('/') {
            faults.push(format!(
                "registries.{at}.host {host:?} must be a registry's name such as ghcr.io"
            ));
        }
        if username.is_empty() {
            faults.push(format!("registries.{at}.username must be set"));
        }
        if !password_file.is_absolute() {
            faults.push(format!("registries.{at}.password_file must be an absolute path"));
        }
        if registries.iter().take(at).any(|other| other.host == *host) {
            faults.push(format!("registries.{at}.host {host:?} is there twice"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_names_and_beginnings() {
        let pin = vec!["wolfpack/*".to_owned(), "debian".to_owned(), "ghcr.io/me/*".to_owned()];
        let config = ImagesConfig { pin, ..ImagesConfig::default() };
        for pinned in [
            "wolfpack/sandbox-base:latest",
            "docker.io/wolfpack/x:1",
            "debian:latest",
            "docker.io/library/debian:latest",
            "ghcr.io/me/x:1",
        ] {
            assert!(config.pins(pinned), "{pinned}");
        }
        for loose in ["debian:12", "ghcr.io/you/x:1", "example.com/wolfpack/x:1"] {
            assert!(!config.pins(loose), "{loose}");
        }
    }

    #[test]
    fn the_larger_reserve_counts() {
        let config =
            ImagesConfig { reserve_bytes: 10, reserve_percent: 2, ..ImagesConfig::default() };
        assert_eq!(config.reserve(100), 10);
        assert_eq!(config.reserve(10_000), 200);
    }

    #[test]
    fn every_fault_of_a_registry_is_told() {
        let registry = |host: &str| RegistryConfig {
            host: host.into(),
            username: "me".into(),
            password_file: "/run/secrets/x".into(),
        };
        assert_eq!(
            registry_faults(&[registry("ghcr.io"), registry("a:5000")]),
            Vec::<String>::new()
        );
        let bad = RegistryConfig {
            host: "https://ghcr.io".into(),
            username: String::new(),
            password_file: "x".into(),
        };
        assert_eq!(registry_faults(&[registry("a"), registry("a"), bad]).len(), 4);
    }
}
