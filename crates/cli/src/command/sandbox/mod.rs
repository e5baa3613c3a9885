//! `wolfpack sandbox …`.

mod capture;
mod clipboard;
mod containers;
mod create;
mod delete;
mod exec;
mod link;
mod list;
mod logs;
mod screenshot;
mod watch;

use std::process::ExitCode;

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::types::v1 as types;

use crate::args::sandbox::SandboxCommand;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

pub(super) use capture::{Ran, capture};

const SANDBOX: &str = "wolfpack.sandbox.v1.Sandbox";

pub(crate) async fn run(api: &Api, command: SandboxCommand) -> Result<ExitCode, Failure> {
    match command {
        SandboxCommand::Create(arguments) => create::run(api, arguments).await?,
        SandboxCommand::List(arguments) => list::run(api, &arguments).await?,
        SandboxCommand::Get(arguments) => list::get(api, &arguments).await?,
        SandboxCommand::Watch(arguments) => watch::run(api, &arguments).await?,
        SandboxCommand::Delete(arguments) => delete::run(api, &arguments).await?,
        SandboxCommand::Exec(arguments) => return exec::run(api, arguments).await,
        SandboxCommand::Containers(arguments) => containers::run(api, &arguments).await?,
        SandboxCommand::Logs(arguments) => logs::run(api, &arguments).await?,
        SandboxCommand::Link(arguments) => link::run(api, &arguments).await?,
        SandboxCommand::Screenshot(arguments) => screenshot::run(api, &arguments).await?,
        SandboxCommand::Clipboard(command) => clipboard::run(api, command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints one sandbox: all of it as JSON, or its name.
fn print(sandbox: &pb::Sandbox, json: bool) -> Result<(), Failure> {
    match json {
        true => output::print_json(&output::json(SANDBOX, sandbox)?),
        false => output::line(&sandbox.name),
    }
}

fn state(sandbox: &pb::Sandbox) -> pb::SandboxState {
    sandbox.status.as_ref().map_or(pb::SandboxState::Unspecified, pb::SandboxStatus::state)
}

fn state_word(sandbox: &pb::Sandbox) -> String {
    output::word(state(sandbox).as_str_name(), "SANDBOX_STATE_")
}

/// A Docker mode in a word; what is not said is none.
fn docker_word(mode: types::DockerMode) -> &'static str {
    match mode {
        types::DockerMode::Unspecified | types::DockerMode::None => "none",
        types::DockerMode::Nested => "nested",
        types::DockerMode::Shared => "shared",
    }
}

fn via(path: pb::TunnelPath) -> &'static str {
    match path {
        pb::TunnelPath::Sandbox => "sandbox",
        pb::TunnelPath::Wolf => "wolf",
        pb::TunnelPath::Unspecified => "unknown",
    }
}
