//! The wolf's engine: what it is told, and its start.

use std::ffi::OsString;

use serde_json::{Map, Value};
use wolfpack_dockerd::daemon::{Daemon, DaemonError, EngineOptions, GpuOptions, LogOptions};
use wolfpack_dockerd::place::StepFailed;
use wolfpack_dockerd::place::iptables::{self, Backend};
use wolfpack_dockerd::place::nvidia::Nvidia;
use wolfpack_dockerd::plan::NetworkPlan;
use wolfpack_dockerd::status::{ChildState, Outcome};
use wolfpack_runtime::Supervisor;

use super::Achieved;
use crate::Config;
use crate::record::{Record, now};

const STEP: &str = "engine";

/// What the engine is told.
///
/// # Errors
/// When the operator's own `daemon.json` cannot be used.
pub(super) fn options(
    config: &Config,
    plan: &NetworkPlan,
    nvidia: &Nvidia,
    path: &OsString,
) -> Result<EngineOptions, StepFailed> {
    let run = config.run_dir.join("wolfpack-init");
    let named = |text: &String| (!text.is_empty()).then(|| text.clone());
    let gpu = match nvidia {
        Nvidia::Ready { runtime, cdi, .. } => {
            GpuOptions { nvidia_runtime: runtime.clone(), cdi: *cdi }
        }
        Nvidia::None | Nvidia::Refused { .. } => GpuOptions::default(),
    };
    let options = EngineOptions {
        config_file: run.join("daemon.json"),
        log: LogOptions { file: config.state_dir.join("log/dockerd.log"), max_bytes: 8 << 20 },
        dns: vec![plan.bridge.addr()],
        storage_driver: named(&config.engine.storage_driver),
        userns_remap: named(&config.engine.userns_remap),
        live_restore: config.engine.live_restore,
        gpu,
        environment: vec![("PATH".into(), path.clone())],
        extra: extra(config)?,
        ..EngineOptions::new(
            &config.engine.program,
            &config.data_root,
            &config.run_dir,
            plan.clone(),
        )
    };
    let faults = options.faults();
    if faults.is_empty() {
        return Ok(options);
    }
    Err(StepFailed::new(STEP, faults.join("; "), "mend WOLFPACK_INIT__ENGINE__..."))
}

/// The operator's own keys.
fn extra(config: &Config) -> Result<Map<String, Value>, StepFailed> {
    let Some(file) = &config.engine.daemon_json else { return Ok(Map::new()) };
    std::fs::read(file)
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
        .map_err(|why| {
            let fix = "mend the file, or unset WOLFPACK_INIT__ENGINE__DAEMON_JSON";
            StepFailed::new(STEP, format!("{}: {why}", file.display()), fix)
        })
}

/// Starts it for the first time: what fails now ends the start.
pub(super) async fn first(
    config: &Config,
    options: &EngineOptions,
    backend: Backend,
    record: &Record,
    tasks: &Supervisor,
) -> Achieved<Daemon> {
    let daemon = start(config, options, backend, record, tasks).await.map_err(|error| {
        let fix = match &error {
            DaemonError::StorageDriver { .. } => {
                format!("mount a volume of ext4 or xfs at {}", config.data_root.display())
            }
            DaemonError::Program { .. } => "use the wolf image as it is built".to_owned(),
            _ => format!("read {}", options.log.file.display()),
        };
        StepFailed::new(STEP, error, fix)
    })?;
    let facts = daemon.info();
    let remap = if facts.remapped_root { "users remapped" } else { "users NOT remapped" };
    let note = format!("Docker {} on {}, {remap}", facts.version, facts.storage_driver);
    // Without it every sandbox's root is this container's root.
    let outcome = if facts.remapped_root { Outcome::Done } else { Outcome::Degraded };
    Ok((daemon, outcome, note))
}

/// Starts it, and has the kernel forward for its containers, whatever it set.
///
/// # Errors
/// Why it does not run; the status says so too.
pub(crate) async fn start(
    config: &Config,
    options: &EngineOptions,
    backend: Backend,
    record: &Record,
    tasks: &Supervisor,
) -> Result<Daemon, DaemonError> {
    record.change(|status| {
        status.engine.state = ChildState::Starting;
        status.engine.program.clone_from(&options.program);
        status.engine.since = now();
    });
    let started = Daemon::start(options.clone(), config.engine.start, tasks).await;
    let forwards = match &started {
        Ok(_) => iptables::accept_forwarded(backend).await,
        Err(_) => Ok(()),
    };
    let started = match (started, forwards) {
        (Ok(daemon), Err(failed)) => {
            daemon.stop(config.engine.start).await;
            Err(DaemonError::Api(failed.to_string()))
        }
        (started, _) => started,
    };
    record.change(|status| match &started {
        Ok(daemon) => {
            status.engine.state = ChildState::Running;
            status.engine.pid = Some(daemon.pid());
            status.engine_facts = Some(daemon.info().clone());
        }
        Err(error) => {
            status.engine.state = ChildState::Restarting;
            status.engine.pid = None;
            status.engine.trouble = Some(error.to_string());
        }
    });
    started
}
