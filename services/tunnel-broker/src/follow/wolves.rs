//! Whose each wolf is.

use std::collections::HashSet;
use std::sync::Arc;

use wolfpack_proto::registry::v1::watch_wolves_response::Event;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::{WatchWolvesRequest, Wolf};
use wolfpack_rpc::RpcChannel;
use wolfpack_runtime::BoxError;
use wolfpack_types::{ProjectId, WolfId};

use crate::domain::access::Owner;
use crate::state::Broker;

/// Follows the registry's wolves until the stream ends; each time anew from a
/// snapshot, as only the owners are kept.
///
/// # Errors
/// When the registry cannot be reached or ends the stream.
pub async fn follow(registry: RpcChannel, broker: Arc<Broker>) -> Result<(), BoxError> {
    let mut client = WolfServiceClient::new(registry.without_deadline());
    let mut events =
        client.watch_wolves(WatchWolvesRequest { resume_revision: 0 }).await?.into_inner();
    let mut snapshot = Some(HashSet::new());
    while let Some(message) = events.message().await? {
        match message.event {
            Some(Event::Upserted(wolf)) => {
                let (id, owner) = owner(&wolf)?;
                if let Some(seen) = &mut snapshot {
                    seen.insert(id.clone());
                }
                broker.set_owner(&id, Some(owner));
            }
            Some(Event::Deleted(name)) => broker.set_owner(&WolfId::from_name(&name)?, None),
            Some(Event::Bookmark(mark)) => {
                if mark.snapshot_complete
                    && let Some(seen) = snapshot.take()
                {
                    broker.keep_owners(&seen);
                }
            }
            None => {}
        }
    }
    Err("the registry ended the watch of wolves".into())
}

fn owner(wolf: &Wolf) -> Result<(WolfId, Owner), BoxError> {
    let owner = match wolf.project.as_str() {
        "" => Owner::Shared,
        project => Owner::Project(ProjectId::from_name(project)?),
    };
    Ok((WolfId::from_name(&wolf.name)?, owner))
}
