//! The body of every `main`: arguments, configuration, telemetry, signals,
//! drain, flush, exit code.

mod arguments;
mod health;
pub mod signals;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Once;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::instrument::WithSubscriber as _;

use crate::config::{self, Validate};
use crate::service::Context;
use crate::telemetry::{TelemetryConfig, init_process};
use arguments::Arguments;

/// Any error of a task or a service.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The exit code of a usage or configuration fault (`EX_USAGE`).
pub const EXIT_CONFIG: u8 = 64;
/// The exit code after a second signal.
pub const EXIT_SECOND_SIGNAL: u8 = 130;

/// Exporting what is left may take this long at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// Tasks get this long after the service itself has ended.
const TASKS: Duration = Duration::from_secs(5);

/// A configuration that has a telemetry section.
pub trait HasTelemetry {
    /// The section.
    fn telemetry(&self) -> &TelemetryConfig;

    /// How long a stop may wait for running work.
    fn drain(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// Makes `ring` the process's TLS provider; harmless when called again.
pub fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails only when one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Runs a service as a process of its own, and answers its exit code: 0 after
/// a drain, 1 when the service or an essential task failed, 64 on a usage or
/// configuration fault. The first SIGTERM or SIGINT drains, a second exits at
/// once with 130.
///
/// Arguments: `--config FILE`, `--dump-config` (secrets masked), `--check-config`,
/// `--health ADDRESS` (a container's health check).
pub fn run<C, B, Fut>(name: &'static str, env_prefix: &'static str, serve: B) -> ExitCode
where
    C: DeserializeOwned + Serialize + Default + Validate + HasTelemetry,
    B: FnOnce(C, Context) -> Fut,
    Fut: Future<Output = Result<(), BoxError>>,
{
    let arguments = match Arguments::parse(name, env_prefix, std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if let Some(address) = arguments.health {
        return match health::ask(address) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{name}: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let config: C = match config::load(env_prefix, arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            // Who looks for the keys has none to give yet: the defaults show them.
            if arguments.dump_config
                && let Ok(text) = config::dump(&C::default())
            {
                println!("# defaults only: what was given has faults\n{text}");
            }
            return refuse(name, &error);
        }
    };
    if arguments.dump_config {
        return match config::dump(&config) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => refuse(name, &error),
        };
    }
    if arguments.check_config {
        println!("{name}: the configuration is usable");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = init_process(config.telemetry()) {
        return refuse(name, &error);
    }
    install_crypto_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(name, &error),
    };
    let code = runtime.block_on(supervise(name, config, serve));
    // Blocking threads that hang must not hold the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

fn refuse(name: &str, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{name}: {error}");
    ExitCode::from(EXIT_CONFIG)
}

async fn supervise<C, B, Fut>(name: &'static str, config: C, serve: B) -> ExitCode
where
    C: HasTelemetry,
    B: FnOnce(C, Context) -> Fut,
    Fut: Future<Output = Result<(), BoxError>>,
{
    let context = match Context::new(name, config.telemetry()) {
        Ok(context) => context,
        Err(error) => return refuse(name, &error),
    };
    let signals = match signals::watch() {
        Ok(signals) => signals,
        Err(error) => return refuse(name, &error),
    };
    let drain = config.drain();
    let dispatch = context.telemetry.dispatch();
    let serving = serve(config, context.clone());
    let failed = drive(serving, &context, signals, drain).with_subscriber(dispatch).await;
    context.telemetry.flush(FLUSH).await;
    ExitCode::from(u8::from(failed))
}

/// Drives the service until it ends or is told to; whether it failed.
async fn drive(
    serving: impl Future<Output = Result<(), BoxError>>,
    context: &Context,
    mut signals: signals::Signals,
    drain: Duration,
) -> bool {
    let supervisor = &context.supervisor;
    let token = supervisor.token();
    let mut serving = std::pin::pin!(serving);
    let (mut failed, ended) = tokio::select! {
        result = &mut serving => (log_failure(result), true),
        why = supervisor.failed() => {
            tracing::error!(why, "stopping");
            (true, false)
        }
        signal = signals.first() => {
            tracing::info!(signal, ?drain, "draining; signal again to exit at once");
            (false, false)
        }
    };
    token.cancel();
    if !ended {
        match tokio::time::timeout(drain, &mut serving).await {
            Ok(result) => failed |= log_failure(result),
            Err(_) => {
                tracing::warn!("the drain took too long; what still ran is cut off");
                failed = true;
            }
        }
    }
    let report = supervisor.shutdown(TASKS).await;
    tracing::info!(failed, aborted = ?report.aborted, "stopped");
    failed
}

fn log_failure(result: Result<(), BoxError>) -> bool {
    match result {
        Ok(()) => false,
        Err(error) => {
            tracing::error!(error = error.as_ref() as &(dyn std::error::Error + 'static), "failed");
            true
        }
    }
}
