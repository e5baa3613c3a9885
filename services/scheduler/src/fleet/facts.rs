//! What the registry says of a wolf, in the words of placement.

use std::collections::BTreeSet;
use std::sync::Arc;

use wolfpack_proto::registry::v1::{Wolf, WolfState};
use wolfpack_proto::types::v1::{
    DockerMode as WireDocker, EncoderCodec as WireCodec, GpuVendor as WireVendor, TelemetryState,
};
use wolfpack_types::capacity::{Capacity, Device, EncoderCodec, GpuVendor};
use wolfpack_types::{DockerMode, ParseIdError, ProjectId, WolfId};

use crate::domain::WolfFacts;
use crate::placement::{Health, Offer, image_name};

/// The vendor of a wire value; `None` for any or unknown.
pub(crate) fn vendor(wire: i32) -> Option<GpuVendor> {
    match WireVendor::try_from(wire) {
        Ok(WireVendor::Nvidia) => Some(GpuVendor::Nvidia),
        Ok(WireVendor::Amd) => Some(GpuVendor::Amd),
        Ok(WireVendor::Intel) => Some(GpuVendor::Intel),
        Ok(WireVendor::Unspecified) | Err(_) => None,
    }
}

/// The codec of a wire value; `None` for any or unknown.
pub(crate) fn codec(wire: i32) -> Option<EncoderCodec> {
    match WireCodec::try_from(wire) {
        Ok(WireCodec::H264) => Some(EncoderCodec::H264),
        Ok(WireCodec::Hevc) => Some(EncoderCodec::Hevc),
        Ok(WireCodec::Av1) => Some(EncoderCodec::Av1),
        Ok(WireCodec::Unspecified) | Err(_) => None,
    }
}

/// The Docker mode of a wire value; an unknown one is an error for callers and
/// not offered by wolves.
pub(crate) fn docker_mode(wire: i32) -> Option<DockerMode> {
    match WireDocker::try_from(wire) {
        Ok(WireDocker::Unspecified | WireDocker::None) => Some(DockerMode::None),
        Ok(WireDocker::Nested) => Some(DockerMode::Nested),
        Ok(WireDocker::Shared) => Some(DockerMode::Shared),
        Err(_) => None,
    }
}

