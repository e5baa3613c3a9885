//! Whether an engine answers, and what it says about itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum, SystemInfoCgroupVersionEnum};
use bollard::{API_DEFAULT_VERSION, Docker};
use serde::{Deserialize, Serialize};

/// The storage drivers that share files between an image and its containers.
const DRIVERS: [&str; 2] = ["overlay2", "overlayfs"];
/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);

/// What an engine says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineFacts {
    /// Its version, `20.10.24`.
    pub version: String,
    /// How images and containers are stored.
    pub storage_driver: String,
    /// `1` or `2`; empty when it does not say.
    pub cgroup_version: String,
    /// `cgroupfs`, `systemd` or `none`.
    pub cgroup_driver: String,
    /// The kernel's release.
    pub kernel: String,
    /// Whether its containers' root is a user without rights outside.
    pub remapped_root: bool,
    /// Whether it runs in a user namespace itself.
    pub rootless: bool,
    /// Whether containers go on while it is away.
    pub live_restore: bool,
    /// Where its data is.
    pub data_root: PathBuf,
    /// The runtimes it knows by name.
    pub runtimes: Vec<String>,
}

impl EngineFacts {
    /// Whether the storage driver is fit: whole copies for each layer are not.
    #[must_use]
    pub fn storage_is_overlay(&self) -> bool {
        DRIVERS.contains(&self.storage_driver.as_str())
    }
}

impl From<SystemInfo> for EngineFacts {
    fn from(info: SystemInfo) -> Self {
        let options = info.security_options.unwrap_or_default();
        let has = |name: &str| {
            options
                .iter()
                .any(|option| option.split(',').any(|part| part == format!("name={name}")))
        };
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        Self {
            version: info.server_version.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            cgroup_version: match info.cgroup_version {
                Some(SystemInfoCgroupVersionEnum::_1) => "1".to_owned(),
                Some(SystemInfoCgroupVersionEnum::_2) => "2".to_owned(),
                _ => String::new(),
            },
            cgroup_driver: match info.cgroup_driver {
                Some(SystemInfoCgroupDriverEnum::CGROUPFS) => "cgroupfs".to_owned(),
                Some(SystemInfoCgroupDriverEnum::SYSTEMD) => "systemd".to_owned(),
                Some(SystemInfoCgroupDriverEnum::NONE) => "none".to_owned(),
                _ => String::new(),
            },
            kernel: info.kernel_version.unwrap_or_default(),
            remapped_root: has("userns"),
            rootless: has("rootless"),
            live_restore: info.live_restore_enabled.unwrap_or_default(),
            data_root: info.docker_root_dir.unwrap_or_default().into(),
            runtimes,
        }
    }
}

/// A client for the engine at this socket, in a version both know.
///
/// # Errors
/// When it does not answer in time; says why.
pub(crate) async fn client(socket: &Path) -> Result<Docker, String> {
    let connect = async {
        let client = Docker::connect_with_unix(&socket.to_string_lossy(), 60, API_DEFAULT_VERSION)?;
        client.negotiate_version().await
    };
    in_time(connect).await
}

/// Asks the engine whether it is there, and then what it is.
///
/// # Errors
/// When it does not answer in time; says why.
pub async fn ask(socket: &Path) -> Result<EngineFacts, String> {
    let client = client(socket).await?;
    in_time(client.ping()).await?;
    in_time(client.info()).await.map(EngineFacts::from)
}

pub(super) async fn in_time<T>(
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(CALL, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {CALL:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_what_engines_say() {
        let info: SystemInfo = serde_json::from_value(serde_json::json!({
            "ServerVersion": "20.10.24+dfsg1", "Driver": "overlay2", "CgroupVersion": "1",
            "CgroupDriver": "cgroupfs", "KernelVersion": "6.18", "LiveRestoreEnabled": true,
            "DockerRootDir": "/var/lib/docker/100000.100000",
            "SecurityOptions": ["name=seccomp,profile=default", "name=userns"],
            "Runtimes": { "runc": { "path": "runc" }, "nvidia": { "path": "/usr/bin/n" } },
        }))
        .unwrap();
        let facts = EngineFacts::from(info);
        assert!(facts.remapped_root && !facts.rootless && facts.live_restore);
        assert!(facts.storage_is_overlay());
        assert_eq!(
            (facts.cgroup_version.as_str(), facts.cgroup_driver.as_str()),
            ("1", "cgroupfs")
        );
        assert_eq!(facts.runtimes, ["nvidia", "runc"]);
    }

    #[test]
    fn only_overlays_are_fit() {
        for (driver, fit) in [("overlay2", true), ("overlayfs", true), ("vfs", false), ("", false)]
        {
            let facts = EngineFacts { storage_driver: driver.to_owned(), ..EngineFacts::default() };
            assert_eq!(facts.storage_is_overlay(), fit, "{driver}");
        }
    }

    #[tokio::test]
    async fn a_socket_without_an_engine_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ask(&dir.path().join("none.sock")).await.is_err());
    }
}
