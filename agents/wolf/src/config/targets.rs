//! What runs beside the agent and is reached through its tunnel as it is.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wolfpack_tunnel::tcp::{Host, TcpPolicy};
use wolfpack_types::{PortRange, PortSet, port_set};

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
    /// TCP ports of this host that may be dialed as `tcp:{port}`, by the admins
    /// of its project: a port or a range of its loopback (`5432`, `8000-8999`),
    /// or a port that leads to a host as this one reaches it (`5900=camera:5900`).
    /// A host's name must not lead to a loopback, link-local, multicast or
    /// metadata address; `localhost` and loopback addresses may be written as
    /// such. Default: none.
    pub tcp: Vec<String>,
    /// TCP ports of each sandbox's own loopback that may be dialed in it as
    /// `tcp:{port}`; counts from the next boot of a sandbox. Default: all.
    pub sandbox_tcp: PortSet,
}

impl Default for TargetsConfig {
    fn default() -> Self {
        Self {
            wolf_api: "/var/run/wolf/wolf.sock".into(),
            moonlight_web: "127.0.0.1:8080".to_owned(),
            tcp: Vec::new(),
            sandbox_tcp: PortSet::all(),
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

    /// What `tcp` allows.
    ///
    /// # Errors
    /// Names the first row that is none; says what to write.
    pub fn tcp_policy(&self) -> Result<TcpPolicy, String> {
        let mut policy = TcpPolicy::default();
        let mut ranges = Vec::new();
        for row in &self.tcp {
            let fault = |fault| format!("targets.tcp: {fault}");
            match row.split_once('=') {
                None => ranges.push(row.parse::<PortRange>().map_err(fault)?),
                Some((port, host)) => {
                    let read = port_set::port(port).zip(self::host(host));
                    let (port, host) = read.ok_or_else(|| {
                        fault(format!("{row:?} is not PORT=HOST:PORT, with ports from 1 to 65535"))
                    })?;
                    if policy.hosts.insert(port, host).is_some() {
                        return Err(fault(format!("port {port} leads to two hosts")));
                    }
                }
            }
        }
        policy.loopback = ranges.into_iter().collect();
        Ok(policy)
    }

    /// `allowed` are the folders that sandboxes may mount.
    pub(super) fn faults(&self, allowed: &[PathBuf]) -> Vec<String> {
        let mut faults: Vec<String> = self.moonlight_address().err().into_iter().collect();
        faults.extend(self.tcp_policy().err());
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

fn host(text: &str) -> Option<Host> {
    let HostPort { host, port } = HostPort::parse(text, None).ok()?;
    let own = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let port = NonZeroU16::new(port)?;
    (!host.is_empty()).then_some(Host { name: host, port, own })
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
        let off = TargetsConfig {
            wolf_api: PathBuf::new(),
            moonlight_web: String::new(),
            ..TargetsConfig::default()
        };
        assert_eq!((off.wolf_socket(), off.moonlight_address()), (None, Ok(None)));
        assert_eq!(off.faults(&["/run".into()]), Vec::<String>::new());
        let odd = TargetsConfig {
            wolf_api: "wolf.sock".into(),
            moonlight_web: ":80".into(),
            tcp: vec!["0".into()],
            ..TargetsConfig::default()
        };
        assert_eq!(odd.faults(&[]).len(), 3);
    }

    #[test]
    fn ports_are_allowed_by_row_and_none_without() {
        let policy = |rows: &[&str]| {
            let tcp = rows.iter().map(|row| (*row).to_owned()).collect();
            TargetsConfig { tcp, ..TargetsConfig::default() }.tcp_policy()
        };
        assert!(TargetsConfig::default().tcp_policy().unwrap().is_empty());
        let port = |port| NonZeroU16::new(port).unwrap();
        let read = policy(&["22", "8000-8999", "59=cam.lan:5900", "60=[::1]:1"]).unwrap();
        assert!(read.loopback.contains(port(8500)) && !read.loopback.contains(port(59)));
        assert_eq!(read.hosts[&port(59)].to_string(), "cam.lan:5900");
        assert!(!read.hosts[&port(59)].own, "a name does not mean this host");
        for own in ["60=localhost:1", "60=127.0.0.2:1", "60=[::1]:1"] {
            assert!(policy(&[own]).unwrap().hosts[&port(60)].own, "{own}");
        }
        for bad in
            ["", "a", "0", "9-1", "1=", "1=h", "1=h:0", "0=h:1", "1-2=h:1", "1=:1", "1=h/x:1"]
        {
            let fault = policy(&[bad]).unwrap_err();
            assert!(fault.starts_with("targets.tcp: "), "{bad}: {fault}");
        }
        assert!(policy(&["1=a:1", "1=b:1"]).unwrap_err().contains("two hosts"));
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
