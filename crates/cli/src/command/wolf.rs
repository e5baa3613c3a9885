//! `wolfpack wolf …`.

use wolfpack_proto::registry::v1 as pb;
use wolfpack_proto::types::v1 as types;

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
        ("disk", disk(&capacity)),
        ("disk pressure", wolf.disk_pressure.clone()),
        ("gpus", devices(wolf)),
        ("encoders", encoders(&capacity)),
        ("desktops", capacity.desktop_slots.to_string()),
        ("engine", engine),
        ("docker modes", docker_modes(&capacity)),
        ("mount paths", capacity.mount_paths.join("\n")),
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

fn disk(capacity: &pb::WolfCapacity) -> String {
    let bytes = capacity.resources.as_ref().and_then(|resources| resources.disk_bytes);
    bytes.map(output::amount).unwrap_or_default()
}

/// A wolf that says none gives none.
fn docker_modes(capacity: &pb::WolfCapacity) -> String {
    let modes = capacity.docker_modes().map(|mode| match mode {
        types::DockerMode::Unspecified | types::DockerMode::None => "none",
        types::DockerMode::Nested => "nested",
        types::DockerMode::Shared => "shared (whoever has it owns the wolf)",
    });
    let modes: Vec<_> = modes.collect();
    if modes.is_empty() { "none".to_owned() } else { modes.join(", ") }
}

/// The pool of the whole host, where the driver counts so; those of the
/// devices are told with them.
fn encoders(capacity: &pb::WolfCapacity) -> String {
    capacity
        .encoder_sessions
        .map(|most| format!("{most} sessions over all GPUs"))
        .unwrap_or_default()
}

/// One device a line, with what was measured of it last.
fn devices(wolf: &pb::Wolf) -> String {
    let capacity = wolf.capacity.clone().unwrap_or_default();
    let lines = capacity.gpus.iter().map(|gpu| {
        let measured = wolf.gpu_telemetry.iter().find(|measured| measured.id == gpu.id);
        let mut parts = vec![format!("{} ({})", gpu.model, gpu.id)];
        parts.extend(gpu.memory_bytes.map(output::amount));
        if !gpu.driver_version.is_empty() {
            parts.push(format!("driver {}", gpu.driver_version));
        }
        parts.extend(gpu.encoder_sessions.map(|most| encoder(gpu, most)));
        parts.extend(measured.map(telemetry));
        parts.join(", ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn encoder(gpu: &types::GpuDevice, most: u32) -> String {
    let codecs: Vec<_> = gpu
        .encoder_codecs()
        .map(|codec| output::word(codec.as_str_name(), "ENCODER_CODEC_"))
        .collect();
    match (most, codecs.is_empty()) {
        (0, _) => "no encoder".to_owned(),
        (_, true) => format!("{most} encoder sessions"),
        (_, false) => format!("{most} encoder sessions ({})", codecs.join(", ")),
    }
}

/// What was measured; what was not is not told, and never zero.
fn telemetry(measured: &types::GpuTelemetry) -> String {
    let state = output::word(measured.state().as_str_name(), "TELEMETRY_STATE_");
    let mut parts = vec![match measured.message.as_str() {
        "" => state,
        message => format!("{state}: {message}"),
    }];
    parts.extend(measured.utilisation_percent.map(|percent| format!("{percent} % busy")));
    parts.extend(measured.memory_used_bytes.map(|used| format!("{} in use", output::amount(used))));
    parts.extend(measured.temperature_celsius.map(|celsius| format!("{celsius} °C")));
    parts.extend(measured.encoder_sessions.map(|count| format!("{count} encoding")));
    parts.join(", ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wolf_tells_what_it_has_and_what_was_measured() {
        let device = types::GpuDevice {
            id: "GPU-1".into(),
            model: "RTX".into(),
            memory_bytes: Some(8 << 30),
            encoder_sessions: Some(8),
            encoder_codecs: vec![types::EncoderCodec::Hevc.into()],
            ..Default::default()
        };
        let blind = types::GpuDevice {
            id: "0000:03:00.0".into(),
            model: "Arc".into(),
            ..Default::default()
        };
        let wolf = pb::Wolf {
            capacity: Some(pb::WolfCapacity {
                gpus: vec![device, blind],
                docker_modes: vec![
                    types::DockerMode::None.into(),
                    types::DockerMode::Nested.into(),
                ],
                mount_paths: vec!["/srv".into(), "/data".into()],
                ..Default::default()
            }),
            gpu_telemetry: vec![
                types::GpuTelemetry {
                    id: "GPU-1".into(),
                    state: types::TelemetryState::Ok.into(),
                    utilisation_percent: Some(0),
                    ..Default::default()
                },
                types::GpuTelemetry {
                    id: "0000:03:00.0".into(),
                    state: types::TelemetryState::Failed.into(),
                    message: "gone".into(),
                    ..Default::default()
                },
            ],
            disk_pressure: "3 GiB left".into(),
            ..Default::default()
        };
        let facts = facts(&wolf);
        let fact = |name: &str| facts.iter().find(|fact| fact.0 == name).unwrap().1.clone();
        assert_eq!(
            fact("gpus"),
            "RTX (GPU-1), 8.00 GiB, 8 encoder sessions (hevc), ok, 0 % busy\nArc (0000:03:00.0), failed: gone"
        );
        assert_eq!(fact("docker modes"), "none, nested");
        assert_eq!(fact("mount paths"), "/srv\n/data");
        assert_eq!(fact("disk pressure"), "3 GiB left");
        assert_eq!(fact("encoders"), "", "what is not known is not told");
    }
}
