//! Creating a sandbox: admit, image, directory, container, start.

mod fetch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use wolfpack_dockerd::outer::Outer;
use wolfpack_types::sandbox_boot::{INTERNAL_HOST, NestedEngine};
use wolfpack_types::{DockerMode, Fault, PortSet, Reason, SandboxBoot};

use super::belongings::Belongings;
use super::lanes::{Entry, Place};
use super::ready::Ready;
use super::{CreateRequest, Lifecycle, Observed, Progress, blocking, now};
use crate::admission::Admitted;
use crate::engine::{Container, ContainerState, EngineError, ImageConfig};
use crate::mounts::MountRequest;
use crate::sandbox::{
    ContainerSpec, DockerAccess, GpuAccess, NVIDIA_VISIBLE, Parts, directory, docker_modes,
    is_loader_variable, labels, visible_devices,
};

impl Lifecycle {
    /// Admits a sandbox and begins to create it; the receiver says how far it
    /// is and how it ends. A repeated call for the same boot joins the first,
    /// or finds the container that it made.
    ///
    /// # Errors
    /// `RESERVATION_REFUSED` or `OWNER_FENCED`: nothing was begun.
    /// `ENGINE_FAILED` while the engine was not set up and asked what it runs.
    pub async fn create(&self, request: CreateRequest) -> Result<watch::Receiver<Progress>, Fault> {
        // Before what runs was adopted nobody knows what is free.
        let ready = self.ready().await?;
        self.offered(&request, &ready)?;
        self.begin(request)
    }

    /// Refuses what this wolf does not give; a boot that is here already has
    /// it.
    fn offered(&self, request: &CreateRequest, ready: &Ready) -> Result<(), Fault> {
        let (claim, settings) = (&request.claim, &self.inner.settings);
        let held = self.inner.admission.lock().execution(&claim.sandbox).cloned();
        if held.as_ref() == Some(&claim.execution) {
            return Ok(());
        }
        let docker = request.docker;
        if !docker_modes(&ready.engine, &settings.docker).contains(&docker) {
            self.inner.metrics.refused("docker_mode");
            let why = match docker {
                DockerMode::Nested => {
                    "its engine does not remap users: start it with userns-remap, or use the wolf image"
                }
                DockerMode::None | DockerMode::Shared => {
                    "its operator does not share the engine: set docker.shared"
                }
            };
            return Err(Fault::new(
                Reason::DockerModeUnsupported,
                format!("the wolf gives no docker {docker}: {why}"),
            )
            .with("docker", docker.as_str()));
        }
        MountRequest::together(&request.mounts)
            .and_then(|()| {
                request
                    .mounts
                    .iter()
                    .try_for_each(|mount| mount.below(&settings.mounts.allow).map(drop))
            })
            .map_err(|broken| {
                self.inner.metrics.refused("mount");
                broken.into_fault()
            })
    }

    fn begin(&self, request: CreateRequest) -> Result<watch::Receiver<Progress>, Fault> {
        let inner = &self.inner;
        let claim = &request.claim;
        let mut admitted = None;
        let entry = inner.lanes.enter_create(
            &claim.sandbox,
            &claim.execution,
            &inner.supervisor.token(),
            |under_way| {
                let mut admission = inner.admission.lock();
                let decided = if under_way {
                    admission.fence(&claim.sandbox, claim.owner_epoch)
                } else {
                    admission.admit(claim, now()).map(|decision| admitted = Some(decision))
                };
                decided.map_err(|refusal| {
                    inner.metrics.refused(refusal.kind());
                    tracing::warn!(sandbox = %claim.sandbox, %refusal, "refused a sandbox");
                    refusal.into_fault()
                })
            },
        )?;
        match (entry, admitted) {
            (Entry::New { place, cancel, report, progress }, Some(admitted)) => {
                let lifecycle = self.clone();
                let touched = AtomicBool::new(false);
                let work = Creation { lifecycle, request, admitted, cancel, report, touched };
                let span = tracing::info_span!(
                    "create_container",
                    sandbox = %work.admitted.identity.sandbox,
                    otel.kind = "internal"
                );
                inner.supervisor.spawn("create-sandbox", work.run(place).instrument(span));
                Ok(progress)
            }
            (Entry::Joined(progress) | Entry::New { progress, .. }, _) => Ok(progress),
        }
    }
}

