//! `wolfpack sandbox create`.

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::watch_sandboxes_response::Event;
use wolfpack_proto::types::v1 as types;

use super::watch::Watch;
use super::{print, state};
use crate::args::sandbox::CreateArgs;
use crate::args::values::map;
use crate::command::resolve::present;
use crate::command::retry::retry;
use crate::connect::Api;
use crate::failure::{Failure, SandboxFailure};
use crate::progress::Progress;

/// What `--docker shared` means.
const SHARED_WARNING: &str = "warning: --docker shared gives the sandbox the wolf's own engine: \
whoever is in it owns that wolf and every sandbox on it";

pub(super) async fn run(api: &Api, arguments: CreateArgs) -> Result<(), Failure> {
    let json = arguments.output.is_json();
    let (no_wait, patience) = (arguments.no_wait, arguments.timeout);
    if arguments.shape.docker() == types::DockerMode::Shared {
        eprintln!("{SHARED_WARNING}");
    }
    let request = request(arguments);
    // The request id makes it safe to send again.
    let answer =
        retry(async || Ok(api.sandboxes().create_sandbox(request.clone()).await?.into_inner()))
            .await?;
    let sandbox = present(answer.sandbox)?;
    if no_wait {
        return print(&sandbox, json);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut progress = Progress::start(&sandbox.name);
    let ended = tokio::select! {
        ended = timeout(patience, until_running(api, &sandbox.name, &mut progress)) => ended,
        _ = interrupt.recv() => {
            progress.clear();
            return Err(Failure::Interrupted(format!(
                "{0}: it goes on; delete it with: wolfpack sandbox delete {0}",
                sandbox.name,
            )));
        }
    };
    match ended {
        Ok(Ok(sandbox)) => {
            progress.running();
            print(&sandbox, json)
        }
        Ok(Err(failure)) => {
            progress.clear();
            Err(failure)
        }
        Err(_) => {
            let why = match progress.said() {
                "" => String::new(),
                said => format!(" ({said})"),
            };
            progress.clear();
            Err(Failure::Timeout(format!(
                "{0} does not run after {1}{why}; it goes on starting: see `wolfpack sandbox get {0}`",
                sandbox.name,
                humantime::format_duration(patience),
            )))
        }
    }
}

fn request(arguments: CreateArgs) -> pb::CreateSandboxRequest {
    let shape = arguments.shape;
    let spec = pb::SandboxSpec {
        image: arguments.image.unwrap_or_default(),
        command: arguments.command,
        env: map(&arguments.env),
        resources: Some(shape.resources()),
        gpu: shape.gpus(),
        desktop: shape.desktop,
        wolf_selector: map(&shape.wolf_label),
        strategy: shape.strategy().into(),
        docker: shape.docker().into(),
        mounts: shape.mounts(),
        encoder: shape.encoders(),
    };
    pb::CreateSandboxRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        sandbox: Some(pb::Sandbox {
            display_name: arguments.name.unwrap_or_default(),
            labels: map(&arguments.label),
            spec: Some(spec),
            ..pb::Sandbox::default()
        }),
    }
}

async fn until_running(
    api: &Api,
    name: &str,
    progress: &mut Progress,
) -> Result<pb::Sandbox, Failure> {
    let mut watch = Watch::new(api, name);
    loop {
        let sandbox = match watch.next().await? {
            Event::Upserted(sandbox) => sandbox,
            Event::Removed(_) => {
                return Err(gone(name, "SANDBOX_NOT_FOUND", "it was removed meanwhile"));
            }
            Event::Bookmark(_) => continue,
        };
        let status = sandbox.status.clone().unwrap_or_default();
        match state(&sandbox) {
            pb::SandboxState::Running => return Ok(sandbox),
            pb::SandboxState::Failed => {
                return Err(Failure::Sandbox(Box::new(SandboxFailure {
                    name: sandbox.name,
                    reason: status.reason,
                    message: status.message,
                    last_logs: status.last_logs,
                    exit_code: status.exit_code,
                })));
            }
            pb::SandboxState::Deleting | pb::SandboxState::Deleted => {
                return Err(gone(name, "SANDBOX_NOT_RUNNING", "it was deleted meanwhile"));
            }
            other => progress.state(other, &status.message, status.pull.as_ref()),
        }
    }
}

fn gone(name: &str, reason: &str, message: &str) -> Failure {
    Failure::Sandbox(Box::new(SandboxFailure {
        name: name.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_logs: String::new(),
        exit_code: None,
    }))
}
