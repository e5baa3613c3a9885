use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};
use wolfpack_types::capacity::{Grant, Holding};
use wolfpack_types::{ExecutionId, ProjectId, ReservationId, SandboxId, WolfId};

use super::*;
use crate::engine::hardening::{Policy, violations};
use crate::engine::{ImageConfig, Network};
use crate::sandbox::{DockerAccess, Goods, HostMount, Identity, Parts};

fn any_gpu() -> impl Strategy<Value = GpuAccess> {
    prop_oneof![
        "[A-Za-z0-9:.-]{5,40}".prop_map(|id| GpuAccess::Nvidia { id }),
        ("[A-Za-z0-9:-]{4,40}", any::<bool>()).prop_map(|(id, nvidia)| GpuAccess::Cdi {
            name: format!("vendor.com/gpu={id}"),
            nvidia: nvidia.then_some(id),
        }),
        (0u8..4, prop::collection::vec(1u32..2000, 0..3)).prop_map(|(n, groups)| {
            GpuAccess::Nodes {
                nodes: vec![
                    PathBuf::from(format!("/dev/dri/renderD{}", 128 + u32::from(n))),
                    PathBuf::from("/dev/kfd"),
                ],
                groups,
            }
        }),
    ]
}

fn any_image() -> impl Strategy<Value = ImageConfig> {
    let word = "[ -~]{0,20}";
    (
        prop::collection::vec(word, 0..3),
        prop::collection::vec(("(LD_[A-Z]{1,8}|[A-Z_]{1,10})", word), 0..6),
        word,
        word,
    )
        .prop_map(|(entrypoint, env, user, working_dir)| ImageConfig {
            id: "sha256:0".to_owned(),
            command: entrypoint.clone(),
            entrypoint,
            env,
            user,
            working_dir,
        })
}

fn any_goods() -> impl Strategy<Value = Goods> {
    (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<bool>()).prop_map(
        |(cpu_milli, memory_bytes, disk_bytes, pids, desktop)| Goods {
            holding: Holding {
                cpu_milli,
                memory_bytes,
                disk_bytes,
                desktop,
                grant: Grant::default(),
            },
            pids,
        },
    )
}

fn any_docker() -> impl Strategy<Value = DockerMode> {
    prop_oneof![Just(DockerMode::None), Just(DockerMode::Nested), Just(DockerMode::Shared)]
}

fn any_mount() -> impl Strategy<Value = HostMount> {
    ("[a-z]{1,8}", "[a-z]{1,8}", any::<bool>()).prop_map(|(source, target, read_only)| HostMount {
        source: Path::new("/srv").join(source),
        target: format!("/work/{target}"),
        read_only,
    })
}

fn any_body() -> impl Strategy<Value = (Value, Policy, Vec<GpuAccess>, ImageConfig)> {
    let id = "[a-z0-9-]{1,64}";
    (
        (id, id, any::<i64>(), "[A-Za-z0-9._:/@-]{1,80}"),
        any_goods(),
        any_image(),
        prop::option::of(0u32..1024),
        prop::collection::vec(any_gpu(), 0..4),
        (any_docker(), prop::collection::vec(any_mount(), 0..3), any::<bool>()),
    )
        .prop_map(
            |((sandbox, project, owner_epoch, reference), goods, image, host_cpus, gpus, more)| {
                let (docker, mounts, disk_quota) = more;
                let identity = Identity {
                    wolf: WolfId::new(),
                    sandbox: SandboxId::parse(&sandbox).unwrap(),
                    project: ProjectId::parse(&project).unwrap(),
                    execution: ExecutionId::new(),
                    reservation: ReservationId::new(),
                    owner_epoch,
                };
                let network = Network {
                    name: "wolfpack-x".into(),
                    gateway: Ipv4Addr::new(172, 20, 0, 1),
                    bridge: "br-x".into(),
                };
                let spec = ContainerSpec::new(&Parts {
                    identity: &identity,
                    goods: &goods,
                    image: (&reference, &image),
                    host_cpus,
                    network: &network,
                    boot_dir: &Path::new("/var/lib/wolfpack/sandboxes").join(&sandbox),
                    bin_dir: Path::new("/var/lib/wolfpack/bin/0"),
                    gpus: &gpus,
                    docker: match docker {
                        DockerMode::None => DockerAccess::None,
                        DockerMode::Nested => DockerAccess::Nested { volume: "wolfpack-v" },
                        DockerMode::Shared => DockerAccess::Shared,
                    },
                    mounts: &mounts,
                    disk_quota,
                });
                (serde_json::to_value(body(&spec)).unwrap(), spec.policy(), gpus, image)
            },
        )
}

