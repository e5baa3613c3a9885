//! What the wolf's container asks of the machine's engine.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerStateStatusEnum, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::StreamExt as _;
use wolfpack_runtime::BoxError;

use super::super::config::DevConfig;
use super::super::engine::socket;
use super::container::{INSTANCE_LABEL, MAKING_LABEL, Settings};
use super::names::{DATA_LABEL, Names};

/// The most time for the headers of an answer, in seconds: stopping a wolf
/// takes its own time.
const ANSWER_SECONDS: u64 = 120;
/// The label of a volume that says whose fleet its wolf joined.
const FLEET_LABEL: &str = "dev.wolfpack.fleet";
/// How long the wolf may take to stop before it is killed, in seconds.
const STOP_SECONDS: i32 = 60;
const LAST_WORDS: &str = "20";

/// The machine's engine.
#[derive(Debug, Clone)]
pub(super) struct HostEngine {
    pub(super) docker: Docker,
}

/// What became of the container at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ran {
    /// It ran all the time.
    Kept,
    /// It was there, and was started.
    Started,
    /// It was made.
    Made,
}

impl HostEngine {
    pub(super) async fn connect(config: &DevConfig) -> Result<Self, BoxError> {
        let socket = socket(&config.arguments);
        let path = socket.trim_start_matches("unix://");
        let docker = Docker::connect_with_unix(path, ANSWER_SECONDS, API_DEFAULT_VERSION)?
            .negotiate_version()
            .await?;
        Ok(Self { docker })
    }

    /// The id and the size of an image, when it is there.
    pub(super) async fn image(&self, name: &str) -> Result<Option<(String, u64)>, BoxError> {
        Ok(found(self.docker.inspect_image(name).await)?.map(|image| {
            let size = image.size.and_then(|size| u64::try_from(size).ok());
            (image.id.unwrap_or_default(), size.unwrap_or_default())
        }))
    }

    /// Whether the engine hands out NVIDIA's GPUs.
    pub(super) async fn has_nvidia(&self) -> Result<bool, BoxError> {
        let info = self.docker.info().await?;
        Ok(info.runtimes.is_some_and(|runtimes| runtimes.contains_key("nvidia")))
    }

    /// Makes the network where it is missing, and says its gateway's address.
    pub(super) async fn network(&self, names: &Names) -> Result<Ipv4Addr, BoxError> {
        let find = || self.docker.inspect_network(&names.network, None::<InspectNetworkOptions>);
        let network = match found(find().await)? {
            Some(network) => network,
            None => {
                let request = NetworkCreateRequest {
                    name: names.network.clone(),
                    driver: Some("bridge".to_owned()),
                    labels: Some(HashMap::from([(DATA_LABEL.to_owned(), names.data.clone())])),
                    ..NetworkCreateRequest::default()
                };
                self.docker.create_network(request).await?;
                find().await?
            }
        };
        network
            .ipam
            .and_then(|ipam| ipam.config)
            .unwrap_or_default()
            .into_iter()
            .find_map(|config| config.gateway.and_then(|gateway| gateway.parse().ok()))
            .ok_or_else(|| format!("the network {} has no gateway address", names.network).into())
    }

