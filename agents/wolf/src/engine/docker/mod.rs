//! A Docker engine behind the [`Engine`] trait, by bollard, on a unix socket.
//!
//! bollard's own timeout covers response headers only, so every call here has
//! a deadline over the whole of it. The connection is made at first use and
//! again after the engine was away, since it may come back as another version.

mod body;
mod images;
mod map;
mod networks;
mod pull;
mod registry;
mod streams;
mod volumes;
mod written;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bollard::errors::Error as BollardError;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{Mutex, mpsc};

use super::{
    Container, Engine, EngineError, EngineEvent, EngineInfo, EngineUsage, ImageConfig, Labelled,
    LogChunk, Network, PullProgress, Sibling, Written, hardening,
};
use crate::sandbox::ContainerSpec;

/// Docker 20.10: cgroup namespaces, cgroup v2, device requests.
const API_FLOOR: (usize, usize, &str) = (1, 41, "1.41 (Docker 20.10)");
/// bollard's own bound, above every deadline of ours.
const CLIENT_TIMEOUT_SECONDS: u64 = 3_600;

/// Deadlines by call. They bound a hang; a working engine needs milliseconds.
const QUICK: Duration = Duration::from_secs(10);
const CREATE: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(90);
const REMOVE: Duration = Duration::from_secs(90);
/// A container that another call is removing: how long and how often to look.
const REMOVAL_POLL: Duration = Duration::from_millis(100);

/// A Docker engine on a unix socket.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    connection: Arc<Connection>,
    accounts: Arc<Vec<crate::config::RegistryConfig>>,
}

#[derive(Debug)]
struct Connection {
    socket: PathBuf,
    client: ArcSwapOption<Docker>,
    connecting: Mutex<()>,
}

impl Connection {
    async fn client(&self) -> Result<Arc<Docker>, EngineError> {
        if let Some(client) = self.client.load_full() {
            return Ok(client);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(client) = self.client.load_full() {
            return Ok(client);
        }
        let connect = async {
            let path = self.socket.to_string_lossy();
            Docker::connect_with_unix(&path, CLIENT_TIMEOUT_SECONDS, API_DEFAULT_VERSION)?
                .negotiate_version()
                .await
        };
        let docker = within("say its version", QUICK, connect).await?;
        let version = docker.client_version();
        if (version.major_version, version.minor_version) < (API_FLOOR.0, API_FLOOR.1) {
            let have = format!("{}.{}", version.major_version, version.minor_version);
            return Err(EngineError::TooOld { have, need: API_FLOOR.2 });
        }
        let docker = Arc::new(docker);
        self.client.store(Some(docker.clone()));
        Ok(docker)
    }
}

impl DockerEngine {
    /// The engine at this socket; nothing is connected yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            connection: Arc::new(Connection {
                socket: socket.to_owned(),
                client: ArcSwapOption::empty(),
                connecting: Mutex::new(()),
            }),
            accounts: Arc::default(),
        }
    }

    /// Pulls with these accounts, each at its own registry only.
    #[must_use]
    pub fn with_registries(self, accounts: Vec<crate::config::RegistryConfig>) -> Self {
        Self { accounts: Arc::new(accounts), ..self }
    }

    /// A stream that connects first.
    fn stream<T: Send + 'static>(
        &self,
        open: impl FnOnce(&Docker) -> BoxStream<'static, Result<T, EngineError>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, EngineError>> {
        let connection = self.connection.clone();
        stream::once(async move { connection.client().await.map(|client| open(&client)) })
            .try_flatten()
            .boxed()
    }

    async fn client(&self) -> Result<Arc<Docker>, EngineError> {
        self.connection.client().await
    }

    /// Runs one call with its deadline; an engine that went away is asked for
    /// its version again next time.
    async fn call<T, F, Fut>(
        &self,
        doing: &'static str,
        deadline: Duration,
        call: F,
    ) -> Result<T, EngineError>
    where
        F: FnOnce(Arc<Docker>) -> Fut,
        Fut: Future<Output = Result<T, BollardError>>,
    {
        let client = self.client().await?;
        let result = within(doing, deadline, call(client)).await;
        if matches!(result, Err(EngineError::Unreachable(_))) {
            self.connection.client.store(None);
        }
        result
    }
}