/// One create, once it is admitted.
struct Creation {
    lifecycle: Lifecycle,
    request: CreateRequest,
    admitted: Admitted,
    cancel: CancellationToken,
    report: watch::Sender<Progress>,
    /// Whether directory or container are this call's doing: only then does
    /// its failure take them away. A boot that runs is not ended because the
    /// engine did not answer a question about it.
    touched: AtomicBool,
}

impl Creation {
    async fn run(self, place: Place) {
        let turn = place.turn().await;
        let begun = Instant::now();
        let outcome = self.steps().await;
        let identity = &self.admitted.identity;
        let inner = &self.lifecycle.inner;
        match &outcome {
            Ok(observed) => {
                // An event of an older container may have freed the goods.
                let mut admission = inner.admission.lock();
                if admission.execution(&identity.sandbox).is_none() {
                    admission.adopt(identity.clone(), self.admitted.goods.clone());
                }
                drop(admission);
                inner.metrics.created(begun.elapsed());
                tracing::info!(container = observed.container.id, took = ?begun.elapsed(), "created a sandbox");
            }
            Err(fault) => {
                self.undo().await;
                inner.metrics.create_failed(fault.reason.as_str());
                let source = fault.source.as_deref().map(tracing::field::display);
                tracing::warn!(%fault, source, "a sandbox could not be created");
            }
        }
        self.report.send_modify(|progress| progress.outcome = Some(outcome));
        drop(turn);
        drop(place);
    }

    /// Takes away what a failed create left. What cannot be removed is found
    /// by its labels later; the goods stay held as long as it is there.
    async fn undo(&self) {
        let inner = &self.lifecycle.inner;
        let identity = &self.admitted.identity;
        if self.touched.load(Ordering::Relaxed) {
            let name = labels::container_name(&identity.wolf, &identity.sandbox);
            if let Err(error) = inner.engine.remove(&name).await {
                tracing::warn!(sandbox = %identity.sandbox, %error, "what a failed create left stays for now");
                return;
            }
            let cleared =
                self.lifecycle.clear_belongings(&identity.sandbox, self.request.docker).await;
            if let Err(fault) = cleared {
                // The next look around finds it.
                let source = fault.source.as_deref().map(tracing::field::display);
                tracing::warn!(sandbox = %identity.sandbox, %fault, source, "what a failed create left stays for now");
            }
            let (root, sandbox) = (inner.settings.root.clone(), identity.sandbox.clone());
            if let Err(error) = blocking(move || directory::remove(&root, &sandbox)).await {
                tracing::warn!(sandbox = %identity.sandbox, %error, "a directory cannot be removed");
            }
        } else if self.admitted.again {
            return;
        }
        inner.admission.lock().release(&identity.sandbox, Some(&identity.execution));
    }

    async fn steps(&self) -> Result<Observed, Fault> {
        self.go_on()?;
        self.keep_epoch().await?;
        self.report.send_modify(|progress| progress.admitted = true);
        let ready = self.lifecycle.ready().await?;
        if let Some(found) = self.existing().await? {
            return self.resume(found).await;
        }
        let reference = self.reference();
        // Until a container stands on it.
        let images = self.lifecycle.inner.images.get();
        let _in_use = images.map(|images| images.hold(&reference));
        let image = self.image(&reference).await?;
        self.go_on()?;
        let mut made = self.make(&ready, (&reference, &image)).await?;
        // The bridge went away under us: have it made again, once.
        if matches!(&made, Err(EngineError::NotFound(words)) if words.contains("network")) {
            self.lifecycle.ask_for_setup();
            let ready = self.lifecycle.ready().await?;
            made = self.make(&ready, (&reference, &image)).await?;
        }
        let id = made.map_err(|error| error.into_fault("make the container"))?;
        if let Some(images) = images {
            images.used(&image.id);
        }
        self.go_on()?;
        self.start(id).await
    }

    /// Makes the container and all it needs.
    async fn make(
        &self,
        ready: &Ready,
        image: (&str, &ImageConfig),
    ) -> Result<Result<String, EngineError>, Fault> {
        let lifecycle = &self.lifecycle;
        let (identity, goods) = (&self.admitted.identity, &self.admitted.goods);
        let gpus = self.gpus().await?;
        self.touched.store(true, Ordering::Relaxed);
        let belongings = lifecycle.prepare(identity, goods, &self.request, ready).await?;
        let boot_dir = self.boot_directory(ready, image.1, &gpus).await?;
        if self.request.docker == DockerMode::Shared {
            lifecycle.attend(identity, self.request.docker, ready).await?;
        }
        Ok(self.container(ready, &belongings, &boot_dir, image, &gpus).await)
    }

