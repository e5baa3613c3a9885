//! Which wolves have a tunnel, as the broker tells it.
//!
//! After each connect the broker's snapshot is the truth. While the broker is
//! away nothing is known and nothing is changed: wolves whose broker is gone
//! stop sending heartbeats, and that decides.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wolfpack_proto::tunnel::v1::tunnel_service_client::TunnelServiceClient;
use wolfpack_proto::tunnel::v1::watch_tunnels_response::Event;
use wolfpack_proto::tunnel::v1::{Tunnel, WatchTunnelsRequest};
use wolfpack_rpc::client::RpcChannel;
use wolfpack_rpc::error::from_status;
use wolfpack_runtime::BoxError;
use wolfpack_types::{Endpoint, Fault, WolfId};

use crate::domain::health::Timing;
use crate::store::Database;
use crate::watch::{Feed, Wolves};

/// What follows a broker.
#[derive(Clone)]
pub(crate) struct TunnelWatch {
    pub(crate) broker: RpcChannel,
    pub(crate) database: Database,
    pub(crate) wolves: Arc<Feed<Wolves>>,
    pub(crate) timing: Timing,
    pub(crate) token: CancellationToken,
}

/// The sessions of each wolf: a new one may attach before the old one is told
/// to be gone.
#[derive(Default)]
struct Sessions {
    open: HashMap<WolfId, HashSet<String>>,
    complete: bool,
}

/// What an event asks for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// The snapshot is complete: these and no others.
    Resync(HashSet<WolfId>),
    /// One wolf.
    Set(WolfId, bool),
}

impl TunnelWatch {
    /// Follows the broker until its stream ends, to be started again, or the
    /// token is cancelled.
    pub(crate) async fn run(self) -> Result<(), BoxError> {
        let token = self.token.clone();
        tokio::select! {
            () = token.cancelled() => Ok(()),
            ended = self.follow() => ended,
        }
    }

    async fn follow(&self) -> Result<(), BoxError> {
        let mut client = TunnelServiceClient::new(self.broker.without_deadline());
        let answer = client.watch_tunnels(WatchTunnelsRequest {}).await;
        let mut events = answer.map_err(|status| from_status(&status))?.into_inner();
        let mut sessions = Sessions::default();
        while let Some(message) = events.message().await.map_err(|status| from_status(&status))? {
            let Some(event) = message.event else { continue };
            match sessions.apply(event) {
                Step::Nothing => {}
                Step::Resync(attached) => self.resync(&attached).await?,
                Step::Set(wolf, attached) => self.set(&wolf, attached).await?,
            }
        }
        Err("the stream of tunnels ended".into())
    }

    async fn resync(&self, attached: &HashSet<WolfId>) -> Result<(), Fault> {
        let believed = self.database.attached_wolves().await?;
        for wolf in attached.difference(&believed) {
            self.set(wolf, true).await?;
        }
        for wolf in believed.difference(attached) {
            self.set(wolf, false).await?;
        }
        tracing::info!(attached = attached.len(), "the broker's tunnels are known");
        Ok(())
    }

    async fn set(&self, wolf: &WolfId, attached: bool) -> Result<(), Fault> {
        if self.database.set_tunnel(wolf, attached, self.timing).await? {
            tracing::info!(%wolf, attached, "tunnel");
            self.wolves.wake();
        }
        Ok(())
    }
}

impl Sessions {
    fn apply(&mut self, event: Event) -> Step {
        match event {
            Event::Attached(tunnel) => {
                let Some(wolf) = wolf_of(&tunnel) else { return Step::Nothing };
                self.open.entry(wolf.clone()).or_default().insert(tunnel.session_id);
                if self.complete { Step::Set(wolf, true) } else { Step::Nothing }
            }
            Event::Detached(tunnel) => {
                let Some(wolf) = wolf_of(&tunnel) else { return Step::Nothing };
                let left = self.open.get_mut(&wolf).is_some_and(|sessions| {
                    sessions.remove(&tunnel.session_id);
                    !sessions.is_empty()
                });
                if !left {
                    self.open.remove(&wolf);
                }
                if self.complete && !left { Step::Set(wolf, false) } else { Step::Nothing }
            }
            Event::Bookmark(mark) if mark.snapshot_complete && !self.complete => {
                self.complete = true;
                Step::Resync(self.open.keys().cloned().collect())
            }
            Event::Bookmark(_) => Step::Nothing,
        }
    }
}

fn wolf_of(tunnel: &Tunnel) -> Option<WolfId> {
    match Endpoint::parse(&tunnel.endpoint) {
        Ok(Endpoint::Wolf(wolf)) => Some(wolf),
        Ok(Endpoint::Sandbox(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::types::v1::WatchBookmark;

    fn tunnel(endpoint: &str, session: &str) -> Tunnel {
        Tunnel {
            endpoint: endpoint.to_owned(),
            session_id: session.to_owned(),
            ..Tunnel::default()
        }
    }

    fn complete() -> Event {
        Event::Bookmark(WatchBookmark { snapshot_complete: true })
    }

    #[test]
    fn the_snapshot_counts_as_a_whole() {
        let mut sessions = Sessions::default();
        let attached = |name: &str| Event::Attached(tunnel(name, "s"));
        assert_eq!(sessions.apply(attached("wolves/a")), Step::Nothing);
        assert_eq!(sessions.apply(attached("sandboxes/b")), Step::Nothing);
        let expected = HashSet::from([WolfId::parse("a").unwrap()]);
        assert_eq!(sessions.apply(complete()), Step::Resync(expected));
        assert_eq!(sessions.apply(complete()), Step::Nothing);
    }

    #[test]
    fn a_wolf_is_attached_while_any_session_is() {
        let mut sessions = Sessions::default();
        sessions.apply(complete());
        let a = WolfId::parse("a").unwrap();
        let on = |session| Event::Attached(tunnel("wolves/a", session));
        let off = |session| Event::Detached(tunnel("wolves/a", session));
        assert_eq!(sessions.apply(on("1")), Step::Set(a.clone(), true));
        assert_eq!(sessions.apply(on("2")), Step::Set(a.clone(), true));
        assert_eq!(sessions.apply(off("1")), Step::Nothing);
        assert_eq!(sessions.apply(off("2")), Step::Set(a.clone(), false));
        assert_eq!(sessions.apply(off("2")), Step::Set(a, false));
    }
}
