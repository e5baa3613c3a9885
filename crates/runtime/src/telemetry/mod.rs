//! Logs, spans and metrics, kept apart per service: several services of one
//! process each have their own `service.name`, sampler, exporter and registry.
//!
//! A service's futures run under its own [`tracing::Dispatch`]; the supervisor
//! and the gRPC server see to that. What runs outside any service is logged by
//! [`init_process`].

mod config;
mod format;
mod subscriber;
mod thread;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, TracerProviderBuilder};
use tracing::Dispatch;

pub use config::{LogFormat, TelemetryConfig};
pub use subscriber::init_process;
pub use thread::{OwnThread, spawn_as};

/// One export to the collector may take this long.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Telemetry that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter does not parse.
    #[error("telemetry.filter is not a filter: {0}; write one such as info or wolfpack=debug,info")]
    Filter(String),
    /// The exporter refuses its settings.
    #[error("telemetry.otlp_endpoint cannot be used: {0}")]
    Exporter(String),
    /// An exporter needs a runtime for its connection.
    #[error("telemetry with an otlp endpoint is set up inside the async runtime only")]
    NoRuntime,
    /// The metrics registry refuses.
    #[error("the metrics registry refused: {0}")]
    Registry(String),
    /// The process has a global subscriber already.
    #[error("the process already has a global log subscriber")]
    AlreadyInitialised,
}

/// The telemetry of one service; cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    service_name: String,
    tracer_provider: SdkTracerProvider,
    meter_provider: SdkMeterProvider,
    registry: prometheus::Registry,
    dispatch: Dispatch,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry")
            .field("service_name", &self.inner.service_name)
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Telemetry of a service. Spans and metrics are exported only where
    /// `config` names a collector; a collector that is away costs nothing but
    /// the data.
    ///
    /// # Errors
    /// When the filter or the endpoint cannot be used, or an endpoint is given
    /// outside the async runtime.
    pub fn new(service_name: &str, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let tracers = traces(service_name, config);
        let tracers = match &config.otlp_endpoint {
            Some(endpoint) => tracers.with_batch_exporter(span_exporter(endpoint)?),
            None => tracers,
        };
        Self::assemble(service_name, config, tracers, config.otlp_endpoint.is_some())
    }

    /// Telemetry whose spans also go to `exporter`, each as it ends. For tests
    /// that count spans.
    ///
    /// # Errors
    /// As [`Telemetry::new`].
    pub fn with_span_exporter<E>(
        service_name: &str,
        config: &TelemetryConfig,
        exporter: E,
    ) -> Result<Self, TelemetryError>
    where
        E: opentelemetry_sdk::trace::SpanExporter + 'static,
    {
        Self::assemble(
            service_name,
            config,
            traces(service_name, config).with_simple_exporter(exporter),
            true,
        )
    }

    fn assemble(
        service_name: &str,
        config: &TelemetryConfig,
        tracers: TracerProviderBuilder,
        collected: bool,
    ) -> Result<Self, TelemetryError> {
        let tracer_provider = tracers.build();
        let tracer = tracer_provider.tracer("wolfpack");
        let dispatch = subscriber::for_service(service_name, config, tracer, collected)?;
        let (meter_provider, registry) = meters(service_name, config.otlp_endpoint.as_deref())?;
        Ok(Self {
            inner: Arc::new(Inner {
                service_name: service_name.to_owned(),
                tracer_provider,
                meter_provider,
                registry,
                dispatch,
            }),
        })
    }

    /// Telemetry that neither logs nor traces; metrics still count, so tests
    /// can read them.
    #[must_use]
    pub fn disabled(service_name: &str) -> Self {
        let (meter_provider, registry) = meters(service_name, None).unwrap_or_default();
        Self {
            inner: Arc::new(Inner {
                service_name: service_name.to_owned(),
                tracer_provider: SdkTracerProvider::builder().build(),
                meter_provider,
                registry,
                dispatch: Dispatch::none(),
            }),
        }
    }

    /// Makes this service's instruments.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.inner.meter_provider.meter("wolfpack")
    }

    /// The subscriber this service's futures run under:
    /// `future.with_subscriber(telemetry.dispatch())`.
    #[must_use]
    pub fn dispatch(&self) -> Dispatch {
        self.inner.dispatch.clone()
    }

    /// All metrics as Prometheus text.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        let families = self.inner.registry.gather();
        if let Err(error) = prometheus::TextEncoder::new().encode_utf8(&families, &mut text) {
            text.clear();
            // A comment is valid exposition text; the scrape then shows why.
            let _ = writeln!(text, "# the metrics could not be encoded: {error}");
        }
        text
    }

    /// The `service.name` of everything this exports.
    #[must_use]
    pub fn service_name(&self) -> &str {
        &self.inner.service_name
    }

    /// Exports what is still held, within `deadline`; what does not get through
    /// is lost, with a log line.
    pub async fn flush(&self, deadline: Duration) {
        let inner = Arc::clone(&self.inner);
        // The providers block; they must not hold a worker of the runtime.
        let work = tokio::task::spawn_blocking(move || {
            (inner.tracer_provider.force_flush(), inner.meter_provider.force_flush())
        });
        match tokio::time::timeout(deadline, work).await {
            Ok(Ok((Ok(()), Ok(())))) => {}
            Ok(Ok((spans, metrics))) => {
                tracing::warn!(?spans, ?metrics, "telemetry could not be flushed");
            }
            Ok(Err(error)) => tracing::warn!(%error, "flushing telemetry failed"),
            Err(_) => tracing::warn!("telemetry was not flushed in time; the rest is lost"),
        }
    }
}

fn resource(service_name: &str) -> Resource {
    Resource::builder()
        .with_service_name(service_name.to_owned())
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

fn traces(service_name: &str, config: &TelemetryConfig) -> TracerProviderBuilder {
    let ratio = Sampler::TraceIdRatioBased(config.trace_sample_ratio);
    SdkTracerProvider::builder()
        .with_resource(resource(service_name))
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
}

fn span_exporter(endpoint: &str) -> Result<SpanExporter, TelemetryError> {
    inside_runtime()?;
    SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| TelemetryError::Exporter(error.to_string()))
}

fn meters(
    service_name: &str,
    endpoint: Option<&str>,
) -> Result<(SdkMeterProvider, prometheus::Registry), TelemetryError> {
    let registry = prometheus::Registry::new();
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()
        .map_err(|error| TelemetryError::Registry(error.to_string()))?;
    let builder =
        SdkMeterProvider::builder().with_resource(resource(service_name)).with_reader(reader);
    let builder = match endpoint {
        Some(endpoint) => {
            inside_runtime()?;
            let exporter = MetricExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .map_err(|error| TelemetryError::Exporter(error.to_string()))?;
            builder.with_periodic_exporter(exporter)
        }
        None => builder,
    };
    Ok((builder.build(), registry))
}

/// The exporters' lazy connection panics outside a runtime; say it instead.
fn inside_runtime() -> Result<(), TelemetryError> {
    tokio::runtime::Handle::try_current().map(drop).map_err(|_| TelemetryError::NoRuntime)
}

#[cfg(test)]
mod tests;
