//! `wolfpack sandbox list` and `get`.

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::types::v1 as types;

use super::{SANDBOX, docker_word, state_word};
use crate::args::sandbox::{GetArgs, ListArgs};
use crate::args::values::map;
use crate::command::resolve;
use crate::command::retry::retry;
use crate::command::wolf::id;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;
use crate::progress::PullText;

pub(super) async fn run(api: &Api, arguments: &ListArgs) -> Result<(), Failure> {
    let sandboxes = crate::command::pages(async |page_token| {
        let request = pb::ListSandboxesRequest {
            page_token,
            label_selector: map(&arguments.label),
            show_deleted: arguments.all,
            ..Default::default()
        };
        let page =
            retry(async || Ok(api.sandboxes().list_sandboxes(request.clone()).await?.into_inner()))
                .await?;
        Ok((page.sandboxes, page.next_page_token))
    })
    .await?;
    if arguments.output.is_json() {
        let sandboxes = sandboxes
            .iter()
            .map(|sandbox| output::json(SANDBOX, sandbox))
            .collect::<Result<Vec<_>, _>>()?;
        return output::print_json(&serde_json::json!({ "sandboxes": sandboxes }));
    }
    output::print_table(
        ["ID", "NAME", "STATE", "WOLF", "IMAGE", "DOCKER", "AGE", "WHY"],
        sandboxes.iter().map(row),
    )
}

pub(super) async fn get(api: &Api, arguments: &GetArgs) -> Result<(), Failure> {
    let name = resolve::sandbox(api, &arguments.sandbox).await?;
    let sandbox = resolve::get(api, &name).await?;
    match arguments.output.is_json() {
        true => output::print_json(&output::json(SANDBOX, &sandbox)?),
        false => output::print_facts(&facts(&sandbox)),
    }
}

fn row(sandbox: &pb::Sandbox) -> [String; 8] {
    let status = sandbox.status.clone().unwrap_or_default();
    [
        id(&sandbox.name),
        sandbox.display_name.clone(),
        state_word(sandbox),
        id(&status.wolf),
        sandbox.spec.as_ref().map(|spec| spec.image.clone()).unwrap_or_default(),
        docker(sandbox).to_owned(),
        output::age(sandbox.create_time.as_ref()),
        why(&status),
    ]
}

/// What it has of Docker; what was asked for while it has no status.
fn docker(sandbox: &pb::Sandbox) -> &'static str {
    let status = sandbox.status.as_ref().and_then(|status| status.docker.as_ref());
    match (status, &sandbox.spec) {
        (Some(docker), _) => docker_word(docker.mode()),
        (None, Some(spec)) => docker_word(spec.docker()),
        (None, None) => "",
    }
}

/// One line for one change.
pub(super) fn line(sandbox: &pb::Sandbox) -> String {
    let [id, name, state, wolf, _, _, _, why] = row(sandbox);
    let parts = [id, name, state, wolf, why]
        .map(|part| if part.is_empty() { "-".to_owned() } else { part });
    parts.join("  ")
}

fn why(status: &pb::SandboxStatus) -> String {
    match (status.reason.as_str(), status.message.as_str()) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

/// What was asked for, as it is typed.
fn encoders(request: &types::EncoderRequest) -> String {
    let mut text = request.sessions.to_string();
    for (name, prefix) in [
        (request.codec().as_str_name(), "ENCODER_CODEC_"),
        (request.need().as_str_name(), "ENCODER_NEED_"),
    ] {
        if !name.ends_with("UNSPECIFIED") {
            text.push(':');
            text.push_str(&output::word(name, prefix));
        }
    }
    text
}

fn facts(sandbox: &pb::Sandbox) -> Vec<(&'static str, String)> {
    let spec = sandbox.spec.clone().unwrap_or_default();
    let status = sandbox.status.clone().unwrap_or_default();
    let resources = spec.resources.unwrap_or_default();
    let transitions = status.transitions.iter().map(|step| {
        let state = output::word(step.state().as_str_name(), "SANDBOX_STATE_");
        format!("{}  {state}", output::instant(step.time.as_ref()))
    });
    let isolation = status.docker.as_ref().map(|docker| docker.isolation.clone());
    let mounts = spec.mounts.iter().map(|mount| {
        let only = if mount.read_only { " (read only)" } else { "" };
        format!("{} -> {}{only}", mount.source, mount.target)
    });
    vec![
        ("name", sandbox.name.clone()),
        ("display name", sandbox.display_name.clone()),
        ("project", sandbox.project.clone()),
        ("state", state_word(sandbox)),
        ("why", why(&status)),
        ("exit code", status.exit_code.map(|code| code.to_string()).unwrap_or_default()),
        ("wolf", status.wolf.clone()),
        ("image", spec.image.clone()),
        ("command", spec.command.join(" ")),
        ("desktop", if spec.desktop { "yes" } else { "no" }.to_owned()),
        (
            "cpu",
            resources
                .cpu_milli
                .map(|milli| format!("{}", f64::from(milli) / 1000.0))
                .unwrap_or_default(),
        ),
        ("memory", resources.memory_bytes.map(output::amount).unwrap_or_default()),
        ("gpus", status.gpu_ids.join(", ")),
        ("encoders", spec.encoder.as_ref().map(encoders).unwrap_or_default()),
        ("docker", docker(sandbox).to_owned()),
        ("isolation", isolation.unwrap_or_default()),
        ("mounts", mounts.collect::<Vec<_>>().join("\n")),
        ("pulling", status.pull.as_ref().map(PullText::whole).unwrap_or_default()),
        ("labels", output::pairs(&sandbox.labels)),
        ("creator", sandbox.creator.clone()),
        ("created", output::instant(sandbox.create_time.as_ref())),
        ("life", transitions.collect::<Vec<_>>().join("\n")),
        ("last logs", status.last_logs.clone()),
    ]
}
