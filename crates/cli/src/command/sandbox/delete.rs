//! `wolfpack sandbox delete`.

use tokio::time::timeout;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::watch_sandboxes_response::Event;
use wolfpack_types::Reason;

use super::watch::Watch;
use super::{SANDBOX, state};
use crate::args::sandbox::DeleteArgs;
use crate::command::resolve;
use crate::command::resolve::present;
use crate::command::retry::retry;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

/// Deletes each; a failure of one does not spare the others, and the first is
/// told at the end.
pub(super) async fn run(api: &Api, arguments: &DeleteArgs) -> Result<(), Failure> {
    let mut first = None;
    for given in &arguments.sandbox {
        if let Err(failure) = delete(api, given, arguments).await {
            match first {
                None => first = Some(failure),
                Some(_) => drop(failure.report(arguments.output.is_json())),
            }
        }
    }
    first.map_or(Ok(()), Err)
}

async fn delete(api: &Api, given: &str, arguments: &DeleteArgs) -> Result<(), Failure> {
    let name = resolve::sandbox(api, given).await?;
    let request = pb::DeleteSandboxRequest { name: name.clone(), etag: String::new() };
    let answer =
        retry(async || Ok(api.sandboxes().delete_sandbox(request.clone()).await?.into_inner()))
            .await?;
    let mut sandbox = present(answer.sandbox)?;
    if !arguments.no_wait {
        match timeout(arguments.timeout, until_gone(api, sandbox)).await {
            Ok(gone) => sandbox = gone?,
            Err(_) => {
                return Err(Failure::Timeout(format!(
                    "{name} is not gone after {}; it goes on being deleted",
                    humantime::format_duration(arguments.timeout),
                )));
            }
        }
    }
    match arguments.output.is_json() {
        true => output::print_json(&output::json(SANDBOX, &sandbox)?),
        false => output::line(&format!("{name} is {}", super::state_word(&sandbox))),
    }
}

async fn until_gone(api: &Api, mut sandbox: pb::Sandbox) -> Result<pb::Sandbox, Failure> {
    let mut watch = Watch::new(api, &sandbox.name);
    while state(&sandbox) != pb::SandboxState::Deleted {
        match watch.next().await {
            Ok(Event::Upserted(newer)) => sandbox = newer,
            Ok(Event::Bookmark(_)) => {}
            // Its row is gone, too: more than was asked for.
            Ok(Event::Removed(_)) => break,
            Err(failure) if failure.is(Reason::SandboxNotFound) => break,
            Err(failure) => return Err(failure),
        }
    }
    Ok(sandbox)
}
