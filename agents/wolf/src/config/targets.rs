//! What runs beside the agent and is reached through its tunnel as it is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::HostPort;

/// What runs beside the agent and is reached through its tunnel as it is. None
/// of it is ever shown to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetsConfig {
    /// The unix socket of games-on-whales Wolf's API; empty for none. It need
    /// not be there yet: it is looked for at each dial. Default:
    /// `/var/run/wolf/wolf.sock`.
    pub wolf_api: PathBuf,
    /// Where moonlight-web listens, `host:port` as this host reaches it; empty
    /// for none. Default: `127.0.0.1:8080`.
    pub moonlight_web: String,
}

impl Default for TargetsConfig {
    fn default() -> Self {
        Self {
            wolf_api: "/var/run/wolf/wolf.sock".into(),
            moonlight_web: "127.0.0.1:8080".to_owned(),
        }
    }
}

impl TargetsConfig {
    /// Wolf's socket; `None` when it is turned off.
    #[must_use]
    pub fn wolf_socket(&self) -> Option<&Path> {
        Some(self.wolf_api.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// moonlight-web's address; `None` when it is turned off.
    ///
    /// # Errors
    /// When it is not `host:port`; says what to write.
    pub fn moonlight_address(&self) -> Result<Option<HostPort>, String> {
        if self.moonlight_web.is_empty() {
            return Ok(None);
        }
        let fault = |fault| format!("targets.moonlight_web: {fault}");
        let address = HostPort::parse(&self.moonlight_web, None).map_err(fault)?;
        if address.host.is_empty() {
            return Err(fault("the host is missing".to_owned()));
        }
        Ok(Some(address))
    }

    /// `allowed` are the folders that sandboxes may mount.
    pub(super) fn faults(&self, allowed: &[PathBuf]) -> Vec<String> {
        let mut faults: Vec<String> = self.moonlight_address().err().into_iter().collect();
        let Some(socket) = self.wolf_socket() else { return faults };
        if !socket.is_absolute() {
            faults.push("targets.wolf_api must be an absolute path, or empty for none".to_owned());
        }
        let socket = run(socket);
        for folder in allowed.iter().filter(|folder| socket.starts_with(run(folder))) {
            faults.push(format!(
                "mounts.allow: {} holds the socket of targets.wolf_api, and who reaches that owns every session of the wolf; allow a folder beside it",
                folder.display()
            ));
        }
        faults
    }
}

/// `/var/run` is `/run` everywhere.
fn run(path: &Path) -> PathBuf {
    path.strip_prefix("/var/run")
        .map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_can_be_moved_or_turned_off() {
        let config = TargetsConfig::default();
        assert_eq!(config.faults(&[]), Vec::<String>::new());
        assert!(config.wolf_socket().is_some());
        assert_eq!(config.moonlight_address().unwrap().unwrap().to_string(), "127.0.0.1:8080");
        let off = TargetsConfig { wolf_api: PathBuf::new(), moonlight_web: String::new() };
        assert_eq!((off.wolf_socket(), off.moonlight_address()), (None, Ok(None)));
        assert_eq!(off.faults(&["/run".into()]), Vec::<String>::new());
        let odd = TargetsConfig { wolf_api: "wolf.sock".into(), moonlight_web: ":80".into() };
        assert_eq!(odd.faults(&[]).len(), 2);
    }

    #[test]
    fn no_folder_with_the_socket_can_be_mounted() {
        let faults = |folder: &str| TargetsConfig::default().faults(&[folder.into()]).len();
        for folder in ["/run", "/var/run", "/run/wolf", "/var/run/wolf/", "/run/wolf/wolf.sock"] {
            assert_eq!(faults(folder), 1, "{folder}");
        }
        for folder in ["/srv", "/run/wolves", "/var/run/w", "/var"] {
            // A folder above the mount point of /run holds none of it by name.
            assert_eq!(faults(folder), 0, "{folder}");
        }
    }
}
