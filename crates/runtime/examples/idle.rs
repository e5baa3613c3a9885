//! The smallest service: it waits until it is told to stop. The tests of the
//! process body run it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_runtime::config::{Validate, mask};
use wolfpack_runtime::{HasTelemetry, TelemetryConfig, process};

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Ends when told.
    #[default]
    Polite,
    /// Does not look at the token.
    Deaf,
    /// Has an essential task that fails.
    Failing,
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    mode: Mode,
    size: u32,
    #[serde(with = "humantime_serde")]
    drain: Duration,
    #[serde(serialize_with = "mask")]
    key: Option<secrecy::SecretString>,
    telemetry: TelemetryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Polite,
            size: 1,
            drain: Duration::from_millis(300),
            key: None,
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.telemetry.faults();
        if self.size == 0 {
            faults.push("size must be at least 1".to_owned());
        }
        faults
    }
}

impl HasTelemetry for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn drain(&self) -> Duration {
        self.drain
    }
}

fn main() -> std::process::ExitCode {
    process::run::<Config, _, _>("idle", "WP_IDLE", |config, context| async move {
        if let Mode::Failing = config.mode {
            context.supervisor.spawn_essential("pump", async { Err("dry".into()) });
        }
        tracing::info!(size = config.size, "ready");
        if let Mode::Deaf = config.mode {
            std::future::pending::<()>().await;
        }
        context.supervisor.token().cancelled().await;
        Ok(())
    })
}
