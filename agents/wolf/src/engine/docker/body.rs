//! The pure step from a [`ContainerSpec`] to the request an engine takes.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountBindOptions, MountType,
    MountVolumeOptions, RestartPolicy, RestartPolicyNameEnum,
};
use wolfpack_types::DockerMode;

use crate::sandbox::{ContainerSpec, GpuAccess, MountedKind, NVIDIA_VISIBLE};

/// What the sandbox's agent needs as PID 1 to run the image's user; dropped
/// from everything that user runs.
const CAPABILITIES: [&str; 7] =
    ["SETUID", "SETGID", "SETPCAP", "CHOWN", "KILL", "DAC_OVERRIDE", "FOWNER"];
/// What the vendor's runtime brings into the container.
const NVIDIA_CAPABILITIES: [&str; 6] =
    ["gpu", "compute", "utility", "video", "graphics", "display"];
/// What an engine gives by default, and what an engine needs that runs in the
/// sandbox's own user namespace: its mounts and its networks. None of them
/// reaches beyond that namespace.
const NESTED_CAPABILITIES: [&str; 16] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "NET_ADMIN",
    "SYS_ADMIN",
];
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
        env: Some(environment(spec)),
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
    let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
    // With the wolf's engine the container itself is like any other: the
    // socket is a file in its boot directory.
    let nested = spec.docker() == DockerMode::Nested;
    HostConfig {
        nano_cpus: bytes(limits.cpu_milli.saturating_mul(1_000_000)),
        memory: bytes(limits.memory_bytes),
        memory_swap: bytes(limits.memory_bytes),
        pids_limit: Some(i64::from(limits.pids)),
        shm_size: bytes(limits.shared_memory_bytes),
        cap_drop: words(&["ALL"]),
        cap_add: words(if nested { &NESTED_CAPABILITIES } else { &CAPABILITIES }),
        security_opt: words(if nested {
            &["seccomp=unconfined", "apparmor=unconfined"]
        } else {
            &["no-new-privileges"]
        }),
        // While anything is masked the kernel refuses fresh proc and sysfs
        // mounts in user namespaces, so no container would start inside.
        masked_paths: nested.then(Vec::new),
        readonly_paths: nested.then(Vec::new),
        storage_opt: spec
            .disk_quota()
            .map(|bytes| HashMap::from([("size".to_owned(), bytes.to_string())])),
        privileged: Some(false),
        publish_all_ports: Some(false),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        network_mode: Some(spec.network().to_owned()),
        extra_hosts: Some(spec.extra_hosts()),
        mounts: Some(mounts(spec)),
        devices: Some(device_nodes(spec)),
        group_add: Some(groups(spec)),
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
        .map(|mounted| {
            let volume = mounted.kind == MountedKind::Volume;
            Mount {
                typ: Some(if volume { MountType::VOLUME } else { MountType::BIND }),
                source: Some(mounted.source),
                target: Some(mounted.target),
                read_only: Some(mounted.read_only),
                // What is mounted below a folder of the host is not shown.
                bind_options: (mounted.kind == MountedKind::Host).then(|| MountBindOptions {
                    non_recursive: Some(true),
                    ..MountBindOptions::default()
                }),
                // An image's own files under it are not copied into it.
                volume_options: volume.then(|| MountVolumeOptions {
                    no_copy: Some(true),
                    ..MountVolumeOptions::default()
                }),
                ..Mount::default()
            }
        })
        .collect()
}

/// A name without a value removes the image's variable.
fn environment(spec: &ContainerSpec) -> Vec<String> {
    let visible = format!("{NVIDIA_VISIBLE}={}", spec.nvidia_visible());
    spec.dropped_env().iter().cloned().chain([visible]).collect()
}

/// The groups that may use its device nodes.
fn groups(spec: &ContainerSpec) -> Vec<String> {
    let groups = spec.gpus().iter().filter_map(|gpu| match gpu {
        GpuAccess::Nodes { groups, .. } => Some(groups),
        GpuAccess::Cdi { .. } | GpuAccess::Nvidia { .. } => None,
    });
    let groups: BTreeSet<u32> = groups.flatten().copied().collect();
    groups.into_iter().map(|group| group.to_string()).collect()
}

fn device_nodes(spec: &ContainerSpec) -> Vec<DeviceMapping> {
    let nodes = spec.gpus().iter().filter_map(|gpu| match gpu {
        GpuAccess::Nodes { nodes, .. } => Some(nodes),
        GpuAccess::Cdi { .. } | GpuAccess::Nvidia { .. } => None,
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

/// Exactly the devices of the lease, by name: never a number of them.
fn device_requests(spec: &ContainerSpec) -> Vec<DeviceRequest> {
    let request = |driver: &str, ids: Vec<String>, capabilities: Option<Vec<Vec<String>>>| {
        (!ids.is_empty()).then(|| DeviceRequest {
            driver: Some(driver.to_owned()),
            count: None,
            device_ids: Some(ids),
            capabilities,
            options: None,
        })
    };
    let ids = |of: fn(&GpuAccess) -> Option<&String>| -> Vec<String> {
        spec.gpus().iter().filter_map(of).cloned().collect()
    };
    let by_cdi = ids(|gpu| match gpu {
        GpuAccess::Cdi { name, .. } => Some(name),
        GpuAccess::Nvidia { .. } | GpuAccess::Nodes { .. } => None,
    });
    let by_runtime = ids(|gpu| match gpu {
        GpuAccess::Nvidia { id } => Some(id),
        GpuAccess::Cdi { .. } | GpuAccess::Nodes { .. } => None,
    });
    let capabilities = vec![NVIDIA_CAPABILITIES.map(str::to_owned).to_vec()];
    let requests =
        [request("cdi", by_cdi, None), request("nvidia", by_runtime, Some(capabilities))];
    requests.into_iter().flatten().collect()
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