    /// Makes the volumes where they are missing or of another fleet, and says
    /// the instance of the one with the agent's state.
    pub(super) async fn volumes(&self, names: &Names, fleet: &str) -> Result<String, BoxError> {
        if let Some(volume) = found(self.docker.inspect_volume(&names.state_volume).await)?
            && volume.labels.get(FLEET_LABEL).is_some_and(|whose| whose == fleet)
            && let Some(instance) = volume.labels.get(INSTANCE_LABEL)
        {
            return Ok(instance.clone());
        }
        // A wolf of a fleet that is gone: it could not join this one with what it knows.
        self.remove_container(names).await?;
        self.remove_volumes(names).await?;
        let instance = uuid::Uuid::new_v4().simple().to_string();
        for name in [&names.docker_volume, &names.state_volume] {
            let labels = [
                (DATA_LABEL, names.data.as_str()),
                (FLEET_LABEL, fleet),
                (INSTANCE_LABEL, instance.as_str()),
            ];
            let request = VolumeCreateRequest {
                name: Some(name.clone()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                ..VolumeCreateRequest::default()
            };
            self.docker.create_volume(request).await?;
        }
        Ok(instance)
    }

    /// Makes the container run, anew where it is missing or was made of
    /// something else.
    pub(super) async fn run(&self, names: &Names, settings: &Settings) -> Result<Ran, BoxError> {
        let making = settings.making();
        let container =
            self.docker.inspect_container(&names.container, None::<InspectContainerOptions>).await;
        if let Some(container) = found(container)? {
            let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
            if labels.get(MAKING_LABEL) == Some(&making) {
                let running = container.state.and_then(|state| state.running).unwrap_or_default();
                if running {
                    // The agent looks for its broker with a back-off; a fresh one attaches at once.
                    self.signal(names, "SIGHUP").await?;
                    return Ok(Ran::Kept);
                }
                self.docker
                    .start_container(&names.container, None::<StartContainerOptions>)
                    .await?;
                return Ok(Ran::Started);
            }
            eprintln!(
                "wolfpack dev: the wolf's image or settings changed; making its container anew (sandboxes in it end)"
            );
            self.remove_container(names).await?;
        }
        let options = CreateContainerOptionsBuilder::new().name(&names.container).build();
        self.docker.create_container(Some(options), settings.body(names)).await?;
        self.docker.start_container(&names.container, None::<StartContainerOptions>).await?;
        Ok(Ran::Made)
    }

    async fn signal(&self, names: &Names, signal: &str) -> Result<(), BoxError> {
        let options =
            bollard::query_parameters::KillContainerOptionsBuilder::new().signal(signal).build();
        Ok(self.docker.kill_container(&names.container, Some(options)).await?)
    }

    /// How the container ended, with its last words; `None` while it runs.
    pub(super) async fn ended(&self, names: &Names) -> Result<Option<String>, BoxError> {
        let state = self
            .docker
            .inspect_container(&names.container, None::<InspectContainerOptions>)
            .await?
            .state
            .unwrap_or_default();
        if !matches!(
            state.status,
            Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD)
        ) {
            return Ok(None);
        }
        let code = state.exit_code.unwrap_or_default();
        let words = self.last_words(names).await;
        Ok(Some(format!("the wolf's container ended with {code}; its last words:\n{words}")))
    }

    /// The end of what the container wrote.
    pub(super) async fn last_words(&self, names: &Names) -> String {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(LAST_WORDS).build();
        let mut logs = self.docker.logs(&names.container, Some(options));
        let mut words = String::new();
        let read = async {
            while let Some(Ok(line)) = logs.next().await {
                words.push_str(&line.to_string());
            }
        };
        // What was read until then is told all the same.
        let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
        words
    }

    /// Stops and removes the container; that there is none is as good.
    pub(super) async fn remove_container(&self, names: &Names) -> Result<(), BoxError> {
        let stop = StopContainerOptionsBuilder::new().t(STOP_SECONDS).build();
        found(self.docker.stop_container(&names.container, Some(stop)).await)?;
        let remove = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        found(self.docker.remove_container(&names.container, Some(remove)).await)?;
        Ok(())
    }

    async fn remove_volumes(&self, names: &Names) -> Result<(), BoxError> {
        for volume in [&names.state_volume, &names.docker_volume] {
            found(self.docker.remove_volume(volume, None::<RemoveVolumeOptions>).await)?;
        }
        Ok(())
    }

    /// Removes everything of the wolf. Its sandboxes go with its engine, so the
    /// container need not stop in order.
    pub(super) async fn remove(&self, names: &Names) -> Result<(), BoxError> {
        let remove = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        found(self.docker.remove_container(&names.container, Some(remove)).await)?;
        self.remove_volumes(names).await?;
        found(self.docker.remove_network(&names.network).await)?;
        Ok(())
    }
}

/// What is not there is no failure; nor is what has stopped already.
fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::DockerResponseServerError { status_code: 304 | 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
