//! What must be true of every sandbox's container, as a predicate over the
//! engine's own `HostConfig` JSON: of the request before it is sent, and of
//! what `docker inspect` shows afterwards. Written against the engine's fields,
//! not against the builder, and closed: a field that is not named here must be
//! at the engine's default.
//!
//! With Docker NESTED a sandbox is root of a user namespace of its own and may
//! do there what an engine must; nothing else is opened. With SHARED the
//! container is as closed as without Docker: its door is a file.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wolfpack_types::DockerMode;
use wolfpack_types::sandbox_boot::{DOCKER_DATA, INTERNAL_HOST};

use crate::mounts;

/// What a container may differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// What it has of Docker.
    pub docker: DockerMode,
    /// The paths of the host that may be mounted in it, beside the agent's own.
    pub mounts: Vec<PathBuf>,
}

impl Policy {
    /// A container with this of Docker, and nothing of the host.
    #[must_use]
    pub fn of(docker: DockerMode) -> Self {
        Self { docker, mounts: Vec::new() }
    }
}

const CAPABILITIES: [&str; 7] =
    ["SETUID", "SETGID", "SETPCAP", "CHOWN", "KILL", "DAC_OVERRIDE", "FOWNER"];
/// Those that only reach what belongs to the sandbox's own user namespace.
const NESTED_CAPABILITIES: [&str; 9] = [
    "AUDIT_WRITE",
    "FSETID",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SYS_CHROOT",
    "NET_ADMIN",
    "SYS_ADMIN",
];
const NESTED_SECURITY: [&str; 2] = ["seccomp=unconfined", "apparmor=unconfined"];
const RUNTIMES: [&str; 3] = ["", "runc", "nvidia"];
const MOUNT_TARGETS: [(&str, bool); 2] = [("/run/wolfpack", false), ("/run/wolfpack/bin", true)];
/// Fields with a rule below, and fields that harm nobody whatever they are.
const KNOWN: [&str; 28] = [
    "GroupAdd",
    "StorageOpt",
    "NanoCpus",
    "Memory",
    "MemorySwap",
    "PidsLimit",
    "ShmSize",
    "CapDrop",
    "CapAdd",
    "SecurityOpt",
    "IpcMode",
    "CgroupnsMode",
    "NetworkMode",
    "ExtraHosts",
    "Mounts",
    "Devices",
    "DeviceRequests",
    "LogConfig",
    "RestartPolicy",
    "MaskedPaths",
    "ReadonlyPaths",
    "Runtime",
    "PidMode",
    "UTSMode",
    "UsernsMode",
    "OomKillDisable",
    "MemorySwappiness",
    "Isolation",
];

