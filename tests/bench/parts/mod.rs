//! The processes of the benchmarks that are ours. Each is this program again,
//! started with `part NAME FILE`.

pub(crate) mod agent;
pub(crate) mod broker;
pub(crate) mod delay;
pub(crate) mod targets;
mod tell;

use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use wolfpack_runtime::{Context, TelemetryConfig};

use crate::agents::fleet;

/// Runs a part in this process until it is killed.
///
/// # Errors
/// When there is no such part, its configuration cannot be read, or it ends.
pub(crate) fn run(name: &str, file: &Path) -> anyhow::Result<()> {
    match name {
        "broker" => {
            let part: broker::Broker = read(file)?;
            runtime(part.data_threads == 0)?.block_on(broker::run(part))
        }
        "agent" => {
            let part: agent::Agent = read(file)?;
            runtime(!part.data_thread)?.block_on(agent::run(part))
        }
        "delay" => delay::run(&read(file)?),
        "fleet" => {
            let part = read(file)?;
            runtime(false)?.block_on(async { fleet::run(part, context("agent")?).await })
        }
        "targets" => runtime(true)?.block_on(targets::run(read(file)?)),
        _ => anyhow::bail!("there is no part {name:?}"),
    }
}

fn runtime(one_thread: bool) -> anyhow::Result<Runtime> {
    let mut builder =
        if one_thread { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    Ok(builder.enable_all().build()?)
}

fn context(name: &'static str) -> anyhow::Result<Context> {
    wolfpack_runtime::install_crypto_provider();
    let telemetry = TelemetryConfig { filter: "error".to_owned(), ..TelemetryConfig::default() };
    Ok(Context::new(name, &telemetry)?)
}

fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(serde_json::from_slice(&text)?)
}
