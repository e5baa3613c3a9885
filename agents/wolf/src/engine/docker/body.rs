//! The pure step from a [`ContainerSpec`] to the request an engine takes.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountType, RestartPolicy,
    RestartPolicyNameEnum,
};

use crate::sandbox::{ContainerSpec, GpuAccess};

/// What the sandbox's agent needs as PID 1 to run the image's user; dropped
/// from everything that user runs.
const CAPABILITIES: [&str; 7] =
    ["SETUID", "SETGID", "SETPCAP", "CHOWN", "KILL", "DAC_OVERRIDE", "FOWNER"];
/// What the vendor's runtime brings into the container.
const NVIDIA_CAPABILITIES: [&str; 6] =
    ["gpu", "compute", "utility", "video", "graphics", "display"];
const LOG_FILES: &str = "3";
const LOG_FILE_SIZE: &str = "10m";
const STOP_SECONDS: i64 = 10;

/// The request that makes this container.
pub(super) fn body(spec: &ContainerSpec) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image().to_owned()),
        hostname: spec.hostname().map(str::to_owned),
        // Whatever the image says: the agent runs the image's user itself.
        user: Some("0:0".to_owned()),
        entrypoint: Some(spec.entrypoint()),
        cmd: Some(Vec::new()),
        // A name without a value removes the image's variable.
        env: Some(spec.dropped_env().iter().cloned().collect()),
        labels: Some(spec.labels().clone().into_iter().collect()),
        tty: Some(false),
        open_stdin: Some(false),
        stop_signal: Some("SIGTERM".to_owned()),
        stop_timeout: Some(STOP_SECONDS),
        // An image's check would run beside the agent, where nobody reaps it.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host_config(spec)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let limits = spec.limits();
    let bytes = |amount: u64| Some(i64::try_from(amount).unwrap_or(i64::MAX));
    HostConfig {
        nano_cpus: bytes(limits.cpu_milli.saturating_mul(1_000_000)),
        memory: bytes(limits.memory_bytes),
        memory_swap: bytes(limits.memory_bytes),
        pids_limit: Some(i64::from(limits.pids)),
        shm_size: bytes(limits.shared_memory_bytes),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        publish_all_ports: Some(false),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        network_mode: Some(spec.network().to_owned()),
        extra_hosts: Some(spec.extra_hosts()),
        mounts: Some(mounts(spec)),
        devices: Some(device_nodes(spec)),
        device_requests: Some(device_requests(spec)),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_FILE_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        ..HostConfig::default()
    }
}

fn mounts(spec: &ContainerSpec) -> Vec<Mount> {
    spec.mounts()
        .into_iter()
        .map(|(source, target, read_only)| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.to_string_lossy().into_owned()),
            target: Some(target),
            read_only: Some(read_only),
            ..Mount::default()
        })
        .collect()
}

fn device_nodes(spec: &ContainerSpec) -> Vec<DeviceMapping> {
    let nodes = spec.gpus().iter().filter_map(|gpu| match gpu {
        GpuAccess::Nodes(nodes) => Some(nodes),
        GpuAccess::Nvidia { .. } => None,
    });
    let mut paths: Vec<String> =
        nodes.flatten().map(|node| node.to_string_lossy().into_owned()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .map(|path| DeviceMapping {
            path_on_host: Some(path.clone()),
            path_in_container: Some(path),
            cgroup_permissions: Some("rw".to_owned()),
        })
        .collect()
}

fn device_requests(spec: &ContainerSpec) -> Vec<DeviceRequest> {
    let ids: Vec<String> = spec
        .gpus()
        .iter()
        .filter_map(|gpu| match gpu {
            GpuAccess::Nvidia { id } => Some(id.clone()),
            GpuAccess::Nodes(_) => None,
        })
        .collect();
    if ids.is_empty() {
        return Vec::new();
    }
    vec![DeviceRequest {
        driver: Some("nvidia".to_owned()),
        count: None,
        device_ids: Some(ids),
        capabilities: Some(vec![NVIDIA_CAPABILITIES.map(str::to_owned).to_vec()]),
        options: None,
    }]
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