/// Every rule that this `HostConfig` breaks; empty for a hardened container.
#[must_use]
pub fn violations(host_config: &Value, policy: &Policy) -> Vec<String> {
    let nested = policy.docker == DockerMode::Nested;
    let mut broken = Vec::new();
    let mut rule = |holds: bool, words: String| {
        if !holds {
            broken.push(words);
        }
    };
    let field = |name: &str| host_config.get(name).unwrap_or(&Value::Null);
    let number = |name: &str| field(name).as_i64().unwrap_or(0);

    rule(number("NanoCpus") > 0, "the cpu is not limited".into());
    rule(number("Memory") > 0, "the memory is not limited".into());
    rule(number("MemorySwap") == number("Memory"), "swap is not limited to none".into());
    rule(number("PidsLimit") > 0, "processes are not limited".into());
    let shared = number("ShmSize");
    rule(
        (1..=number("Memory")).contains(&shared),
        format!("shared memory of {shared} bytes is not within the memory"),
    );
    // There is no swap to lean to: whatever is said here is not ours.
    rule(
        matches!(field("MemorySwappiness").as_i64(), None | Some(-1)),
        "the swappiness is changed".into(),
    );
    let runtime = field("Runtime").as_str().unwrap_or("");
    rule(RUNTIMES.contains(&runtime), format!("the runtime is {runtime:?}"));
    rule(field("OomKillDisable").as_bool() != Some(true), "the oom killer is off".into());

    rule(strings(field("CapDrop")) == ["ALL"], "not all capabilities are dropped".into());
    for capability in strings(field("CapAdd")) {
        let name = capability.strip_prefix("CAP_").unwrap_or(capability);
        let allowed =
            CAPABILITIES.contains(&name) || (nested && NESTED_CAPABILITIES.contains(&name));
        rule(allowed, format!("capability {capability} is added"));
    }
    let options = strings(field("SecurityOpt"));
    let hardened = if nested {
        options.iter().all(|option| NESTED_SECURITY.contains(option))
    } else {
        options.len() == 1 && matches!(options[0], "no-new-privileges" | "no-new-privileges:true")
    };
    rule(hardened, format!("security options are {options:?}"));
    for masked in ["MaskedPaths", "ReadonlyPaths"] {
        // An empty list takes the engine's own away; absent keeps them.
        let kept = field(masked).as_array().is_none_or(|list| !list.is_empty());
        rule(nested || kept, format!("{masked} is empty"));
    }
    for (name, value) in field("StorageOpt").as_object().into_iter().flatten() {
        let bytes = value.as_str().and_then(|text| text.parse::<u64>().ok());
        rule(
            name == "size" && bytes.is_some_and(|bytes| bytes > 0),
            format!("the storage option {name} is {value}"),
        );
    }

    for (name, allowed) in [
        ("PidMode", ["", "private"]),
        ("UTSMode", ["", "private"]),
        ("UsernsMode", ["", "private"]),
        ("IpcMode", ["none", "private"]),
        ("CgroupnsMode", ["private", "private"]),
        ("Isolation", ["", "default"]),
    ] {
        let mode = field(name).as_str().unwrap_or("");
        rule(allowed.contains(&mode), format!("{name} is {mode:?}"));
    }
    let network = field("NetworkMode").as_str().unwrap_or("");
    rule(
        !matches!(network, "" | "host" | "bridge" | "default")
            && !network.starts_with("container:"),
        format!("the network is {network:?}"),
    );

    for host in strings(field("ExtraHosts")) {
        let ours = host.starts_with(&format!("{INTERNAL_HOST}:"));
        rule(ours, format!("the name {host:?} is added"));
    }
    for mount in list(field("Mounts")) {
        rule(mount_ok(mount, policy), format!("mount {mount}"));
    }
    for device in list(field("Devices")) {
        let path = device.get("PathOnHost").and_then(Value::as_str).unwrap_or("");
        rule(
            (path.starts_with("/dev/dri/") || path == "/dev/kfd") && !path.contains(".."),
            format!("device {path:?}"),
        );
    }
    for request in list(field("DeviceRequests")) {
        let ids = strings(request.get("DeviceIDs").unwrap_or(&Value::Null));
        let counted = request.get("Count").and_then(Value::as_i64).unwrap_or(0) != 0;
        let one = |id: &&str| !matches!(*id, "" | "all" | "none" | "void");
        let named = !ids.is_empty()
            && match request.get("Driver").and_then(Value::as_str) {
                Some("nvidia") => ids.iter().all(one),
                Some("cdi") => ids.iter().all(|id| {
                    let parts = id.split_once('=');
                    parts.is_some_and(|(kind, name)| kind.contains('/') && one(&name))
                }),
                _ => false,
            };
        rule(named && !counted, format!("device request {request}"));
    }
    for group in strings(field("GroupAdd")) {
        // Those of device nodes, and only beside them; 0 is root's.
        let number = group.parse::<u32>().is_ok_and(|group| group != 0);
        rule(number && !list(field("Devices")).is_empty(), format!("group {group:?} is added"));
    }

    let log = field("LogConfig");
    let log_option = |name: &str| log.get("Config").and_then(|config| config.get(name)).is_some();
    rule(
        log.get("Type").and_then(Value::as_str) == Some("json-file")
            && log_option("max-size")
            && log_option("max-file"),
        "logs are not bounded".into(),
    );
    let restart = field("RestartPolicy").get("Name").and_then(Value::as_str).unwrap_or("");
    rule(matches!(restart, "" | "no"), format!("it restarts: {restart:?}"));

    match host_config.as_object() {
        Some(fields) => {
            for (name, value) in fields {
                rule(
                    KNOWN.contains(&name.as_str()) || is_default(value),
                    format!("{name} is {value}"),
                );
            }
        }
        None => rule(false, "there is no host configuration".into()),
    }
    broken
}

fn mount_ok(mount: &Value, policy: &Policy) -> bool {
    let text = |name: &str| mount.get(name).and_then(Value::as_str).unwrap_or("");
    let read_only = mount.get("ReadOnly").and_then(Value::as_bool).unwrap_or(false);
    let (kind, source, target) = (text("Type"), text("Source"), text("Target"));
    let no_options = |allowed: Option<(&str, &str)>| {
        let fields = mount.as_object().into_iter().flatten();
        let of = |options: &Value, name: &str| {
            options
                .as_object()
                .into_iter()
                .flatten()
                .all(|(field, value)| field == name || is_default(value))
        };
        fields.into_iter().all(|(field, value)| match (field.as_str(), allowed) {
            ("Type" | "Source" | "Target" | "ReadOnly", _) => true,
            (field, Some((options, name))) if field == options => of(value, name),
            _ => is_default(value),
        })
    };
    match kind {
        "bind" if MOUNT_TARGETS.contains(&(target, read_only)) => {
            source.starts_with('/')
                && !source.contains("..")
                && !source.ends_with(".sock")
                && source.matches('/').count() >= 2
                && no_options(None)
        }
        "bind" => {
            policy.mounts.iter().any(|allowed| allowed == Path::new(source))
                && target.starts_with('/')
                && !target.contains("..")
                && !mounts::reserved(target)
                && no_options(Some(("BindOptions", "NonRecursive")))
        }
        "volume" => {
            policy.docker == DockerMode::Nested
                && target == DOCKER_DATA
                && !read_only
                && source.starts_with("wolfpack-")
                && no_options(Some(("VolumeOptions", "NoCopy")))
        }
        _ => false,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> Vec<&str> {
    list(value).iter().filter_map(Value::as_str).collect()
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_default),
        Value::Object(fields) => fields.values().all(is_default),
    }
}
