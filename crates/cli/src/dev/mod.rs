//! `wolfpack dev`: everything in one process, as separate processes would be:
//! each service with its own certificate, telemetry and database, meeting the
//! others over mTLS on loopback only.

mod arguments;
mod banner;
mod certificates;
mod config;
mod engine;
mod parts;
mod ready;
mod services;
mod wolf;

use std::process::ExitCode;
use std::time::Duration;

use wolfpack_runtime::process::{EXIT_CONFIG, signals};
use wolfpack_runtime::{BoxError, HasTelemetry as _, init_process};

pub use arguments::DevArgs;
use config::DevConfig;
use parts::Parts;
use ready::Ready;
use services::Fleet;

/// The wolf must be online within this; then something is wrong with it.
const ONLINE: Duration = Duration::from_secs(60);

/// Runs a fleet until a signal comes or a part fails, and answers the exit
/// code: 0 after a drain, 1 when something failed, 64 on bad arguments.
#[must_use]
pub fn run(arguments: DevArgs) -> ExitCode {
    let config = match DevConfig::load(arguments) {
        Ok(config) => config,
        Err(error) => return refuse(error.as_ref()),
    };
    let lock = match config.lock_data() {
        Ok(lock) => lock,
        Err(error) => return refuse(error.as_ref()),
    };
    if let Err(error) = init_process(config.telemetry()) {
        return refuse(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error),
    };
    let outcome = runtime.block_on(session(&config));
    // Blocking threads that hang must not hold the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    // Only now: nothing of ours touches the folder any more.
    drop(lock);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wolfpack dev: {}", words(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("wolfpack dev: {}", words(error));
    ExitCode::from(EXIT_CONFIG)
}

/// Starts, serves and stops; an error when a part failed or could not start.
async fn session(config: &DevConfig) -> Result<(), BoxError> {
    let mut signals = signals::watch()?;
    let mut parts = Parts::default();
    ready::forget(config);
    let started = tokio::select! {
        biased;
        signal = signals.first() => Ok(Some(signal)),
        started = start(config, &mut parts) => started.map(|()| None),
    };
    let outcome = match started {
        Ok(None) => tokio::select! {
            biased;
            signal = signals.first() => Ok(signal),
            why = parts.failed() => Err(why.into()),
        },
        Ok(Some(signal)) => Ok(signal),
        Err(error) => Err(error),
    };
    if let Ok(signal) = &outcome {
        eprintln!("\n{signal}: draining; again to exit at once");
    }
    ready::forget(config);
    // The drain of the whole is bounded by that of each part.
    parts.stop().await;
    if config.arguments.ephemeral {
        wolf::remove(config).await;
    }
    outcome.map(drop)
}

async fn start(config: &DevConfig, parts: &mut Parts) -> Result<(), BoxError> {
    wolf::check(config).await?;
    let fleet = Fleet::start(config, parts).await?;
    let starting = wolf::start(config, &fleet, parts).await?;
    let wolf = tokio::select! {
        online = starting.online(config, &fleet, ONLINE) => online?,
        why = parts.failed() => return Err(why.into()),
    };
    let ready = Ready::new(config, &fleet, &wolf);
    ready.save(config)?;
    // Whoever closed stdout does not want to read it.
    let _ = crate::output::line(&banner::text(config.arguments.ephemeral, &ready));
    Ok(())
}

/// An error with its causes.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors repeat their cause.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
