//! The wolf as a container of the wolf image (`--wolf image`): it lives on when
//! this process stops, and is found again by the data folder's names.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use wolfpack_registry::ca::write_private;
use wolfpack_runtime::{BoxError, HasTelemetry as _};

use super::super::config::DevConfig;
use super::super::parts::Parts;
use super::super::services::Fleet;
use super::container::{INSTANCE_LABEL, Settings};
use super::engine::{HostEngine, Ran};
use super::names::Names;
use super::record::Record;
use super::{Wolf, join_token, overcommitted_cpu, relay, seed, wait_online};

/// How often the container is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// A container that was started.
pub(in super::super) struct ImageWolf {
    engine: HostEngine,
    names: Names,
    instance: String,
    record: Record,
}

/// Whether the image is there.
pub(super) async fn check(config: &DevConfig) -> Result<(), BoxError> {
    let name = &config.arguments.wolf_image;
    match HostEngine::connect(config).await?.image(name).await? {
        Some(_) => Ok(()),
        None => Err(format!(
            "there is no image {name}: build it with scripts/build-images wolf, or use this machine's own engine with --wolf engine"
        )
        .into()),
    }
}

/// Starts the relay and the container.
pub(super) async fn start(
    config: &DevConfig,
    fleet: &Fleet,
    parts: &mut Parts,
) -> Result<ImageWolf, BoxError> {
    let engine = HostEngine::connect(config).await?;
    let names = Names::of(config);
    let (image, _) = engine
        .image(&config.arguments.wolf_image)
        .await?
        .ok_or("the wolf's image was removed meanwhile")?;
    let fleet_id = blake3::hash(&std::fs::read(&fleet.root)?).to_hex()[..16].to_owned();
    let instance = engine.volumes(&names, &fleet_id).await?;
    let bridge = engine.network(&names).await?;
    let mut record = Record::read(&config.data);
    let ports = relay::start(config, fleet, parts, bridge, &record).await?;
    record.gateway_port = Some(ports.gateway);
    record.broker_port = Some(ports.broker);
    record.save(&config.data)?;

    let join = config.data.join("wolf-join");
    DirBuilder::new().recursive(true).mode(0o700).create(&join)?;
    if record.joined.as_ref() != Some(&instance) {
        write_private(&join.join("join.token"), join_token(fleet).await?.as_bytes())?;
    }
    let settings = Settings {
        image,
        bridge,
        gateway_port: ports.gateway,
        broker_port: ports.broker,
        instance: instance.clone(),
        join,
        mount_roots: config.mount_roots.clone(),
        cpu_milli: overcommitted_cpu(),
        filter: config.telemetry().filter.clone(),
        nvidia: engine.has_nvidia().await?,
        render_nodes: Path::new("/dev/dri").is_dir(),
    };
    let ran = engine.run(&names, &settings).await?;
    if ran == Ran::Made {
        eprintln!("wolfpack dev: starting a wolf with an engine of its own ({})", names.container);
    }
    Ok(ImageWolf { engine, names, instance, record })
}

impl ImageWolf {
    /// Waits until it is online, then gives it the images of sandboxes.
    pub(super) async fn online(
        mut self,
        config: &DevConfig,
        fleet: &Fleet,
        limit: Duration,
    ) -> Result<Wolf, BoxError> {
        let label = |wolf: &wolfpack_proto::registry::v1::Wolf| {
            wolf.labels.get(INSTANCE_LABEL) == Some(&self.instance)
        };
        let name = tokio::select! {
            online = wait_online(fleet, limit, label) => match online {
                Ok(name) => name,
                Err(error) => {
                    let words = self.engine.last_words(&self.names).await;
                    return Err(format!(
                        "{error}; if this machine's firewall keeps containers from it, allow {} or use --wolf engine. The container's last words:\n{words}",
                        self.names.network
                    )
                    .into());
                }
            },
            ended = self.ended() => return Err(ended.into()),
        };
        // The token has done its work.
        let token = config.data.join("wolf-join").join("join.token");
        if let Err(error) = std::fs::remove_file(&token)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %token.display(), "cannot remove the used join token");
        }
        self.record.joined = Some(self.instance.clone());
        self.record.save(&config.data)?;
        tokio::select! {
            seeded = seed::images(&self.engine, &self.names, &config.arguments.seed) => seeded?,
            ended = self.ended() => return Err(ended.into()),
        }
        let runs = format!("{} in container {}", config.arguments.wolf_image, self.names.container);
        Ok(Wolf { name, runs, container: Some(self.names.container) })
    }

    /// Resolves when the container has ended, with its last words.
    async fn ended(&self) -> String {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.engine.ended(&self.names).await {
                Ok(None) => {}
                Ok(Some(words)) => return words,
                Err(error) => return format!("the wolf's container cannot be seen: {error}"),
            }
        }
    }
}

/// Removes the container, its volumes and its network.
pub(super) async fn remove(config: &DevConfig) {
    let names = Names::of(config);
    let removing = async { HostEngine::connect(config).await?.remove(&names).await };
    let words = match tokio::time::timeout(Duration::from_secs(60), removing).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the engine did not answer".to_owned(),
    };
    eprintln!(
        "wolfpack dev: not all of the wolf is gone ({words}); docker rm -f {}; docker volume rm {} {}; docker network rm {}",
        names.container, names.state_volume, names.docker_volume, names.network
    );
}
