//! Creating a sandbox: admit, image, directory, container, start.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use secrecy::ExposeSecret as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use wolfpack_types::sandbox_boot::INTERNAL_HOST;
use wolfpack_types::{Fault, Reason, SandboxBoot};

use super::lanes::{Entry, Place};
use super::ready::Ready;
use super::{CreateRequest, Lifecycle, Observed, Progress, blocking, now};
use crate::admission::Admitted;
use crate::engine::{Container, ContainerState, EngineError, ImageConfig, PullProgress, image};
use crate::sandbox::{ContainerSpec, GpuAccess, Parts, directory, is_loader_variable, labels};

/// What a sandbox runs that says no image.
const BASE_IMAGE: &str = "wolfpack/sandbox-base:latest";
const DESKTOP_IMAGE: &str = "wolfpack/sandbox-desktop:latest";
/// Steps of a pull that may wait to be told.
const PULL_STEPS: usize = 16;

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
        self.ready().await?;
        self.begin(request)
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
        let (reference, image) = self.image().await?;
        self.go_on()?;
        let boot_dir = self.boot_directory(&ready, &image).await?;
        let container = match self.container(&ready, &boot_dir, (&reference, &image)).await {
            // The bridge went away under us: have it made again, once.
            Err(EngineError::NotFound(words)) if words.contains("network") => {
                self.lifecycle.ask_for_setup();
                let ready = self.lifecycle.ready().await?;
                let boot_dir = self.boot_directory(&ready, &image).await?;
                self.container(&ready, &boot_dir, (&reference, &image)).await
            }
            other => other,
        };
        let id = container.map_err(|error| error.into_fault("make the container"))?;
        self.go_on()?;
        self.start(id).await
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
        if boot.as_ref() == Some(&identity.execution) {
            return Ok(Some(found));
        }
        tracing::info!(container = found.id, "an older boot makes room");
        let removed = inner.engine.remove(&found.id).await;
        removed.map_err(|error| error.into_fault("remove the older boot's container"))?;
        inner.observer.gone(&found.id);
        Ok(None)
    }

    async fn resume(&self, found: Container) -> Result<Observed, Fault> {
        match found.state {
            ContainerState::Created => {
                self.touched.store(true, Ordering::Relaxed);
                self.start(found.id).await
            }
            ContainerState::Running | ContainerState::Exited => Ok(self.observed(found)),
        }
    }

    async fn image(&self) -> Result<(String, ImageConfig), Fault> {
        let engine = &self.lifecycle.inner.engine;
        let reference = match self.request.image.as_str() {
            "" if self.request.desktop => DESKTOP_IMAGE.to_owned(),
            "" => BASE_IMAGE.to_owned(),
            asked => image::with_tag(asked),
        };
        let look = |found: Result<_, EngineError>| {
            found.map_err(|error| error.into_fault("look for the image"))
        };
        if let Some(found) = look(engine.image(&reference).await)? {
            return Ok((reference, found));
        }
        if image::is_local(&reference) {
            return Err(not_found(&reference, "make it on the wolf with scripts/setup"));
        }
        self.pull(&reference).await?;
        match look(engine.image(&reference).await)? {
            Some(found) => Ok((reference, found)),
            None => Err(not_found(
                &reference,
                "it was fetched and is gone again: the wolf's disk may be full",
            )),
        }
    }

    async fn pull(&self, reference: &str) -> Result<(), Fault> {
        let (sender, mut steps) = mpsc::channel(PULL_STEPS);
        let tell = |step: PullProgress| {
            self.report.send_modify(|progress| progress.pulling = Some(step));
        };
        tell(PullProgress { message: format!("fetching {reference}"), ..PullProgress::default() });
        let engine = self.lifecycle.inner.engine.clone();
        let begun = Instant::now();
        let pulling = engine.pull(reference, sender);
        tokio::pin!(pulling);
        let result = loop {
            tokio::select! {
                result = &mut pulling => break result,
                Some(step) = steps.recv() => tell(step),
                () = self.cancel.cancelled() => { self.go_on()?; }
            }
        };
        self.lifecycle.inner.metrics.pulled(begun.elapsed(), result.is_ok());
        match result {
            Ok(()) => Ok(()),
            Err(EngineError::NotFound(words)) => Err(not_found(reference, &words)),
            Err(EngineError::Stream(words)) => Err(pull_failed(reference, &words)),
            Err(EngineError::Refused { message, .. }) => Err(pull_failed(reference, &message)),
            Err(error @ EngineError::Deadline { .. }) => {
                Err(pull_failed(reference, "the registry was silent for too long").caused_by(error))
            }
            Err(error) => Err(error.into_fault("fetch the image")),
        }
    }

    async fn boot_directory(&self, ready: &Ready, image: &ImageConfig) -> Result<PathBuf, Fault> {
        let inner = &self.lifecycle.inner;
        let boot = self.boot(ready, image);
        let roots = (inner.trust_roots)();
        let token = self.request.token.clone();
        let (root, owner) = (inner.settings.root.clone(), ready.engine.remapped_root);
        self.touched.store(true, Ordering::Relaxed);
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
    fn boot(&self, ready: &Ready, image: &ImageConfig) -> SandboxBoot {
        let settings = &self.lifecycle.inner.settings;
        let identity = &self.admitted.identity;
        let argv = if self.request.command.is_empty() {
            image.entrypoint.iter().chain(&image.command).cloned().collect()
        } else {
            self.request.command.clone()
        };
        let has_gpu = !self.admitted.goods.holding.grant.devices.is_empty();
        let mut env: std::collections::BTreeMap<_, _> = image.env.iter().cloned().collect();
        env.extend(self.request.env.clone());
        if has_gpu {
            env.retain(|name, _| !is_loader_variable(name));
        }
        let url = |port: u16| format!("https://{INTERNAL_HOST}:{port}");
        // Inside, a remapped root's uid is counted from its base.
        let base = ready.engine.remapped_root.map_or(0, |(uid, _)| uid);
        SandboxBoot {
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
            docker: wolfpack_types::DockerMode::None,
            nested: None,
            otlp_endpoint: settings.otlp_endpoint.clone(),
        }
    }

    async fn container(
        &self,
        ready: &Ready,
        boot_dir: &std::path::Path,
        image: (&str, &ImageConfig),
    ) -> Result<String, EngineError> {
        let inner = &self.lifecycle.inner;
        let identity = &self.admitted.identity;
        let granted = &self.admitted.goods.holding.grant.devices;
        let gpus: Vec<GpuAccess> = inner
            .settings
            .gpus
            .iter()
            .filter(|gpu| granted.contains(&gpu.id))
            .map(|gpu| gpu.access.clone())
            .collect();
        let spec = ContainerSpec::new(&Parts {
            identity,
            goods: &self.admitted.goods,
            image,
            host_cpus: ready.engine.cpus,
            network: &ready.network,
            boot_dir,
            bin_dir: &inner.settings.bin_dir,
            gpus: &gpus,
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
            labels: labels::write(&self.admitted.identity, &self.admitted.goods),
            state: ContainerState::Running,
            exit_code: None,
            out_of_memory: false,
            start_time: Some(now()),
        }))
    }

    fn observed(&self, container: Container) -> Observed {
        self.lifecycle.inner.observer.note(container.clone());
        Observed { identity: self.admitted.identity.clone(), container }
    }
}

fn not_found(reference: &str, words: &str) -> Fault {
    Fault::new(Reason::ImageNotFound, format!("the image {reference} is not there: {words}"))
        .with("image", reference)
}

fn pull_failed(reference: &str, words: &str) -> Fault {
    Fault::new(
        Reason::ImagePullFailed,
        format!("the image {reference} could not be fetched: {words}"),
    )
    .with("image", reference)
}
