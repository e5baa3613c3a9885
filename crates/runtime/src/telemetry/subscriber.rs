//! Builds the subscribers: one per service, one for the process.

use std::io::IsTerminal as _;

use opentelemetry_sdk::trace::SdkTracer;
use tracing::{Dispatch, Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::format::{JsonLine, TextLine};
use super::{LogFormat, TelemetryConfig, TelemetryError};

/// Libraries whose spans would drown ours, or would trace the exporter itself.
const UNTRACED: [&str; 8] =
    ["h2", "hyper", "hyper_util", "tonic", "tower", "opentelemetry", "sqlx", "sea_orm"];

/// The subscriber of a service; `collected` says whether anybody gets its spans.
pub(super) fn for_service(
    service_name: &str,
    config: &TelemetryConfig,
    tracer: SdkTracer,
    collected: bool,
) -> Result<Dispatch, TelemetryError> {
    let traced = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        // Taken at each step of each call, and told to nobody but a collector.
        .with_tracked_inactivity(collected)
        .with_filter(filter_fn(move |metadata| {
            // Without a collector a span gives its ids to logs and to other services.
            // What happened in it would only lie there, and some last for days.
            is_traced(metadata) && (collected || metadata.is_span())
        }));
    Ok(Dispatch::new(Registry::default().with(traced).with(logs(service_name, config)?)))
}

/// Logs what runs outside any service, and panics, as the process's name says.
/// Called once, first.
///
/// # Errors
/// When the filter does not parse or the process has a subscriber already.
pub fn init_process(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let name = std::env::args_os()
        .next()
        .and_then(|path| {
            Some(std::path::Path::new(&path).file_name()?.to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| "wolfpack".to_owned());
    let dispatch = Dispatch::new(Registry::default().with(logs(&name, config)?));
    tracing::dispatcher::set_global_default(dispatch)
        .map_err(|_| TelemetryError::AlreadyInitialised)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload_as_str().unwrap_or("a panic without words");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(place, %backtrace, "panicked: {payload}");
    }));
    Ok(())
}

fn is_traced(metadata: &Metadata<'_>) -> bool {
    let krate = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO && !UNTRACED.iter().any(|noisy| krate.starts_with(noisy))
}

fn logs<S>(
    service_name: &str,
    config: &TelemetryConfig,
) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| TelemetryError::Filter(error.to_string()))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match config.log {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let layer =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal && !json);
    Ok(if json {
        layer
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine::new(service_name))
            .with_filter(filter)
            .boxed()
    } else {
        layer.event_format(TextLine::new(service_name)).with_filter(filter).boxed()
    })
}