/// The facts of a wolf.
///
/// # Errors
/// When a name in it is none of ours. A project that cannot be read is an
/// error and never a shared wolf.
pub fn facts(wolf: Wolf) -> Result<WolfFacts, ParseIdError> {
    let id = WolfId::from_name(&wolf.name)?;
    let project =
        if wolf.project.is_empty() { None } else { Some(ProjectId::from_name(&wolf.project)?) };
    let health = match WolfState::try_from(wolf.state) {
        Ok(WolfState::Online) => Health::Online,
        Ok(WolfState::Suspect) => Health::Suspect,
        Ok(WolfState::Offline) => Health::Offline,
        Ok(WolfState::Degraded) => Health::Degraded,
        Ok(WolfState::Unspecified) | Err(_) => Health::Unknown,
    };
    let capacity = wolf.capacity.unwrap_or_default();
    let resources = capacity.resources.unwrap_or_default();
    let failed: BTreeSet<String> = wolf
        .gpu_telemetry
        .into_iter()
        .filter(|gpu| gpu.state() == TelemetryState::Failed)
        .map(|gpu| gpu.id)
        .collect();
    let images = wolf.images.unwrap_or_default().images.into_iter();
    let offer = Offer {
        docker_modes: capacity.docker_modes.iter().filter_map(|mode| docker_mode(*mode)).collect(),
        mount_paths: capacity.mount_paths,
        mounts_every_project: capacity.mounts_every_project,
        disk_pressure: wolf.disk_pressure,
        images: Arc::new(
            images.flat_map(|image| image.references).map(|name| image_name(&name)).collect(),
        ),
    };
    let mut seen = BTreeSet::new();
    let devices = capacity
        .gpus
        .into_iter()
        .filter(|gpu| seen.insert(gpu.id.clone()))
        .map(|gpu| Device {
            vendor: vendor(gpu.vendor),
            unhealthy: failed.contains(&gpu.id),
            id: gpu.id,
            model: gpu.model,
            memory_bytes: gpu.memory_bytes,
            encoder_sessions: gpu.encoder_sessions,
            encoder_pooled: gpu.encoder_pooled,
            encoder_codecs: gpu.encoder_codecs.into_iter().filter_map(codec).collect(),
        })
        .collect();
    let display_name =
        if wolf.display_name.is_empty() { id.to_string() } else { wolf.display_name };
    Ok(WolfFacts {
        id,
        display_name,
        project,
        labels: wolf.labels,
        health,
        tunnel_attached: wolf.tunnel_attached,
        offer,
        capacity: Capacity {
            cpu_milli: resources.cpu_milli.map(u64::from),
            memory_bytes: resources.memory_bytes,
            disk_bytes: resources.disk_bytes,
            desktop_slots: capacity.desktop_slots,
            devices,
            encoder_sessions: capacity.encoder_sessions,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::registry::v1::{WolfCapacity, WolfImage, WolfImages};
    use wolfpack_proto::types::v1::{GpuDevice, GpuTelemetry};

    #[test]
    fn what_is_absent_stays_unknown_and_odd_names_are_errors() {
        let wolf = Wolf { name: "wolves/a".into(), state: 77, ..Wolf::default() };
        let read = facts(wolf.clone()).unwrap();
        assert_eq!(read.capacity, Capacity::default());
        assert_eq!(read.health, Health::Unknown);
        assert_eq!(read.display_name, "a");
        assert_eq!(read.project, None);
        let odd = Wolf { project: "users/x".into(), ..wolf.clone() };
        assert!(facts(odd).is_err(), "a project that cannot be read is never a shared wolf");
        let gpu = GpuDevice { id: "g".into(), ..GpuDevice::default() };
        let twice = WolfCapacity { gpus: vec![gpu.clone(), gpu], ..WolfCapacity::default() };
        let read = facts(Wolf { capacity: Some(twice), ..wolf }).unwrap();
        assert_eq!(read.capacity.devices.len(), 1);
    }

    #[test]
    fn a_failed_device_is_unhealthy_and_a_stale_one_is_not() {
        let gpu = |id: &str| GpuDevice { id: id.into(), ..GpuDevice::default() };
        let told = |id: &str, state: TelemetryState| GpuTelemetry {
            id: id.into(),
            state: state.into(),
            ..GpuTelemetry::default()
        };
        let capacity = WolfCapacity {
            gpus: ["a", "b", "c"].map(gpu).to_vec(),
            docker_modes: vec![WireDocker::Nested.into(), 99],
            mount_paths: vec!["/srv".into()],
            mounts_every_project: true,
            encoder_sessions: Some(8),
            ..WolfCapacity::default()
        };
        let image =
            WolfImage { references: vec!["docker.io/library/x".into()], ..WolfImage::default() };
        let read = facts(Wolf {
            name: "wolves/a".into(),
            capacity: Some(capacity),
            gpu_telemetry: vec![
                told("a", TelemetryState::Failed),
                told("b", TelemetryState::Stale),
            ],
            images: Some(WolfImages { images: vec![image] }),
            disk_pressure: "full".into(),
            ..Wolf::default()
        })
        .unwrap();
        let unhealthy: Vec<bool> = read.capacity.devices.iter().map(|gpu| gpu.unhealthy).collect();
        assert_eq!(unhealthy, [true, false, false]);
        assert_eq!(read.capacity.encoder_sessions, Some(8));
        assert_eq!(read.offer.docker_modes, BTreeSet::from([DockerMode::Nested]));
        assert!(read.offer.holds("x:latest") && !read.offer.holds(""));
        assert_eq!((read.offer.disk_pressure.as_str(), read.offer.mount_paths.len()), ("full", 1));
        assert!(read.offer.mounts_every_project);
    }
}
