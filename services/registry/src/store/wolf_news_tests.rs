use std::time::Duration;

use wolfpack_proto::registry::v1::WolfImage;
use wolfpack_proto::types::v1::GpuDevice;

use super::*;

const TIMING: Timing = Timing { interval: Duration::from_secs(10) };

fn gpu(id: &str, state: TelemetryState, busy: Option<u32>) -> GpuTelemetry {
    GpuTelemetry {
        id: id.to_owned(),
        state: state.into(),
        utilisation_percent: busy,
        message: "words".to_owned(),
        ..GpuTelemetry::default()
    }
}

fn row(gpus: Vec<GpuTelemetry>, failed: &[&str]) -> WolfRow {
    let device = |id: &str| GpuDevice { id: id.to_owned(), ..GpuDevice::default() };
    let capacity = WolfCapacity {
        gpus: vec![device("a"), device("b")],
        gpu_notice: "an old toolkit".to_owned(),
        ..WolfCapacity::default()
    };
    WolfRow {
        id: "w".to_owned(),
        project: None,
        display_name: String::new(),
        labels: "{}".to_owned(),
        capacity: Some(capacity.encode_to_vec()),
        engine: None,
        agent_version: String::new(),
        instance_id: Some("i".to_owned()),
        heartbeat_stream: 1,
        last_heartbeat_time: Some(1_000_000_000),
        engine_fault: String::new(),
        used_cpu_milli: None,
        used_memory_bytes: None,
        used_disk_bytes: None,
        used_pids: None,
        running_sandboxes: None,
        tunnel_attached: true,
        state: "ONLINE".to_owned(),
        state_message: String::new(),
        revision: 1,
        create_time: 0,
        update_time: 0,
        delete_time: None,
        gpu_telemetry: telemetry(gpus),
        gpus_failed: serde_json::json!(failed).to_string(),
        images: None,
        disk_pressure: String::new(),
    }
}

#[test]
fn values_are_there_while_fresh_and_absent_after_three_missed_beats() {
    let row =
        row(vec![gpu("a", TelemetryState::Ok, Some(7)), gpu("x", TelemetryState::Ok, None)], &[]);
    let at = |seconds: u64| Micros(1_000_000_000).plus(Duration::from_secs(seconds));
    let told = row.with_telemetry(at(29), TIMING).unwrap().gpu_telemetry;
    assert_eq!(told, [gpu("a", TelemetryState::Ok, Some(7))], "one it does not have is dropped");
    let told = row.with_telemetry(at(30), TIMING).unwrap().gpu_telemetry;
    assert_eq!((told[0].state(), told[0].utilisation_percent), (TelemetryState::Stale, None));
    let watched = row.to_proto().unwrap();
    assert_eq!(watched.gpu_telemetry, [gpu("a", TelemetryState::Ok, None)], "without values");
    assert_eq!(watched.state_message, "an old toolkit");
}

#[test]
fn a_failure_stays_until_it_is_taken_back_and_never_shows_values() {
    let row = row(vec![gpu("a", TelemetryState::Failed, Some(0))], &["a", "b"]);
    let later = Micros(1_000_000_000).plus(Duration::from_secs(99));
    for wolf in [row.to_proto().unwrap(), row.with_telemetry(later, TIMING).unwrap()] {
        let told: Vec<_> = wolf
            .gpu_telemetry
            .iter()
            .map(|gpu| (gpu.id.as_str(), gpu.state(), gpu.utilisation_percent))
            .collect();
        let failed = TelemetryState::Failed;
        assert_eq!(told, [("a", failed, None), ("b", failed, None)]);
    }
}

#[test]
fn only_what_placement_needs_is_news() {
    let images = |name: &str| WolfImages {
        images: vec![WolfImage { references: vec![name.to_owned()], ..WolfImage::default() }],
    };
    let beat = HeartbeatRequest {
        gpus: vec![gpu("b", TelemetryState::Failed, None), gpu("a", TelemetryState::Ok, Some(1))],
        images: Some(images("x")),
        ..HeartbeatRequest::default()
    };
    let first = News::of(&beat);
    assert_eq!(first.gpus_failed, ["b"]);
    let busier = HeartbeatRequest {
        gpus: vec![gpu("a", TelemetryState::Ok, Some(99)), gpu("b", TelemetryState::Failed, None)],
        images: None,
        ..beat.clone()
    };
    let second = News::of(&busier);
    assert!(second.is_within(&first), "the load is no news, absent images are those before");
    assert_eq!(second.clone().over(Some(first.clone())).images, first.images);
    let well = HeartbeatRequest { gpus: Vec::new(), ..busier.clone() };
    assert!(!News::of(&well).is_within(&first));
    let other = HeartbeatRequest { images: Some(images("y")), ..busier.clone() };
    assert!(!News::of(&other).is_within(&first));
    let full = HeartbeatRequest { disk_pressure: "full".to_owned(), ..busier };
    assert!(!News::of(&full).is_within(&first));
}