async fn within<T>(
    doing: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<T, BollardError>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result.map_err(map::error),
        Err(_) => Err(EngineError::Deadline { doing, within: deadline }),
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let info =
            self.call("say what it is", QUICK, |client| async move { client.info().await }).await?;
        Ok(map::info(info))
    }

    async fn ensure_network(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Network, EngineError> {
        networks::ensure(self, name, labels).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        networks::remove(self, name).await
    }

    async fn networks(&self, label: &str, value: &str) -> Result<Vec<Labelled>, EngineError> {
        networks::list(self, label, value).await
    }

    async fn ensure_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        size: Option<u64>,
    ) -> Result<(), EngineError> {
        volumes::ensure(self, name, labels, size).await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        volumes::remove(self, name).await
    }

    async fn volumes(&self, label: &str, value: &str) -> Result<Vec<Labelled>, EngineError> {
        volumes::list(self, label, value).await
    }

    async fn siblings(
        &self,
        label: &str,
        value: Option<&str>,
    ) -> Result<Vec<Sibling>, EngineError> {
        let wanted = value.map_or_else(|| label.to_owned(), |value| format!("{label}={value}"));
        let filters = HashMap::from([("label", vec![wanted])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self
            .call("list containers", QUICK, |client| async move {
                client.list_containers(Some(options)).await
            })
            .await?;
        Ok(found.into_iter().filter_map(map::sibling).collect())
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageConfig>, EngineError> {
        let image = self
            .call("inspect an image", QUICK, |client| async move {
                client.inspect_image(reference).await
            })
            .await;
        match image {
            Ok(image) => Ok(Some(map::image(image))),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(
        &self,
        reference: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<(), EngineError> {
        let client = self.client().await?;
        let client = registry::client(client.as_ref(), &self.accounts, reference).await?;
        pull::run(&client, reference, progress).await
    }

    async fn create(&self, name: &str, spec: &ContainerSpec) -> Result<String, EngineError> {
        let request = body::body(spec);
        // The builder cannot make anything else; should that ever change, no
        // container comes of it.
        let broken = serde_json::to_value(&request.host_config).map_or_else(
            |error| vec![error.to_string()],
            |host_config| hardening::violations(&host_config, &spec.policy()),
        );
        if !broken.is_empty() {
            let message = EngineError::words(&broken.join("; "));
            return Err(EngineError::Refused { status: 403, message });
        }
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.call("make a container", CREATE, |client| async move {
            client.create_container(Some(options), request).await
        })
        .await
        .map(|made| made.id)
    }

    async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.call("start a container", START, |client| async move {
            client.start_container(container, None::<StartContainerOptions>).await
        })
        .await
    }

    async fn kill(&self, container: &str) -> Result<(), EngineError> {
        written::kill(self, container).await
    }

    async fn written(&self, container: &str) -> Result<Option<Written>, EngineError> {
        written::find(self, container).await
    }

    async fn usage(&self) -> Result<EngineUsage, EngineError> {
        written::usage(self).await
    }

    async fn remove(&self, container: &str) -> Result<(), EngineError> {
        let removal = async {
            loop {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                let removed = self
                    .call("remove a container", REMOVE, |client| async move {
                        client.remove_container(container, Some(options)).await
                    })
                    .await;
                match removed {
                    Ok(()) | Err(EngineError::NotFound(_)) => return Ok(()),
                    // Another removal is under way: it is gone when it is gone.
                    Err(EngineError::Conflict(_)) => tokio::time::sleep(REMOVAL_POLL).await,
                    Err(error) => return Err(error),
                }
            }
        };
        match tokio::time::timeout(REMOVE, removal).await {
            Ok(result) => result,
            Err(_) => Err(EngineError::Deadline { doing: "remove a container", within: REMOVE }),
        }
    }

    async fn list(&self, label: &str, value: &str) -> Result<Vec<Container>, EngineError> {
        let filters = HashMap::from([("label", vec![format!("{label}={value}")])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self
            .call("list containers", QUICK, |client| async move {
                client.list_containers(Some(options)).await
            })
            .await?;
        Ok(found.into_iter().filter_map(map::summary).collect())
    }

    async fn inspect(&self, container: &str) -> Result<Option<Container>, EngineError> {
        let found = self
            .call("inspect a container", QUICK, |client| async move {
                client.inspect_container(container, None::<InspectContainerOptions>).await
            })
            .await;
        match found {
            Ok(found) => map::container(found).map(Some),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn events(
        &self,
        label: &str,
        value: &str,
    ) -> BoxStream<'static, Result<EngineEvent, EngineError>> {
        let (label, value) = (label.to_owned(), value.to_owned());
        self.stream(move |client| streams::events(client, &label, &value))
    }

    fn logs(
        &self,
        container: &str,
        follow: bool,
        tail: Option<u32>,
    ) -> BoxStream<'static, Result<LogChunk, EngineError>> {
        let container = container.to_owned();
        self.stream(move |client| streams::logs(client, &container, follow, tail))
    }
}
