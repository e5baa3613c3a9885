//! `wolfpack-wolf-agent inventory [--json]`: what this host has to give, without
//! joining anything.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::Inventory;
use crate::config::Config;
use crate::engine::{DockerEngine, Engine as _, EngineInfo};
use crate::link::InventorySource;

/// How long the engine may take to say what it is.
const ENGINE: Duration = Duration::from_secs(5);
/// Wrong arguments, as `sysexits.h` has it.
const USAGE: u8 = 64;

/// Prints the inventory, when the arguments ask for it; `None` when they do not.
/// The configuration is the default one with `DOCKER_HOST` for the engine.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = String>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next().as_deref() != Some("inventory") {
        return None;
    }
    let rest: Vec<String> = arguments.collect();
    let json = match rest.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--json"] => true,
        _ => {
            let _ = writeln!(std::io::stderr(), "usage: wolfpack-wolf-agent inventory [--json]");
            return Some(ExitCode::from(USAGE));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = match runtime {
        Ok(runtime) => {
            let (inventory, engine) = runtime.block_on(take());
            // A driver that hangs must not keep the program.
            runtime.shutdown_background();
            show(&inventory, engine.as_ref(), json)
        }
        Err(error) => Err(error),
    };
    Some(match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "the inventory cannot be shown: {error}");
            ExitCode::FAILURE
        }
    })
}

async fn take() -> (Inventory, Option<EngineInfo>) {
    let mut config = Config::default();
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        config.docker_host = host;
    }
    let engine = DockerEngine::new(config.docker_socket());
    let engine = tokio::time::timeout(ENGINE, engine.info()).await.ok().and_then(Result::ok);
    (InventorySource::new(&config).measure(engine.as_ref()).await, engine)
}

fn show(
    inventory: &Inventory,
    engine: Option<&EngineInfo>,
    json: bool,
) -> Result<(), std::io::Error> {
    let mut report = inventory.report();
    report["engine"] = engine.map_or(Value::Null, |engine| {
        serde_json::json!({
            "version": engine.version,
            "storage_driver": engine.storage_driver,
            "cgroup_version": engine.cgroup_version,
            "remaps_users": engine.remapped_root.is_some(),
            "cdi_folders": engine.cdi_folders,
        })
    });
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        return writeln!(out);
    }
    for (name, value) in report.as_object().into_iter().flatten() {
        if name != "gpus" && name != "encoder_sources" {
            writeln!(out, "{name}: {value}")?;
        }
    }
    for gpu in report["gpus"].as_array().into_iter().flatten() {
        let text = |field: &str| gpu[field].as_str().unwrap_or("").to_owned();
        let withheld = gpu["withheld"].as_str().map(|why| format!(", not offered: {why}"));
        let state = gpu["telemetry"]["state"].as_str().unwrap_or("not measured");
        let (id, model, withheld) = (text("id"), text("model"), withheld.unwrap_or_default());
        writeln!(out, "gpu {id}: {model}, {state}{withheld}")?;
    }
    Ok(())
}
