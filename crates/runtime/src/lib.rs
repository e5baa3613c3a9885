//! How every process starts and stops: layered configuration, telemetry that
//! stays apart per service, supervised tasks, signals and drain.
//!
//! It is not a framework: a service gets a [`Context`] and is a plain future.
//!
//! ```no_run
//! use wolfpack_runtime::config::Validate;
//! use wolfpack_runtime::{HasTelemetry, TelemetryConfig, process};
//!
//! #[derive(Default, serde::Serialize, serde::Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Config { telemetry: TelemetryConfig }
//! impl Validate for Config {
//!     fn faults(&self) -> Vec<String> { self.telemetry.faults() }
//! }
//! impl HasTelemetry for Config {
//!     fn telemetry(&self) -> &TelemetryConfig { &self.telemetry }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     process::run::<Config, _, _>("example", "EXAMPLE", |_config, context| async move {
//!         context.supervisor.token().cancelled().await;
//!         Ok(())
//!     })
//! }
//! ```

pub mod clock;
pub mod config;
pub mod data_thread;
pub mod process;
pub mod random;
pub mod rarely;
pub mod service;
pub mod supervisor;
pub mod telemetry;
pub mod trace_context;

pub use data_thread::DataThread;
pub use process::{BoxError, HasTelemetry, install_crypto_provider};
pub use service::Context;
pub use supervisor::{Policy, ShutdownReport, Supervisor};
pub use telemetry::{LogFormat, Telemetry, TelemetryConfig, TelemetryError, init_process};
