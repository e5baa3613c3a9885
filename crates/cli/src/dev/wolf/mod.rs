//! The wolf on this machine: joined as any wolf is, by a token. It is a
//! container of the wolf image with an engine of its own, or an agent in this
//! process on the machine's engine.

mod agent;
mod container;
mod engine;
mod image;
mod names;
mod record;
mod relay;
mod seed;

use std::time::Duration;

use tonic::Request;
use wolfpack_proto::registry::v1 as pb;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_runtime::BoxError;

use super::arguments::WolfKind;
use super::config::DevConfig;
use super::parts::Parts;
use super::services::Fleet;
use image::ImageWolf;

/// The wolf that runs.
pub(super) struct Wolf {
    /// Its resource name.
    pub(super) name: String,
    /// What it runs in, for people.
    pub(super) runs: String,
    /// Its container, when it is one.
    pub(super) container: Option<String>,
}

/// A wolf that was started and has not been heard of yet.
pub(super) enum Starting {
    Agent { name: String, engine: String },
    Image(Box<ImageWolf>),
}

/// Refuses at once what cannot work, before anything is started.
pub(super) async fn check(config: &DevConfig) -> Result<(), BoxError> {
    match config.arguments.wolf {
        WolfKind::Engine => config.sandbox_agent().map(drop),
        WolfKind::Image => image::check(config).await,
    }
}

/// Starts the wolf; its parts are among the parts.
pub(super) async fn start(
    config: &DevConfig,
    fleet: &Fleet,
    parts: &mut Parts,
) -> Result<Starting, BoxError> {
    Ok(match config.arguments.wolf {
        WolfKind::Engine => Starting::Agent {
            name: agent::start(config, fleet, parts).await?,
            engine: super::engine::socket(&config.arguments),
        },
        WolfKind::Image => Starting::Image(Box::new(image::start(config, fleet, parts).await?)),
    })
}

impl Starting {
    /// Waits until the registry says that sandboxes may go there, at most
    /// `limit`, and that the images of sandboxes are there.
    pub(super) async fn online(
        self,
        config: &DevConfig,
        fleet: &Fleet,
        limit: Duration,
    ) -> Result<Wolf, BoxError> {
        match self {
            Self::Agent { name, engine } => {
                wait_online(fleet, limit, |wolf| wolf.name == name).await?;
                Ok(Wolf { name, runs: format!("on the engine at {engine}"), container: None })
            }
            Self::Image(wolf) => wolf.online(config, fleet, limit).await,
        }
    }
}

/// What an ephemeral fleet takes away at its end.
pub(super) async fn remove(config: &DevConfig) {
    match config.arguments.wolf {
        WolfKind::Engine => super::engine::remove_network(config).await,
        WolfKind::Image => image::remove(config).await,
    }
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

/// Waits for a wolf that is online and ours; says its resource name.
async fn wait_online(
    fleet: &Fleet,
    limit: Duration,
    ours: impl Fn(&pb::Wolf) -> bool,
) -> Result<String, BoxError> {
    use pb::watch_wolves_response::Event;
    let mut last = "it did not register".to_owned();
    let watching = async {
        let mut wolves = WolfServiceClient::new(fleet.channel.without_deadline());
        let mut events = wolves
            .watch_wolves(Request::new(pb::WatchWolvesRequest::default()))
            .await?
            .into_inner();
        while let Some(event) = events.message().await? {
            let Some(Event::Upserted(wolf)) = event.event else { continue };
            if !ours(&wolf) {
                continue;
            }
            if wolf.state() == pb::WolfState::Online {
                return Ok(Some(wolf.name));
            }
            last = format!("{} {}", wolf.state().as_str_name(), wolf.state_message);
        }
        Ok::<_, tonic::Status>(None)
    };
    match tokio::time::timeout(limit, watching).await {
        Ok(Ok(Some(name))) => Ok(name),
        Ok(Ok(None)) => Err("the registry ended the watch of wolves".into()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(format!("the wolf is not online after {limit:?}: {last}").into()),
    }
}
