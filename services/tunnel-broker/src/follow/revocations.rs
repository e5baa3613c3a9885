//! Revoked sandboxes lose their tunnels at once.

use std::sync::Arc;

use wolfpack_proto::registry::v1::WatchRevocationsRequest;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::watch_revocations_response::Event;
use wolfpack_rpc::RpcChannel;
use wolfpack_runtime::BoxError;
use wolfpack_types::{ExecutionId, SandboxId};

use crate::state::Broker;

/// Follows the registry's revocations until the stream ends.
///
/// # Errors
/// When the registry cannot be reached or ends the stream.
pub async fn follow(registry: RpcChannel, broker: Arc<Broker>) -> Result<(), BoxError> {
    let mut client = IdentityServiceClient::new(registry.without_deadline());
    let mut events = client.watch_revocations(WatchRevocationsRequest {}).await?.into_inner();
    while let Some(message) = events.message().await? {
        if let Some(Event::Sandbox(revoked)) = message.event {
            let sandbox = SandboxId::from_name(&revoked.sandbox)?;
            let boot = match revoked.execution_id.as_str() {
                "" => None,
                boot => Some(ExecutionId::parse(boot)?),
            };
            broker.revoke(&sandbox, boot.as_ref());
        }
    }
    Err("the registry ended the watch of revocations".into())
}
