//! A wolf agent in this process, on the machine's own engine (`--wolf engine`).

use wolfpack_runtime::{BoxError, Context, HasTelemetry as _};
use wolfpack_wolf_agent as agent;

use super::super::config::DevConfig;
use super::super::engine;
use super::super::parts::Parts;
use super::super::services::Fleet;
use super::{join_token, overcommitted_cpu};

/// Starts the agent and says the wolf's resource name.
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
        sandbox_agent_binary: config.sandbox_agent()?,
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
        // All projects of this machine's fleet are its one user's.
        mounts: agent::config::MountsConfig {
            allow: config.mount_roots.clone(),
            every_project: true,
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
