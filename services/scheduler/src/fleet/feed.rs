//! Keeps the writer told, by the registry's watch.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wolfpack_proto::registry::v1::watch_wolves_response::Event;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::{WatchWolvesRequest, Wolf};
use wolfpack_rpc::client::RpcChannel;
use wolfpack_rpc::error::from_status;
use wolfpack_runtime::BoxError;
use wolfpack_types::{Reason, WolfId};

use super::{FleetHealth, facts};
use crate::writer::{Command, FleetChange};

/// The watch. A run ends with an error when the stream ends, and is started
/// again; it then goes on after the last revision it has passed on.
#[derive(Clone)]
pub struct Feed {
    registry: RpcChannel,
    writer: mpsc::Sender<Command>,
    health: FleetHealth,
    /// Everything up to here was passed on; zero for nothing.
    revision: Arc<Mutex<i64>>,
    stop: CancellationToken,
}

/// Marks the watch as broken, however a run ends.
struct Broken<'a>(&'a FleetHealth);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        self.0.broken();
    }
}

impl Feed {
    /// A feed from the registry to the writer.
    #[must_use]
    pub fn new(
        registry: RpcChannel,
        writer: mpsc::Sender<Command>,
        health: FleetHealth,
        stop: CancellationToken,
    ) -> Self {
        Self { registry, writer, health, revision: Arc::default(), stop }
    }

    /// One watch, until it breaks.
    ///
    /// # Errors
    /// When it breaks.
    pub async fn run(self) -> Result<(), BoxError> {
        let stop = self.stop.clone();
        tokio::select! {
            watched = self.watch() => watched,
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn watch(&self) -> Result<(), BoxError> {
        let _broken = Broken(&self.health);
        let resume_revision = *self.revision.lock();
        let mut client = WolfServiceClient::new(self.registry.without_deadline());
        let request = WatchWolvesRequest { resume_revision };
        let watched = client.watch_wolves(request).await;
        let mut events = watched.map_err(|status| self.note(&status))?.into_inner();
        // A watch from zero begins with every wolf there is, which replaces
        // the fleet in one step: until then it may be torn.
        let mut snapshot = (resume_revision == 0).then(BTreeMap::new);
        if snapshot.is_none() {
            self.health.connected();
        }
        while let Some(event) = events.message().await.map_err(|status| self.note(&status))? {
            let revision = event.revision;
            match (event.event, &mut snapshot) {
                (Some(Event::Upserted(wolf)), Some(fleet)) => {
                    fleet.insert(wolf.name.clone(), wolf);
                }
                (Some(Event::Deleted(name)), Some(fleet)) => {
                    fleet.remove(&name);
                }
                (Some(Event::Bookmark(bookmark)), Some(_)) if !bookmark.snapshot_complete => {}
                (Some(Event::Bookmark(_)), Some(fleet)) => {
                    let fleet = std::mem::take(fleet).into_values().filter_map(read).collect();
                    snapshot = None;
                    self.tell(FleetChange::Replaced(fleet)).await?;
                    self.health.connected();
                }
                (Some(Event::Upserted(wolf)), None) => {
                    if let Some(facts) = read(wolf) {
                        self.tell(FleetChange::Upserted(Box::new(facts))).await?;
                    }
                }
                (Some(Event::Deleted(name)), None) => match WolfId::from_name(&name) {
                    Ok(wolf) => self.tell(FleetChange::Removed(wolf)).await?,
                    Err(error) => tracing::error!(%error, "the registry named a wolf oddly"),
                },
                (Some(Event::Bookmark(_)) | None, None) | (None, Some(_)) => {}
            }
            if snapshot.is_none() {
                *self.revision.lock() = revision;
            }
        }
        Err("the registry ended the watch".into())
    }

    async fn tell(&self, change: FleetChange) -> Result<(), BoxError> {
        self.writer.send(Command::Fleet(change)).await.map_err(|_| "the writer has ended".into())
    }

    fn note(&self, status: &Status) -> BoxError {
        let fault = from_status(status);
        if fault.reason == Reason::RevisionCompacted {
            *self.revision.lock() = 0;
        }
        fault.into()
    }
}

/// A wolf that cannot be read does not exist for placement.
fn read(wolf: Wolf) -> Option<crate::domain::WolfFacts> {
    let name = wolf.name.clone();
    match facts(wolf) {
        Ok(facts) => Some(facts),
        Err(error) => {
            tracing::error!(wolf = name, %error, "the registry told a wolf that cannot be read");
            None
        }
    }
}
