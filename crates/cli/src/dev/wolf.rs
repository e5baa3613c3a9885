//! The wolf on this machine: joined as any wolf is, by a token.

use std::time::Duration;

use tonic::Request;
use wolfpack_proto::registry::v1 as pb;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_runtime::{BoxError, Context, HasTelemetry as _};
use wolfpack_types::WolfId;
use wolfpack_wolf_agent as agent;

use super::config::DevConfig;
use super::engine;
use super::parts::Parts;
use super::services::Fleet;

/// Starts the wolf agent and says the wolf's resource name.
pub(super) async fn start(
    config: &DevConfig,
    fleet: &Fleet,
    parts: &mut Parts,
) -> Result<String, BoxError> {
    let data_dir = config.data.join("wolf");
    let mut settings = agent::Config {
        server: format!("https://{}", fleet.tls_local()),
        data_dir: data_dir.clone(),
        docker_host: engine::socket(&config.arguments),
        network: Some(config.network()),
        sandbox_agent_binary: config.sandbox_agent.clone(),
        agent_endpoint: Some(fleet.agents_local().to_string()),
        relay: agent::config::RelayConfig {
            gateway_port: 0,
            broker_port: 0,
            ..agent::config::RelayConfig::default()
        },
        capacity: agent::config::CapacityConfig {
            cpu_milli: overcommitted_cpu(),
            ..Default::default()
        },
        telemetry: config.telemetry().clone(),
        ..agent::Config::default()
    };
    if agent::join::IdentityStore::open(&data_dir)?.current().is_none() {
        settings.join_token = Some(join_token(fleet).await?.into());
    }
    let context = Context::new("wolf-agent", config.telemetry())?;
    let app = agent::App::build(settings, context.clone()).await?;
    let wolf = app.identity().wolf.name();
    parts.run("wolf-agent", context, app.run());
    Ok(wolf)
}

/// CPU time to offer: four times what is there. Sandboxes on one person's
/// machine mostly wait; each keeps its own limit, and memory is not stretched.
fn overcommitted_cpu() -> Option<u64> {
    let cores = u64::try_from(std::thread::available_parallelism().ok()?.get()).ok()?;
    cores.checked_mul(4_000)
}

async fn join_token(fleet: &Fleet) -> Result<String, BoxError> {
    let mut identity = IdentityServiceClient::new(fleet.channel.clone());
    let request = pb::CreateJoinTokenRequest::default();
    Ok(identity.create_join_token(Request::new(request)).await?.into_inner().token)
}

/// Waits until the registry says that sandboxes may go there.
pub(super) async fn wait_online(
    fleet: &Fleet,
    wolf: &str,
    limit: Duration,
) -> Result<(), BoxError> {
    use pb::watch_wolves_response::Event;
    let name = WolfId::from_name(wolf)?.name();
    let mut last = "it did not register".to_owned();
    let watching = async {
        let mut wolves = WolfServiceClient::new(fleet.channel.without_deadline());
        let mut events = wolves
            .watch_wolves(Request::new(pb::WatchWolvesRequest::default()))
            .await?
            .into_inner();
        while let Some(event) = events.message().await? {
            let Some(Event::Upserted(wolf)) = event.event else { continue };
            if wolf.name != name {
                continue;
            }
            if wolf.state() == pb::WolfState::Online {
                return Ok(true);
            }
            last = format!("{} {}", wolf.state().as_str_name(), wolf.state_message);
        }
        Ok::<_, tonic::Status>(false)
    };
    match tokio::time::timeout(limit, watching).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err("the registry ended the watch of wolves".into()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(format!("the wolf is not online after {limit:?}: {last}").into()),
    }
}