proptest! {
    #[test]
    fn every_container_is_hardened((body, policy, gpus, image) in any_body()) {
        prop_assert_eq!(violations(&body["HostConfig"], &policy), Vec::<String>::new());
        prop_assert_eq!(&body["User"], "0:0");
        prop_assert_eq!(&body["Entrypoint"], &json!(["/run/wolfpack/bin/wolfpack-sandbox-agent"]));
        prop_assert_eq!(&body["Cmd"], &json!([]));
        for label in body["Labels"].as_object().unwrap().keys() {
            prop_assert!(label.starts_with("wolfpack."), "{label}");
        }
        let env = body["Env"].as_array().unwrap();
        for name in env {
            // A name alone takes the image's variable away; only what NVIDIA's
            // runtime is to bring in is set.
            let name = name.as_str().unwrap();
            prop_assert!(!name.contains('=') || name.starts_with("NVIDIA_VISIBLE_DEVICES="));
        }
        if !gpus.is_empty() {
            for (name, _) in image.env.iter().filter(|(name, _)| name.starts_with("LD_")) {
                prop_assert!(env.iter().any(|dropped| dropped == name), "{name} reaches the hook");
            }
        }
        let granted = body["HostConfig"]["Devices"].as_array().unwrap().len()
            + body["HostConfig"]["DeviceRequests"].as_array().unwrap().len();
        prop_assert_eq!(granted == 0, gpus.is_empty());
    }

    /// The predicate must see each control go: one broken rule a mutation.
    #[test]
    fn every_loosened_control_is_seen(
        (body, policy, _, _) in any_body(), which in any::<prop::sample::Index>(),
    ) {
        let all = loosened();
        let (name, value) = &all[which.index(all.len())];
        let mut host = body["HostConfig"].clone();
        host[*name] = value.clone();
        let text = value.to_string();
        let needed = NEEDED_BY_ENGINES.contains(&(*name, text.as_str()));
        if needed && policy.docker == DockerMode::Nested {
            prop_assert_eq!(violations(&host, &policy), Vec::<String>::new());
        } else {
            prop_assert!(!violations(&host, &policy).is_empty(), "{name} = {value} goes unnoticed");
        }
    }

    /// What an engine of its own needs is a hole for everybody else.
    #[test]
    fn a_nested_container_is_none_of_another_mode((body, policy, _, _) in any_body()) {
        let claimed = Policy { docker: DockerMode::None, ..policy.clone() };
        let broken = violations(&body["HostConfig"], &claimed);
        prop_assert_eq!(broken.is_empty(), policy.docker != DockerMode::Nested, "{:?}", broken);
    }
}

/// Mutations that are none with an engine of the sandbox's own.
const NEEDED_BY_ENGINES: [(&str, &str); 5] = [
    ("CapAdd", r#"["SYS_ADMIN"]"#),
    ("SecurityOpt", "[]"),
    ("SecurityOpt", r#"["seccomp=unconfined"]"#),
    ("MaskedPaths", "[]"),
    ("ReadonlyPaths", "[]"),
];

fn loosened() -> Vec<(&'static str, Value)> {
    vec![
        ("Privileged", json!(true)),
        ("CapAdd", json!(["SYS_ADMIN"])),
        ("CapDrop", json!([])),
        ("CapDrop", json!(["NET_RAW"])),
        ("SecurityOpt", json!([])),
        ("SecurityOpt", json!(["no-new-privileges", "seccomp=unconfined"])),
        ("SecurityOpt", json!(["no-new-privileges:false"])),
        ("PidMode", json!("host")),
        ("IpcMode", json!("host")),
        ("IpcMode", json!("shareable")),
        ("UTSMode", json!("host")),
        ("UsernsMode", json!("host")),
        ("CgroupnsMode", json!("host")),
        ("NetworkMode", json!("host")),
        ("NetworkMode", json!("container:abc")),
        ("Memory", json!(0)),
        ("MemorySwap", json!(-1)),
        ("NanoCpus", Value::Null),
        ("PidsLimit", json!(-1)),
        ("OomKillDisable", json!(true)),
        ("Binds", json!(["/var/run/docker.sock:/var/run/docker.sock"])),
        (
            "Mounts",
            json!([{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/run/wolfpack"}]),
        ),
        ("Mounts", json!([{"Type": "bind", "Source": "/var/lib/x", "Target": "/host"}])),
        ("Devices", json!([{"PathOnHost": "/dev/mem"}])),
        ("DeviceRequests", json!([{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}])),
        ("DeviceRequests", json!([{"Driver": "nvidia", "DeviceIDs": ["all"]}])),
        ("DeviceRequests", json!([{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}])),
        ("DeviceRequests", json!([{"Driver": "cdi", "DeviceIDs": ["GPU-1"]}])),
        ("DeviceRequests", json!([{"Driver": "cdi"}])),
        ("GroupAdd", json!(["0"])),
        ("GroupAdd", json!(["docker"])),
        ("DeviceCgroupRules", json!(["a *:* rwm"])),
        ("MaskedPaths", json!([])),
        ("ReadonlyPaths", json!([])),
        ("LogConfig", json!({"Type": "json-file", "Config": {}})),
        ("Sysctls", json!({"net.ipv4.ip_forward": "1"})),
        ("Runtime", json!("unconfined")),
        ("MemorySwappiness", json!(100)),
        ("ShmSize", json!(-1)),
        ("ShmSize", json!(0)),
        ("ExtraHosts", json!(["wolfpack.internal:172.20.0.1", "registry:10.0.0.1"])),
        ("CapAdd", json!(["SYS_PTRACE"])),
        ("CapAdd", json!(["CAP_SYS_MODULE"])),
        ("SecurityOpt", json!(["seccomp=unconfined"])),
        ("SecurityOpt", json!(["label=disable"])),
        ("StorageOpt", json!({"size": "0"})),
        ("StorageOpt", json!({"overlay2.size": "1"})),
        ("Mounts", json!([{"Type": "volume", "Source": "somebodys", "Target": "/var/lib/docker"}])),
        ("Mounts", json!([{"Type": "volume", "Source": "wolfpack-v", "Target": "/data"}])),
        ("Mounts", json!([{"Type": "bind", "Source": "/etc", "Target": "/work/x"}])),
        (
            "Mounts",
            json!([{"Type": "bind", "Source": "/var/lib/x/y", "Target": "/run/wolfpack",
                    "BindOptions": {"Propagation": "rshared"}}]),
        ),
        ("Mounts", json!([{"Type": "tmpfs", "Target": "/proc"}])),
    ]
}