    /// How the container gets at its own devices and the one that encodes for
    /// it, as they are at this moment.
    async fn gpus(&self) -> Result<Vec<GpuAccess>, Fault> {
        let grant = &self.admitted.goods.holding.grant;
        let mut ids = grant.devices.clone();
        ids.extend(grant.borrows().map(|lent| lent.device.clone()));
        self.lifecycle.inner.settings.gpus.access(&ids).await
    }

    /// Ends here when a removal or another boot came.
    fn go_on(&self) -> Result<(), Fault> {
        if self.cancel.is_cancelled() {
            return Err(Fault::new(
                Reason::Cancelled,
                "the sandbox was removed, or another boot of it began, while it was created",
            ));
        }
        Ok(())
    }

    /// The scheduler's epoch must be on disk before anything comes of it.
    async fn keep_epoch(&self) -> Result<(), Fault> {
        let inner = &self.lifecycle.inner;
        let mut on_disk = inner.epoch_on_disk.lock().await;
        let epoch = self.request.claim.reservation.epoch;
        if epoch > *on_disk {
            let file = inner.epoch.clone();
            blocking(move || file.write(epoch)).await.map_err(Fault::internal)?;
            *on_disk = epoch;
        }
        Ok(())
    }

    /// This boot's container, when an earlier call made it. The container of
    /// an older boot makes room.
    async fn existing(&self) -> Result<Option<Container>, Fault> {
        let inner = &self.lifecycle.inner;
        let identity = &self.admitted.identity;
        let name = labels::container_name(&identity.wolf, &identity.sandbox);
        let found = inner.engine.inspect(&name).await;
        let found = found.map_err(|error| error.into_fault("look for the container"))?;
        let Some(found) = found else { return Ok(None) };
        let boot = labels::read(&found.labels).map(|(found, _)| found.execution);
        // What the engine would look up for one that was not started may have
        // been replaced since.
        let stale = found.state == ContainerState::Created && !self.request.mounts.is_empty();
        if boot.as_ref() == Some(&identity.execution) && !stale {
            return Ok(Some(found));
        }
        tracing::info!(container = found.id, "an older boot makes room");
        let removed = inner.engine.remove(&found.id).await;
        removed.map_err(|error| error.into_fault("remove the older boot's container"))?;
        inner.observer.gone(&found.id);
        let had = labels::docker(&found.labels);
        self.lifecycle.clear_belongings(&identity.sandbox, had).await?;
        Ok(None)
    }

    async fn resume(&self, found: Container) -> Result<Observed, Fault> {
        match found.state {
            ContainerState::Created => {
                self.touched.store(true, Ordering::Relaxed);
                let ready = self.lifecycle.ready().await?;
                let (identity, docker) = (&self.admitted.identity, self.request.docker);
                self.lifecycle.attend(identity, docker, &ready).await?;
                self.start(found.id).await
            }
            ContainerState::Running | ContainerState::Exited => Ok(self.observed(found)),
        }
    }

    async fn boot_directory(
        &self,
        ready: &Ready,
        image: &ImageConfig,
        gpus: &[GpuAccess],
    ) -> Result<PathBuf, Fault> {
        let inner = &self.lifecycle.inner;
        let boot = self.boot(ready, image, gpus).await?;
        let roots = (inner.trust_roots)();
        let token = self.request.token.clone();
        let (root, owner) = (inner.settings.root.clone(), ready.engine.remapped_root);
        let written = blocking(move || {
            let token = token.expose_secret();
            directory::write(
                &root,
                &directory::BootFiles { boot: &boot, token, trust_roots: &roots, owner },
            )
        });
        written.await.map_err(Fault::internal)
    }

