//! `wolfpack wolf …`.

use wolfpack_proto::registry::v1 as pb;

use super::resolve;
use crate::args::identity::WolfCommand;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

const WOLF: &str = "wolfpack.registry.v1.Wolf";

pub(crate) async fn run(api: &Api, command: WolfCommand) -> Result<(), Failure> {
    match command {
        WolfCommand::List(format) => {
            let wolves = resolve::wolves(api).await?;
            if format.is_json() {
                let wolves = wolves
                    .iter()
                    .map(|wolf| output::json(WOLF, wolf))
                    .collect::<Result<Vec<_>, _>>()?;
                return output::print_json(&serde_json::json!({ "wolves": wolves }));
            }
            output::print_table(
                ["ID", "NAME", "STATE", "CPU", "MEMORY", "GPUS", "DESKTOPS", "HEARTBEAT"],
                wolves.iter().map(row),
            )
        }
        WolfCommand::Get { wolf, output: format } => {
            let wolf = resolve::wolf(api, &wolf).await?;
            if format.is_json() {
                return output::print_json(&output::json(WOLF, &wolf)?);
            }
            output::print_facts(&facts(&wolf))
        }
    }
}

fn row(wolf: &pb::Wolf) -> [String; 8] {
    let capacity = wolf.capacity.clone().unwrap_or_default();
    [
        id(&wolf.name),
        wolf.display_name.clone(),
        state(wolf),
        cpu(&capacity),
        memory(&capacity),
        gpus(&capacity),
        capacity.desktop_slots.to_string(),
        output::age(wolf.last_heartbeat_time.as_ref()),
    ]
}

fn facts(wolf: &pb::Wolf) -> Vec<(&'static str, String)> {
    let capacity = wolf.capacity.clone().unwrap_or_default();
    let engine = wolf.engine.clone().unwrap_or_default();
    let engine = match engine.version.is_empty() {
        true => String::new(),
        false => format!(
            "{} ({}, cgroup v{})",
            engine.version, engine.storage_driver, engine.cgroup_version
        ),
    };
    vec![
        ("name", wolf.name.clone()),
        ("display name", wolf.display_name.clone()),
        ("project", wolf.project.clone()),
        ("state", state(wolf)),
        ("why", wolf.state_message.clone()),
        ("tunnel", if wolf.tunnel_attached { "attached" } else { "detached" }.to_owned()),
        ("labels", output::pairs(&wolf.labels)),
        ("cpu", cpu(&capacity)),
        ("memory", memory(&capacity)),
        ("gpus", gpus(&capacity)),
        ("desktops", capacity.desktop_slots.to_string()),
        ("engine", engine),
        ("agent", wolf.agent_version.clone()),
        ("last heartbeat", output::instant(wolf.last_heartbeat_time.as_ref())),
        ("joined", output::instant(wolf.create_time.as_ref())),
    ]
}

pub(super) fn id(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

fn state(wolf: &pb::Wolf) -> String {
    output::word(wolf.state().as_str_name(), "WOLF_STATE_")
}

fn cpu(capacity: &pb::WolfCapacity) -> String {
    let milli = capacity.resources.as_ref().and_then(|resources| resources.cpu_milli);
    milli.map(|milli| format!("{}", f64::from(milli) / 1000.0)).unwrap_or_default()
}

fn memory(capacity: &pb::WolfCapacity) -> String {
    let bytes = capacity.resources.as_ref().and_then(|resources| resources.memory_bytes);
    bytes.map(output::amount).unwrap_or_default()
}

/// Models with their count, in order of the first of each.
fn gpus(capacity: &pb::WolfCapacity) -> String {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for gpu in &capacity.gpus {
        match counted.iter_mut().find(|(model, _)| *model == gpu.model) {
            Some((_, count)) => *count += 1,
            None => counted.push((&gpu.model, 1)),
        }
    }
    let texts: Vec<_> = counted.iter().map(|(model, count)| format!("{count}x {model}")).collect();
    texts.join(", ")
}
