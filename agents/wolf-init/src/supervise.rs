//! The inner process: the start, then both children until it is told to end.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wolfpack_dockerd::place::StepFailed;
use wolfpack_dockerd::status::State;
use wolfpack_runtime::process::EXIT_SECOND_SIGNAL;
use wolfpack_runtime::telemetry::init_process;
use wolfpack_runtime::{Context, install_crypto_provider};

use crate::children::{Agent, AgentEnd, Engine};
use crate::record::Record;
use crate::start::{self, Started};
use crate::{Config, drain, exit};

/// Runs until the container ends.
pub(crate) fn run(config: &Config) -> ExitCode {
    let refuse = |error: &dyn std::error::Error| {
        eprintln!("wolfpack-wolf-init: {error}");
        ExitCode::from(exit::INTERNAL)
    };
    if let Err(error) = init_process(&config.telemetry) {
        return refuse(&error);
    }
    install_crypto_provider();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return refuse(&error),
        };
    match runtime.block_on(supervise(config)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => refuse(&error),
    }
}

/// What PID 1 passes on.
struct Signals {
    terminate: Signal,
    hang_up: Signal,
}

async fn supervise(config: &Config) -> io::Result<u8> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        hang_up: signal(SignalKind::hangup())?,
    };
    let context = Context::new("wolf-init", &config.telemetry).map_err(io::Error::other)?;
    let record = Record::go_on(&config.run_dir);
    let started = tokio::select! {
        started = start::start(config, &record, &context.supervisor) => started,
        // What has been started ends with the container.
        _ = signals.terminate.recv() => {
            record.change(|status| status.state = State::Stopped);
            return Ok(exit::DRAINED);
        }
    };
    let started = match started {
        Ok(started) => started,
        Err(failed) => {
            record.failed(&failed);
            return Ok(exit::code(&failed.step));
        }
    };
    record.change(|status| status.state = State::Running);
    // It holds both children's futures, too much for a stack.
    Ok(Box::pin(keep(config, &context, &record, started, &mut signals)).await)
}

/// Keeps both children; the exit code.
async fn keep(
    config: &Config,
    context: &Context,
    record: &Record,
    started: Started,
    signals: &mut Signals,
) -> u8 {
    let Started { daemon, options, backend, path } = started;
    let tasks = &context.supervisor;
    let socket = options.socket.clone();
    let (stop_engine, stop_agent) = (CancellationToken::new(), CancellationToken::new());
    // One that is asked for while one is under way is the same.
    let (replace, replaces) = mpsc::channel(1);
    let engine = Engine { config, options, backend, record, tasks };
    let mut engine = pin!(engine.keep(daemon, stop_engine.clone()));
    let mut agent = pin!(Agent::new(config, record, path).keep(stop_agent.clone(), replaces));

    let mut agent_end = None;
    let code = loop {
        tokio::select! {
            end = &mut agent => {
                agent_end = Some(end);
                break Some(exit::CONFIG);
            }
            // Until it is told to stop it only keeps.
            () = pending(engine.as_mut()) => {}
            failed = tasks.failed() => {
                record.failed(&StepFailed::new("dns", failed, "start the container again"));
                break Some(exit::code("dns"));
            }
            _ = signals.hang_up.recv() => drop(replace.try_send(())),
            _ = signals.terminate.recv() => break None,
        }
    };
    if agent_end == Some(AgentEnd::Config) {
        let fix = "mend WOLFPACK_WOLF__...; the agent's own words are above";
        record.failed(&StepFailed::new("agent", "its configuration has faults", fix));
    }
    tracing::info!(drain = ?config.drain, "draining; signal again to exit at once");
    record.change(|status| {
        if status.state == State::Running {
            status.state = State::Draining;
        }
    });
    let draining = async {
        let until = Instant::now() + config.drain;
        stop_agent.cancel();
        let agent_end = match agent_end {
            Some(end) => end,
            None => agent.await,
        };
        stop_engine.cancel();
        let ended = drain::end(engine.await, &socket, until).await;
        ended && agent_end != (AgentEnd::Stopped { in_time: false })
    };
    let in_order = tokio::select! {
        in_order = draining => in_order,
        _ = signals.terminate.recv() => return EXIT_SECOND_SIGNAL,
    };
    record.change(|status| {
        if status.state == State::Draining {
            status.state = State::Stopped;
        }
    });
    code.unwrap_or(if in_order { exit::DRAINED } else { exit::CUT_OFF })
}

/// Drives a future that is not to end here; its result would be lost.
async fn pending<F: Future>(mut future: Pin<&mut F>) {
    poll_fn(|context| {
        let _ = future.as_mut().poll(context).is_ready();
        Poll::<()>::Pending
    })
    .await;
}
