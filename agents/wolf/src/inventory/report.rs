//! The inventory as JSON, to look at and to keep.

use serde_json::{Value, json};
use wolfpack_proto::types::v1::GpuTelemetry;

use super::Inventory;
use super::gpu::encoders::sources;

impl Inventory {
    /// All of it, with how containers get at each device and what was measured.
    #[must_use]
    pub fn report(&self) -> Value {
        let gpus: Vec<Value> = self
            .gpus
            .gpus
            .iter()
            .map(|gpu| {
                let mut shown = json!(gpu);
                let told = self.gpus.telemetry.iter().find(|told| told.id == gpu.id);
                shown["telemetry"] = told.map_or(Value::Null, telemetry);
                shown
            })
            .collect();
        json!({
            "cpu_milli": self.cpu_milli,
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "pids": self.pids,
            "desktop_slots": self.desktop_slots,
            "docker_modes": self.docker_modes,
            "mount_paths": self.mount_paths,
            "mounts_every_project": self.mounts_every_project,
            "host_encoder_sessions": self.gpus.encoder_pool(),
            "gpu_notice": self.gpus.notice(),
            "gpus": gpus,
            "encoder_sources": sources(),
        })
    }
}

fn telemetry(told: &GpuTelemetry) -> Value {
    let state = told.state().as_str_name().trim_start_matches("TELEMETRY_STATE_").to_lowercase();
    json!({
        "state": state,
        "message": told.message,
        "utilisation_percent": told.utilisation_percent,
        "memory_used_bytes": told.memory_used_bytes,
        "temperature_celsius": told.temperature_celsius,
        "encoder_sessions": told.encoder_sessions,
    })
}
