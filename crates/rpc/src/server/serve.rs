//! Runs a server until its supervisor says stop, then drains it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::{BoxError, Context};

use super::accept::{Acceptor, Source};
use super::builder::ServerBuilder;
use super::connection::Connection;
use super::dispatch::Dispatch;
use super::drain::Drain;
use super::health::HealthHandle;
use super::ingress::Ingress;
use super::layers::rate_limit::Limiter;
use super::metrics::Metrics;
use super::profile::Profile;
use super::reflection::ReflectionError;
use super::reload;
use super::shared::Shared;
use super::shares::Shares;
use super::stack::assemble;
use crate::auth::Authority;
use crate::policy::{PolicyRow, Table};

/// How often unused rate-limit buckets are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// A gRPC server with all its listeners.
pub struct Server {
    pub(super) context: Context,
    pub(super) table: Arc<Table>,
    pub(super) authority: Arc<dyn Authority>,
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) ports: Vec<(Source, Profile)>,
    pub(super) done: CancellationToken,
    pub(super) ingress: Option<Arc<dyn Ingress>>,
    pub(super) health: HealthHandle,
    pub(super) fault: Option<ReflectionError>,
}

impl Server {
    /// Begins a server. `policy` has one row per rpc that it serves; what has
    /// none is denied.
    #[must_use]
    pub fn builder(
        context: &Context,
        policy: &'static [PolicyRow],
        authority: Arc<dyn Authority>,
    ) -> ServerBuilder {
        ServerBuilder::new(context, policy, authority)
    }

    /// Says whether the server serves, and lets the service hold it back.
    #[must_use]
    pub fn health(&self) -> HealthHandle {
        self.health.clone()
    }

    /// Serves until the supervisor's token is cancelled (or every incoming
    /// stream has ended), then: NOT_SERVING, no new connections, GOAWAY,
    /// streams end with `SERVER_STOPPING`, and what is left at the profile's
    /// bound is dropped. Dropping this future stops accepting; connections end
    /// with the supervisor.
    ///
    /// # Errors
    /// When a socket cannot be used or the descriptor set is damaged.
    pub async fn serve(self) -> Result<(), BoxError> {
        if let Some(fault) = self.fault {
            return Err(fault.into());
        }
        let supervisor = self.context.supervisor.clone();
        let stop = supervisor.token();
        let metrics = Metrics::new(&self.context.telemetry.meter());
        let mut running = Vec::new();
        let mut drains = Vec::new();
        for (source, profile) in self.ports {
            if let Source::Tcp(listener) = &source
                && let Some(tls) = &listener.tls
            {
                let protocols: &[&[u8]] =
                    if profile.http1 { &[b"h2", b"http/1.1"] } else { &[b"h2"] };
                tls.speak(protocols);
                reload::spawn(&supervisor, tls.clone(), metrics.clone());
            }
            let drain = Drain::default();
            let shared = Arc::new(Shared {
                limiter: profile.rate_limit.map(Limiter::new),
                profile: profile.clone(),
                metrics: metrics.clone(),
                authority: Arc::clone(&self.authority),
                stop_streams: drain.stop_streams.clone(),
                tasks: drain.tasks.clone(),
            });
            sweep(&self.context, &shared);
            let dispatch = Arc::clone(&self.dispatch);
            let connection = Arc::new(Connection {
                table: Arc::clone(&self.table),
                ingress: self.ingress.clone(),
                has_fallback: dispatch.fallback.is_some(),
                stack: assemble(&shared, Arc::new(Arc::clone(&dispatch))),
                served: Arc::new(move |path| dispatch.serves(path)),
                drain: drain.clone(),
                dispatch: self.context.telemetry.dispatch(),
                profile: profile.clone(),
            });
            let acceptor = Arc::new(Acceptor {
                places: Arc::new(Semaphore::new(profile.max_connections)),
                shares: profile.connections_per_address.map(Shares::new),
                handshakes: Arc::new(Semaphore::new(profile.concurrent_handshakes)),
                connection,
                metrics: metrics.clone(),
                supervisor: supervisor.clone(),
                drain: drain.clone(),
            });
            running.push(acceptor.run(source, stop.clone()));
            drains.push((drain, profile));
        }
        self.health.started().await;
        let ended = join_all(running).await;
        self.health.draining().await;
        let dropped: usize =
            join_all(drains.iter().map(|(drain, profile)| drain.run(profile, &self.done)))
                .await
                .into_iter()
                .sum();
        if dropped > 0 {
            tracing::warn!(
                dropped,
                "the drain reached its bound; connections and streams were dropped"
            );
        }
        for result in ended {
            result?;
        }
        Ok(())
    }
}

fn sweep(context: &Context, shared: &Arc<Shared>) {
    if shared.limiter.is_none() {
        return;
    }
    let stop = context.supervisor.token();
    let shared = Arc::clone(shared);
    context.supervisor.spawn("rpc.rate_limit.sweep", async move {
        while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
            if let Some(limiter) = &shared.limiter {
                limiter.sweep();
            }
        }
    });
}
