//! What every service is given when it is built.

use crate::supervisor::Supervisor;
use crate::telemetry::{Telemetry, TelemetryConfig, TelemetryError};

/// A service's own telemetry and supervisor. Several services of one process
/// have one each.
#[derive(Clone)]
pub struct Context {
    /// Logs, spans and metrics under the service's own name.
    pub telemetry: Telemetry,
    /// Runs the service's tasks; its token says when to stop.
    pub supervisor: Supervisor,
}

impl Context {
    /// A context with fresh telemetry under `service_name`.
    ///
    /// # Errors
    /// As [`Telemetry::new`].
    pub fn new(service_name: &str, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        Ok(Self::with(Telemetry::new(service_name, config)?))
    }

    /// A context around existing telemetry.
    #[must_use]
    pub fn with(telemetry: Telemetry) -> Self {
        Self { supervisor: Supervisor::new(telemetry.clone()), telemetry }
    }

    /// A context that neither logs nor traces, for tests.
    #[must_use]
    pub fn quiet(service_name: &str) -> Self {
        Self::with(Telemetry::disabled(service_name))
    }
}
