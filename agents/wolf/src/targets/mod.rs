//! What runs beside the agent and is reached through its tunnel as it is:
//! games-on-whales Wolf's API (a unix socket) and moonlight-web (TCP). Bytes
//! pass untouched, so event streams and WebSockets work. They are offered
//! whenever they are configured, and looked for at each dial: Wolf may be
//! started after the agent. Sandboxes never see them.
//!
//! Beside these two, ports that [`TargetsConfig::tcp`] allows, as `tcp:{port}`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use wolfpack_tunnel::tcp::{TcpTargets, Words};
use wolfpack_tunnel::{Builder, TargetDialer, TargetStream, TunnelPeer};
use wolfpack_types::{Fault, Reason, Target};

use crate::config::{HostPort, TargetsConfig};

/// Connections to one of them at a time: those that forget to end theirs leave
/// room for the manager's.
const CONNECTIONS: usize = 256;
/// How long reaching one may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Where one of them listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A unix socket.
    Socket(PathBuf),
    /// A TCP port; the name is resolved anew for each connection.
    Port(HostPort),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Port(address) => write!(f, "{address}"),
        }
    }
}

/// One of them; clones share the bound on its connections.
#[derive(Debug, Clone)]
pub struct HostTarget {
    /// Its name as a target.
    pub name: &'static str,
    /// Where it listens.
    pub place: Place,
    setting: &'static str,
    program: &'static str,
    room: Arc<Semaphore>,
}

impl HostTarget {
    /// Those that are configured.
    ///
    /// # Errors
    /// When an address is none; a checked configuration has no such.
    pub fn configured(config: &TargetsConfig) -> Result<Vec<Self>, String> {
        let room = || Arc::new(Semaphore::new(CONNECTIONS));
        let wolf = config.wolf_socket().map(|path| Self {
            name: Target::WOLF_API,
            place: Place::Socket(path.to_owned()),
            setting: "targets.wolf_api",
            program: "Wolf",
            room: room(),
        });
        let moonlight = config.moonlight_address()?.map(|address| Self {
            name: Target::MOONLIGHT_WEB,
            place: Place::Port(address),
            setting: "targets.moonlight_web",
            program: "moonlight-web",
            room: room(),
        });
        Ok(wolf.into_iter().chain(moonlight).collect())
    }

    /// Whether somebody answers there now.
    ///
    /// # Errors
    /// `TARGET_UNREACHABLE`, in words that say what to do.
    pub async fn look(&self) -> Result<(), Fault> {
        self.connect().await.map(drop)
    }

    async fn connect(&self) -> Result<TargetStream, Fault> {
        let full = || {
            let words = format!(
                "{} has {CONNECTIONS} connections open, as many as it gets; end some",
                self.name
            );
            Fault::new(Reason::DialsLimited, words)
        };
        let share = Arc::new(self.room.clone().try_acquire_owned().map_err(|_| full())?);
        let opened = async {
            Ok::<_, io::Error>(match &self.place {
                Place::Socket(path) => TargetStream::unix(UnixStream::connect(path).await?, share),
                Place::Port(address) => {
                    let socket = TcpStream::connect((address.host.as_str(), address.port)).await?;
                    TargetStream::tcp(socket, share)
                }
            })
        };
        match tokio::time::timeout(CONNECT, opened).await {
            Ok(opened) => opened.map_err(|error| self.absent(error)),
            Err(_) => Err(self.absent(io::ErrorKind::TimedOut.into())),
        }
    }

    fn absent(&self, error: io::Error) -> Fault {
        let Self { program, place, setting, .. } = self;
        let words = match error.kind() {
            io::ErrorKind::NotFound if matches!(place, Place::Socket(_)) => {
                format!(
                    "this wolf runs no {program}: there is no {place}; start it there, or set {setting}"
                )
            }
            io::ErrorKind::ConnectionRefused => {
                format!(
                    "nothing listens at {place} of this wolf; start {program} there, or set {setting}"
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!("the wolf's agent may not open {place} of {program}; give it the right to")
            }
            _ => format!("{program} does not answer at {place} of this wolf ({error})"),
        };
        Fault::new(Reason::TargetUnreachable, words).caused_by(error)
    }
}

#[async_trait]
impl TargetDialer for HostTarget {
    async fn dial(&self, _: &Target, peer: &TunnelPeer) -> Result<TargetStream, Fault> {
        // The broker lets only admins through, or who reaches a port that an admin
        // has exposed; a sandbox or a wolf is told no here, too, whatever the
        // broker believes.
        let kinds = ["users/", "services/", "exposures/"];
        if !kinds.iter().any(|kind| peer.caller.starts_with(kind)) {
            return Err(Fault::new(
                Reason::TargetForbidden,
                format!("{} of a wolf is for people who manage it", self.name),
            ));
        }
        tracing::info!(
            audit = "wolf.host_target_dialed",
            caller = peer.caller,
            connection = peer.connection_id,
            dialed = self.name,
            "somebody reaches what runs beside the agent"
        );
        self.connect().await
    }
}

/// Offers those that are configured through the tunnel, and the ports that are
/// allowed; what was offered beside these.
///
/// # Errors
/// When an address is none; a checked configuration has no such.
pub fn export(tunnel: &mut Builder, config: &TargetsConfig) -> Result<Vec<HostTarget>, String> {
    let targets = HostTarget::configured(config)?;
    for target in &targets {
        tunnel.dial_target(target.name, Arc::new(target.clone()));
    }
    let policy = config.tcp_policy()?;
    if !policy.is_empty() {
        let words = Words { of: "wolf", setting: "targets.tcp of its agent" };
        let ports = TcpTargets::new(policy, words, CONNECTIONS);
        tunnel.dial_family(Target::TCP, Arc::new(ports));
    }
    Ok(targets)
}

/// Says which of them are there now, once.
pub(crate) async fn say(targets: Vec<HostTarget>) {
    for target in targets {
        match target.look().await {
            Ok(()) => tracing::info!(export = target.name, place = %target.place, "exported"),
            Err(fault) => tracing::info!(
                export = target.name,
                "exported, and not there now: {}",
                fault.message
            ),
        }
    }
}

#[cfg(test)]
mod tests;
