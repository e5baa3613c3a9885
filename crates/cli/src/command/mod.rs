//! One file per command.

mod doctor;
mod explain;
mod exposure;
mod identity;
mod image;
mod port_forward;
mod resolve;
mod retry;
mod sandbox;
mod standing;
mod tunnel;
mod wolf;

use std::process::ExitCode;

use crate::args::{Arguments, Command};
use crate::connect::Api;
use crate::failure::Failure;

/// Runs a command against the gateway.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    if let Command::Doctor(arguments) = &arguments.command
        && arguments.is_local()
    {
        return doctor::local(arguments).await;
    }
    let api = Api::connect(&arguments.connection)?;
    dispatch(&api, arguments.command).await.map_err(|failure| failure.of_server(api.server()))
}

async fn dispatch(api: &Api, command: Command) -> Result<ExitCode, Failure> {
    match command {
        // It has no server to connect to; the caller runs it.
        Command::Dev(arguments) => return Ok(crate::dev::run(arguments)),
        Command::Sandbox(command) => return sandbox::run(api, command).await,
        Command::Wolf(command) => wolf::run(api, command).await?,
        Command::Image(command) => image::run(api, command).await?,
        Command::PortForward(arguments) => port_forward::run(api, arguments).await?,
        Command::Doctor(arguments) => return doctor::run(api, &arguments).await,
        Command::Tunnel(command) => tunnel::run(api, command).await?,
        Command::Exposure(command) => exposure::run(api, command).await?,
        Command::Explain(arguments) => explain::run(api, &arguments).await?,
        Command::Project(command) => identity::project(api, command).await?,
        Command::Key(command) => identity::key(api, command).await?,
        Command::JoinToken(command) => identity::join_token(api, command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads all pages of a list. `page` gets a page token and answers the items
/// and the next token.
async fn pages<T, F>(mut page: F) -> Result<Vec<T>, Failure>
where
    F: AsyncFnMut(String) -> Result<(Vec<T>, String), Failure>,
{
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let (items, next) = page(token).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}
