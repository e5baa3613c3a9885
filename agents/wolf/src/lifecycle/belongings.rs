//! What a sandbox has beside its container: with an engine of its own a
//! network and a volume; with the wolf's engine a socket and its siblings; and
//! folders of the host. All of it is made before the container and goes after
//! it, and is found again by labels and names.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use wolfpack_types::{DockerMode, Fault, SandboxId};

use super::ready::Ready;
use super::{CreateRequest, Lifecycle, blocking};
use crate::engine::{ContainerState, EngineError, Network};
use crate::mounts::{Forbidden, Held, MountRequest};
use crate::sandbox::{Goods, HostMount, Identity, labels};

/// How many siblings are removed at a time.
const AT_A_TIME: usize = 4;

/// What a container is made with.
pub(super) struct Belongings {
    /// The network it is on.
    pub(super) network: Network,
    /// The volume of its own engine.
    pub(super) volume: Option<String>,
    /// What it sees of the host, as the engine is told.
    pub(super) mounts: Vec<HostMount>,
}

impl Lifecycle {
    /// Makes or finds what a boot's container needs.
    pub(super) async fn prepare(
        &self,
        identity: &Identity,
        goods: &Goods,
        request: &CreateRequest,
        ready: &Ready,
    ) -> Result<Belongings, Fault> {
        let inner = &self.inner;
        let mounts = self.host_mounts(&identity.sandbox, &request.mounts, ready).await?;
        if request.docker != DockerMode::Nested {
            return Ok(Belongings { network: ready.network.clone(), volume: None, mounts });
        }
        let network = inner.bridges.open(identity, ready.ports).await?;
        let volume = labels::container_name(&identity.wolf, &identity.sandbox);
        let size = Some(goods.holding.disk_bytes).filter(|size| ready.quota.volumes && *size > 0);
        let made = inner.engine.ensure_volume(&volume, &labels::belongings(identity), size).await;
        made.map_err(|error| error.into_fault("make the volume of its engine"))?;
        Ok(Belongings { network, volume: Some(volume), mounts })
    }

    async fn host_mounts(
        &self,
        sandbox: &SandboxId,
        requests: &[MountRequest],
        ready: &Ready,
    ) -> Result<Vec<HostMount>, Fault> {
        let Some(first) = requests.first() else { return Ok(Vec::new()) };
        MountRequest::together(requests).map_err(Forbidden::into_fault)?;
        if !ready.stage {
            return Err(Forbidden::Unstaged(first.source.clone()).into_fault());
        }
        let settings = &self.inner.settings;
        let (allow, stage) = (settings.mounts.allow.clone(), settings.stage.clone());
        let (requests, sandbox) = (requests.to_vec(), sandbox.clone());
        let remapped = ready.engine.remapped_root;
        let found = blocking(move || {
            stage.clear(&sandbox)?;
            let mut mounts = Vec::new();
            for (at, request) in requests.into_iter().enumerate() {
                let (target, read_only) = (request.target.clone(), request.read_only);
                let one = match Held::find(request, &allow) {
                    Ok(one) => one,
                    Err(broken) => return Ok(Err(broken)),
                };
                let source = stage.bind(&sandbox, at, &one, remapped)?;
                mounts.push(HostMount { source, target, read_only });
            }
            Ok(Ok(mounts))
        });
        found.await.map_err(Fault::internal)?.map_err(Forbidden::into_fault)
    }

    /// Removes what a sandbox has beside its container, which must be gone.
    /// What is not there is removed.
    pub(super) async fn clear_belongings(
        &self,
        sandbox: &SandboxId,
        docker: DockerMode,
    ) -> Result<(), Fault> {
        match docker {
            DockerMode::None => {}
            DockerMode::Nested => self.clear_nested(sandbox).await?,
            DockerMode::Shared => self.clear_shared(sandbox).await?,
        }
        let (stage, sandbox) = (self.inner.settings.stage.clone(), sandbox.clone());
        blocking(move || stage.clear(&sandbox)).await.map_err(Fault::internal)
    }

    /// As [`Lifecycle::clear_belongings`], of a sandbox whose container, which
    /// would say what it had, is gone.
    pub(super) async fn clear_whatever(&self, sandbox: &SandboxId) -> Result<(), Fault> {
        self.clear_nested(sandbox).await?;
        self.clear_shared(sandbox).await?;
        self.clear_belongings(sandbox, DockerMode::None).await
    }

    async fn clear_nested(&self, sandbox: &SandboxId) -> Result<(), Fault> {
        let inner = &self.inner;
        let closed = inner.bridges.close(sandbox).await;
        closed.map_err(|error| error.into_fault("remove the sandbox's network"))?;
        let volume = labels::container_name(&inner.settings.wolf, sandbox);
        let removed = inner.engine.remove_volume(&volume).await;
        removed.map_err(|error| error.into_fault("remove the volume of its engine"))
    }

    async fn clear_shared(&self, sandbox: &SandboxId) -> Result<(), Fault> {
        // First the door, so that nothing is made meanwhile.
        self.inner.shared_docker.stop(sandbox).await;
        let removed = self.remove_siblings(sandbox).await;
        removed.map_err(|error| error.into_fault("remove what the sandbox started beside itself"))
    }

    async fn remove_siblings(&self, sandbox: &SandboxId) -> Result<(), EngineError> {
        let engine = &self.inner.engine;
        let (label, value) = (labels::SIBLING_OF, sandbox.as_str());
        let siblings = engine.siblings(label, Some(value)).await?;
        let ids: Vec<String> = siblings.iter().map(|sibling| sibling.id.clone()).collect();
        stream::iter(ids)
            .map(|id| {
                let engine = engine.clone();
                async move { engine.remove(&id).await }
            })
            .buffer_unordered(AT_A_TIME)
            .try_collect::<()>()
            .await?;
        if !siblings.is_empty() {
            tracing::info!(%sandbox, siblings = siblings.len(), "removed a sandbox's siblings");
        }
        for network in engine.networks(label, value).await? {
            engine.remove_network(&network.name).await?;
        }
        for volume in engine.volumes(label, value).await? {
            engine.remove_volume(&volume.name).await?;
        }
        Ok(())
    }

    /// Takes up what this process must do for sandboxes that run: their
    /// bridges, their sockets. What fails is tried again at the next look.
    pub(crate) async fn adopt_docker(&self, ready: &Ready) {
        for seen in self.observer().snapshot() {
            if seen.container.state != ContainerState::Running
                || self.inner.lanes.busy(&seen.identity.sandbox)
            {
                continue;
            }
            let docker = labels::docker(&seen.container.labels);
            let taken = self.attend(&seen.identity, docker, ready).await;
            if let Err(fault) = taken {
                let source = fault.source.as_deref().map(tracing::field::display);
                tracing::warn!(sandbox = %seen.identity.sandbox, %fault, source, "a sandbox is without its relay or its engine for now");
            }
        }
    }

    /// What this process does for a sandbox as long as it runs.
    pub(super) async fn attend(
        &self,
        identity: &Identity,
        docker: DockerMode,
        ready: &Ready,
    ) -> Result<(), Fault> {
        let inner = &self.inner;
        match docker {
            DockerMode::None => Ok(()),
            DockerMode::Nested => inner.bridges.open(identity, ready.ports).await.map(drop),
            DockerMode::Shared => {
                let (root, owner) = (&inner.settings.root, ready.engine.remapped_root);
                let served = inner.shared_docker.serve(root, &identity.sandbox, owner).await;
                served.map_err(Fault::internal)
            }
        }
    }
}
