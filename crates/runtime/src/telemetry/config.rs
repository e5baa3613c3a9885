//! What telemetry is told.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::config::Validate;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The section `telemetry` of every configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// How log lines on stderr look. Default: auto.
    pub log: LogFormat,
    /// Which log lines are written, such as `wolfpack=debug,info`. Default: info.
    pub filter: String,
    /// Where spans and metrics go by OTLP over gRPC, such as
    /// `http://127.0.0.1:4317`. Default: nowhere.
    pub otlp_endpoint: Option<String>,
    /// The share of new traces that are exported, 0 to 1; a trace that began
    /// elsewhere keeps the choice made there. Default: 1.
    pub trace_sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: LogFormat::Auto,
            filter: "info".to_owned(),
            otlp_endpoint: None,
            trace_sample_ratio: 1.0,
        }
    }
}

impl Validate for TelemetryConfig {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Err(error) = EnvFilter::try_new(&self.filter) {
            faults.push(format!(
                "telemetry.filter: {error}; write one such as info or wolfpack=debug,info"
            ));
        }
        if !(0.0..=1.0).contains(&self.trace_sample_ratio) {
            faults.push("telemetry.trace_sample_ratio must lie between 0 and 1".to_owned());
        }
        if let Some(endpoint) = &self.otlp_endpoint
            && !endpoint.starts_with("http://")
        {
            faults.push(
                "telemetry.otlp_endpoint must begin with http://; run a collector beside the \
                 process and let it speak TLS to the outside"
                    .to_owned(),
            );
        }
        faults
    }
}