    /// What the sandbox's agent is told: the request over the image.
    async fn boot(
        &self,
        ready: &Ready,
        image: &ImageConfig,
        gpus: &[GpuAccess],
    ) -> Result<SandboxBoot, Fault> {
        let settings = &self.lifecycle.inner.settings;
        let identity = &self.admitted.identity;
        let argv = if self.request.command.is_empty() {
            image.entrypoint.iter().chain(&image.command).cloned().collect()
        } else {
            self.request.command.clone()
        };
        let mut env: std::collections::BTreeMap<_, _> = image.env.iter().cloned().collect();
        env.extend(self.request.env.clone());
        if !gpus.is_empty() {
            env.retain(|name, _| !is_loader_variable(name));
        }
        // Not what the image says: the devices that it has, and no others.
        env.retain(|name, _| name != NVIDIA_VISIBLE);
        env.extend(visible_devices(gpus));
        let url = |port: u16| format!("https://{INTERNAL_HOST}:{port}");
        // Inside, a remapped root's uid is counted from its base.
        let base = ready.engine.remapped_root.map_or(0, |(uid, _)| uid);
        let docker = self.request.docker;
        let nested = match docker {
            DockerMode::Nested => Some(self.nested(ready).await?),
            DockerMode::None | DockerMode::Shared => None,
        };
        Ok(SandboxBoot {
            sandbox: identity.sandbox.clone(),
            project: identity.project.clone(),
            execution: identity.execution.clone(),
            argv,
            user: image.user.clone(),
            env,
            cwd: if image.working_dir.is_empty() { "/".into() } else { image.working_dir.clone() },
            desktop: self.request.desktop,
            broker: url(ready.ports.broker),
            gateway: url(ready.ports.gateway),
            socket_uid: settings.uid.saturating_sub(base),
            docker,
            nested,
            otlp_endpoint: settings.otlp_endpoint.clone(),
            // Whoever is inside one that shares the engine has the wolf, and a port is
            // a way in that the broker gives to every developer.
            tcp_ports: match self.request.docker {
                DockerMode::Shared => PortSet::default(),
                DockerMode::None | DockerMode::Nested => settings.tcp_ports.clone(),
            },
        })
    }

    /// What the sandbox's own engine must keep to. Its networks must leave
    /// room for all that is routed around the wolf.
    async fn nested(&self, ready: &Ready) -> Result<NestedEngine, Fault> {
        let outer = Outer::read(Path::new("/")).await.map_err(Fault::internal)?;
        let avoid = outer.routes.into_iter().chain(outer.bridges).collect();
        let disk = self.admitted.goods.holding.disk_bytes;
        Ok(NestedEngine {
            depth: self.lifecycle.inner.settings.docker.depth,
            disk_bytes: Some(disk).filter(|bytes| *bytes > 0 && !ready.quota.volumes),
            avoid,
        })
    }

    async fn container(
        &self,
        ready: &Ready,
        belongings: &Belongings,
        boot_dir: &Path,
        image: (&str, &ImageConfig),
        gpus: &[GpuAccess],
    ) -> Result<String, EngineError> {
        let inner = &self.lifecycle.inner;
        let identity = &self.admitted.identity;
        let spec = ContainerSpec::new(&Parts {
            identity,
            goods: &self.admitted.goods,
            image,
            host_cpus: ready.engine.cpus,
            network: &belongings.network,
            boot_dir,
            bin_dir: &inner.settings.bin_dir,
            gpus,
            docker: match (&belongings.volume, self.request.docker) {
                (Some(volume), _) => DockerAccess::Nested { volume },
                (None, DockerMode::Shared) => DockerAccess::Shared,
                (None, _) => DockerAccess::None,
            },
            mounts: &belongings.mounts,
            disk_quota: ready.quota.containers,
        });
        let name = labels::container_name(&identity.wolf, &identity.sandbox);
        match inner.engine.create(&name, &spec).await {
            // It was not there a moment ago: a call that outlived its deadline
            // made it, and nothing runs in it.
            Err(EngineError::Conflict(_)) => {
                inner.engine.remove(&name).await?;
                inner.engine.create(&name, &spec).await
            }
            made => made,
        }
    }

    async fn start(&self, id: String) -> Result<Observed, Fault> {
        let engine = &self.lifecycle.inner.engine;
        engine.start(&id).await.map_err(|error| error.into_fault("start the container"))?;
        Ok(self.observed(Container {
            id,
            labels: labels::write(
                &self.admitted.identity,
                &self.admitted.goods,
                self.request.docker,
            ),
            state: ContainerState::Running,
            exit_code: None,
            out_of_memory: false,
            start_time: Some(now()),
            finish_time: None,
        }))
    }

    fn observed(&self, container: Container) -> Observed {
        self.lifecycle.inner.observer.note(container.clone());
        Observed {
            identity: self.admitted.identity.clone(),
            container,
            message: String::new(),
            reason: None,
        }
    }
}
