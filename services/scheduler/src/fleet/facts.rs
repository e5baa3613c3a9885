//! What the registry says of a wolf, in the words of placement.

use std::collections::BTreeSet;

use wolfpack_proto::registry::v1::{Wolf, WolfState};
use wolfpack_proto::types::v1::GpuVendor as WireVendor;
use wolfpack_types::capacity::{Capacity, Device, GpuVendor};
use wolfpack_types::{ParseIdError, ProjectId, WolfId};

use crate::domain::WolfFacts;
use crate::placement::Health;

/// The vendor of a wire value; `None` for any or unknown.
pub(crate) fn vendor(wire: i32) -> Option<GpuVendor> {
    match WireVendor::try_from(wire) {
        Ok(WireVendor::Nvidia) => Some(GpuVendor::Nvidia),
        Ok(WireVendor::Amd) => Some(GpuVendor::Amd),
        Ok(WireVendor::Intel) => Some(GpuVendor::Intel),
        Ok(WireVendor::Unspecified) | Err(_) => None,
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
    let mut seen = BTreeSet::new();
    let devices = capacity
        .gpus
        .into_iter()
        .filter(|gpu| seen.insert(gpu.id.clone()))
        .map(|gpu| Device {
            vendor: vendor(gpu.vendor),
            id: gpu.id,
            model: gpu.model,
            memory_bytes: gpu.memory_bytes,
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
        capacity: Capacity {
            cpu_milli: resources.cpu_milli.map(u64::from),
            memory_bytes: resources.memory_bytes,
            disk_bytes: resources.disk_bytes,
            desktop_slots: capacity.desktop_slots,
            devices,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::registry::v1::WolfCapacity;
    use wolfpack_proto::types::v1::GpuDevice;

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
}
