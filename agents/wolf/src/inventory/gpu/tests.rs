//! Each kind of host: what is found, and what of it reaches the engine.

mod changes;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use wolfpack_proto::types::v1::TelemetryState;
use wolfpack_runtime::Context;
use wolfpack_types::{DockerMode, ExecutionId, ProjectId, ReservationId, SandboxId, WolfId};

use super::fixtures::{Host, node, told};
use super::nvml::NvmlDevice;
use super::*;
use crate::engine::fake::FakeEngine;
use crate::engine::hardening::{Policy, violations};
use crate::engine::{DockerEngine, Engine as _, ImageConfig};
use crate::sandbox::{ContainerSpec, DockerAccess, Goods, Identity, Parts};

/// The request that reaches the engine for a container with these devices.
async fn reaches(gpus: &[GpuAccess]) -> Value {
    let context = Context::quiet("wolf");
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeEngine::start(&dir.path().join("docker.sock"), &context.supervisor).unwrap();
    let engine = DockerEngine::new(fake.socket());
    let identity = Identity {
        wolf: WolfId::new(),
        sandbox: SandboxId::new(),
        project: ProjectId::new(),
        execution: ExecutionId::new(),
        reservation: ReservationId::new(),
        owner_epoch: 1,
    };
    let env = ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "NVIDIA_VISIBLE_DEVICES"];
    let image = ImageConfig {
        env: env.map(|name| (name.to_owned(), "all".to_owned())).to_vec(),
        ..ImageConfig::default()
    };
    let network = engine.ensure_network("h5-n", &BTreeMap::new()).await.unwrap();
    let spec = ContainerSpec::new(&Parts {
        identity: &identity,
        goods: &Goods::default(),
        image: ("debian:bookworm-slim", &image),
        host_cpus: None,
        network: &network,
        boot_dir: Path::new("/var/lib/wolfpack/s"),
        bin_dir: Path::new("/var/lib/wolfpack/bin"),
        gpus,
        docker: DockerAccess::None,
        mounts: &[],
        disk_quota: false,
    });
    engine.create("h5-gpu", &spec).await.unwrap();
    let request = fake.containers().remove(0).request;
    context.supervisor.shutdown(std::time::Duration::from_secs(5)).await;
    let broken = violations(&request["HostConfig"], &Policy::of(DockerMode::None));
    assert_eq!(broken, Vec::<String>::new());
    // Whatever the host is: no rule of cgroups beside the devices' own.
    assert_eq!(request["HostConfig"]["DeviceCgroupRules"], Value::Null);
    assert_ne!(request["HostConfig"]["Privileged"], json!(true));
    request
}

/// Of a request: device requests, device nodes, groups, what NVIDIA's runtime
/// sees.
fn devices(request: &Value) -> (Vec<Value>, Vec<String>, Vec<String>, String) {
    let host = &request["HostConfig"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let requests = list(&host["DeviceRequests"])
        .into_iter()
        .map(|request| {
            assert!(request["Count"].is_null(), "never a number of devices: {request}");
            json!([request["Driver"], request["DeviceIDs"]])
        })
        .collect();
    let nodes = list(&host["Devices"])
        .into_iter()
        .map(|device| {
            assert_eq!(device["CgroupPermissions"], "rw", "no node may be made");
            assert_eq!(device["PathOnHost"], device["PathInContainer"]);
            device["PathOnHost"].as_str().unwrap().to_owned()
        })
        .collect();
    let groups = list(&host["GroupAdd"]).iter().map(|g| g.as_str().unwrap().to_owned()).collect();
    let env = list(&request["Env"]);
    let visible: Vec<&str> = env
        .iter()
        .filter_map(|value| value.as_str()?.strip_prefix("NVIDIA_VISIBLE_DEVICES="))
        .collect();
    assert_eq!(visible.len(), 1);
    (requests, nodes, groups, visible[0].to_owned())
}

fn ids(found: &Found) -> Vec<&str> {
    found.offered().map(|gpu| gpu.id.as_str()).collect()
}

fn state(found: &Found, id: &str) -> Option<TelemetryState> {
    found.telemetry.iter().find(|told| told.id == id).map(GpuTelemetry::state)
}

fn group_of(host: &Host, name: &str) -> String {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(host.path(name)).unwrap().gid().to_string()
}

#[tokio::test]
async fn a_host_without_gpus_gives_none_and_asks_for_none() {
    let host = Host::new()
        .device("0000:03:00.0", "0x030000\n", "0x1a03\n", "0x2000\n", Some("ast"))
        .device("0000:02:00.0", "0x030200\n", "0x10de\n", "0x2236\n", Some("vfio-pci"))
        .device("0000:01:00.1", "0x040300\n", "0x10de\n", "0x10fa\n", Some("snd_hda_intel"))
        .pci("0000:05:00.0", "0x8086\n", "0x56a0\n", None);
    let found = host.gpus().refresh(Some(host.engine())).await;
    assert_eq!(found, Found::default());
    assert_eq!((found.encoder_pool(), found.notice()), (None, String::new()));
    let (requests, nodes, groups, visible) = devices(&reaches(&[]).await);
    assert_eq!((requests.len(), nodes.len(), groups.len()), (0, 0, 0));
    assert_eq!(visible, "void", "although the image says all");
}

#[tokio::test]
async fn nvidia_by_its_library_and_its_runtime() {
    let host = Host::new().nvidia("0000:01:00.0", "GPU-a", "NVIDIA GeForce RTX 4090").nvidia(
        "0000:06:00.0",
        "GPU-b",
        "NVIDIA L4",
    );
    host.says(Ok(vec![
        told("GPU-b", "NVIDIA L4", "0000:06:00.0", 0),
        told("GPU-a", "NVIDIA GeForce RTX 4090", "0000:01:00.0", 1),
    ]));
    let gpus = host.gpus();
    let found = gpus.refresh(Some(host.engine())).await;
    assert_eq!(ids(&found), ["GPU-a", "GPU-b"], "by address, whatever the library's order");
    let first = &found.gpus[0];
    assert_eq!((first.memory_bytes, first.driver_version.as_str()), (Some(24 << 30), "550.54.14"));
    let (a, b) = (found.gpus[0].to_proto(), found.gpus[1].to_proto());
    assert!(a.encoder_pooled && !b.encoder_pooled && b.encoder_sessions > Some(8));
    assert_eq!(found.encoder_pool(), Some(8), "of the pooled one's driver");
    assert_eq!(
        found.telemetry.iter().find(|t| t.id == "GPU-a").unwrap().utilisation_percent,
        Some(3)
    );
    assert_eq!(found.notice(), "");

    let one = gpus.access(&["GPU-b".into()]).await.unwrap();
    let request = reaches(&one).await;
    let (requests, nodes, groups, visible) = devices(&request);
    assert_eq!(requests, [json!(["nvidia", ["GPU-b"]])]);
    assert_eq!((nodes.len(), groups.len(), visible.as_str()), (0, 0, "GPU-b"));
    let env: Vec<&str> =
        request["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(env.contains(&"LD_PRELOAD") && env.contains(&"LD_LIBRARY_PATH"), "{env:?}");
    assert!(!env.iter().any(|name| name.starts_with("LD_") && name.contains('=')));
    let both = gpus.access(&["GPU-a".into(), "GPU-b".into()]).await.unwrap();
    let (requests, .., visible) = devices(&reaches(&both).await);
    assert_eq!(requests, [json!(["nvidia", ["GPU-a", "GPU-b"]])]);
    assert_eq!(visible, "GPU-a,GPU-b");
    let inside = crate::sandbox::visible_devices(&both);
    assert_eq!(inside.len(), 2);
    assert!(inside.iter().all(|(_, ids)| ids == "GPU-a,GPU-b"), "{inside:?}");
}

#[tokio::test]
async fn nvidia_by_cdi_comes_first_and_names_one_device() {
    let host = Host::new()
        .nvidia("0000:01:00.0", "GPU-a", "NVIDIA L4")
        .nvidia("0000:06:00.0", "GPU-b", "NVIDIA L4")
        .cdi(
            "nvidia.com/gpu",
            &[
                ("0", &["/dev/nvidia0"]),
                ("1", &["/dev/nvidia1"]),
                ("GPU-b", &["/dev/nvidia1"]),
                ("all", &["/dev/nvidia0", "/dev/nvidia1"]),
            ],
        );
    host.says(Ok(vec![
        told("GPU-a", "NVIDIA L4", "0000:01:00.0", 0),
        told("GPU-b", "NVIDIA L4", "0000:06:00.0", 1),
    ]));
    let gpus = host.gpus();
    gpus.refresh(Some(host.engine())).await;
    for (id, name) in [("GPU-a", "nvidia.com/gpu=0"), ("GPU-b", "nvidia.com/gpu=GPU-b")] {
        let access = gpus.access(&[id.to_owned()]).await.unwrap();
        let (requests, nodes, _, visible) = devices(&reaches(&access).await);
        assert_eq!(requests, [json!(["cdi", [name]])]);
        assert_eq!((nodes.len(), visible.as_str()), (0, "void"), "the runtime adds nothing");
        assert_eq!(crate::sandbox::visible_devices(&access)[0].1, id);
    }
    // The drivers gave other numbers after a restart: `0` is the other one now.
    host.says(Ok(vec![
        told("GPU-a", "NVIDIA L4", "0000:01:00.0", 1),
        told("GPU-b", "NVIDIA L4", "0000:06:00.0", 0),
    ]));
    let access = gpus.access(&["GPU-a".into()]).await.unwrap();
    let (requests, ..) = devices(&reaches(&access).await);
    assert_eq!(requests, [json!(["cdi", ["nvidia.com/gpu=1"]])]);
    // An engine without CDI is asked by the runtime.
    gpus.refresh(Some(EngineFacts::default())).await;
    let access = gpus.access(&["GPU-a".into()]).await.unwrap();
    assert_eq!(access, [GpuAccess::Nvidia { id: "GPU-a".into() }]);
}

#[tokio::test]
async fn nvidia_without_its_library_is_known_by_the_kernel_and_not_measured() {
    let host = Host::new().nvidia("0000:01:00.0", "GPU-8a5f", "NVIDIA GeForce RTX 4090").nvidia(
        "0000:06:00.0",
        "GPU-????????",
        "NVIDIA L4",
    );
    let found = host.gpus().refresh(Some(host.engine())).await;
    assert_eq!(ids(&found), ["GPU-8a5f", "0000:06:00.0"]);
    assert_eq!(found.telemetry, [], "not measured is not failed");
    assert_eq!(found.gpus[0].memory_bytes, None);
    assert!(found.devices().iter().all(|device| !device.unhealthy));
    assert_eq!(found.gpus[1].model, "NVIDIA L4");
}

#[tokio::test]
async fn an_old_or_absent_toolkit_withholds_nvidia_and_says_why() {
    let host = Host::new().nvidia("0000:01:00.0", "GPU-a", "NVIDIA L4").toolkit("1.17.7").amd(
        "0000:04:00.0",
        "0x744c\n",
        128,
        0,
    );
    host.says(Ok(vec![told("GPU-a", "NVIDIA L4", "0000:01:00.0", 0)]));
    let gpus = host.gpus();
    let found = gpus.refresh(Some(host.engine())).await;
    assert_eq!(ids(&found), ["0000:04:00.0"], "other vendors are not held back");
    assert!(found.notice().contains("CVE-2025-23266"), "{}", found.notice());
    let refused = gpus.access(&["GPU-a".into()]).await.unwrap_err();
    assert!(refused.message.contains("1.17.7"), "{refused}");
    let inventory = crate::inventory::Inventory { gpus: found, ..Default::default() };
    let told = inventory.to_proto();
    assert_eq!(told.gpus.len(), 1);
    assert!(told.gpu_notice.contains("1.17.8 or later"));

    let none = Sources { toolkit_programs: vec![host.path("absent")], ..host.sources() };
    let found = Gpus::new(none).refresh(None).await;
    assert!(found.notice().contains("was not found"), "{}", found.notice());
}

#[tokio::test]
async fn amd_by_its_nodes_and_groups() {
    let host = Host::new()
        .amd("0000:04:00.0", "0x744c\n", 129, 1)
        .amd("0000:07:00.0", "0x9999\n", 128, 0)
        .file("sys/bus/pci/devices/0000:04:00.0/drm/card1/card1-DP-1/status", "connected")
        .file("sys/module/amdgpu/version", "6.7.0\n");
    std::fs::create_dir_all(host.path("sys/bus/pci/devices/0000:04:00.0/drm/card1-DP-1")).unwrap();
    let gpus = host.gpus();
    let found = gpus.refresh(Some(host.engine())).await;
    assert_eq!(ids(&found), ["0000:04:00.0", "0000:07:00.0"]);
    let named = &found.gpus[0];
    assert_eq!((named.model.as_str(), named.vendor), ("AMD Radeon (Navi 31)", Vendor::Amd));
    assert!(named.encoder.as_ref().unwrap().sessions > 0);
    assert_eq!(found.gpus[1].model, "AMD 0x9999");
    assert_eq!(found.gpus[1].to_proto().encoder_sessions, None, "an unknown model is unknown");
    assert_eq!(named.memory_bytes, Some(17_163_091_968));
    let told = &found.telemetry[0];
    assert_eq!((told.utilisation_percent, told.temperature_celsius), (Some(7), Some(45)));
    assert_eq!((told.memory_used_bytes, told.encoder_sessions), (Some(1 << 20), None));

    let access = gpus.access(&["0000:04:00.0".into()]).await.unwrap();
    let (requests, nodes, groups, visible) = devices(&reaches(&access).await);
    assert_eq!((requests.len(), visible.as_str()), (0, "void"));
    assert_eq!(nodes, ["/dev/dri/card1", "/dev/dri/renderD129", "/dev/kfd"]);
    let mut own = vec![group_of(&host, "dev/dri/renderD129"), group_of(&host, "dev/kfd")];
    own.dedup();
    own.retain(|group| group != "0");
    assert_eq!(groups, own);
    // Hot plugging gave the nodes other numbers.
    let base = "sys/bus/pci/devices/0000:04:00.0/drm";
    std::fs::rename(
        host.path(&format!("{base}/renderD129")),
        host.path(&format!("{base}/renderD131")),
    )
    .unwrap();
    host.write("dev/dri/renderD131", "");
    let (_, nodes, ..) =
        devices(&reaches(&gpus.access(&["0000:04:00.0".into()]).await.unwrap()).await);
    assert_eq!(nodes, ["/dev/dri/card1", "/dev/dri/renderD131", "/dev/kfd"]);
}

#[tokio::test]
async fn amd_by_cdi_and_behind_remapped_users() {
    let host = Host::new().amd("0000:04:00.0", "0x744c\n", 129, 1).remapped();
    let found = host.gpus().refresh(Some(host.engine())).await;
    assert_eq!(ids(&found), Vec::<&str>::new(), "0660 is closed to whom the engine makes root");
    assert!(found.notice().contains("0666"), "{}", found.notice());

    let open = Host::new()
        .pci("0000:04:00.0", "0x1002\n", "0x744c\n", Some("amdgpu"))
        .nodes("0000:04:00.0", 129, 1, 0o666)
        .remapped();
    let gpus = open.gpus();
    assert_eq!(ids(&gpus.refresh(Some(open.engine())).await), ["0000:04:00.0"]);
    let access = gpus.access(&["0000:04:00.0".into()]).await.unwrap();
    let wanted =
        GpuAccess::Nodes { nodes: vec![node("dri/card1"), node("dri/renderD129")], groups: vec![] };
    assert_eq!(access, [wanted]);

    let cdi = Host::new()
        .amd("0000:04:00.0", "0x744c\n", 129, 1)
        .amd("0000:07:00.0", "0x744c\n", 128, 0)
        .cdi(
            "amd.com/gpu",
            &[
                ("0", &["/dev/kfd", "/dev/dri/card0", "/dev/dri/renderD128"]),
                ("1", &["/dev/kfd", "/dev/dri/card1", "/dev/dri/renderD129"]),
                ("all", &["/dev/kfd", "/dev/dri/renderD128", "/dev/dri/renderD129"]),
            ],
        );
    let gpus = cdi.gpus();
    gpus.refresh(Some(cdi.engine())).await;
    let access = gpus.access(&["0000:04:00.0".into()]).await.unwrap();
    let (requests, nodes, groups, _) = devices(&reaches(&access).await);
    assert_eq!(requests, [json!(["cdi", ["amd.com/gpu=1"]])]);
    assert_eq!((nodes.len(), groups.len()), (0, 0));
}

#[tokio::test]
async fn intel_by_both_drivers() {
    let host = Host::new()
        .pci("0000:00:02.0", "0x8086\n", "0x4680\n", Some("i915"))
        .nodes("0000:00:02.0", 128, 0, 0o666)
        .pci("0000:03:00.0", "0x8086\n", "0x56a0\n", Some("xe"))
        .nodes("0000:03:00.0", 129, 1, 0o666)
        .file("sys/bus/pci/devices/0000:03:00.0/tile0/physical_vram_size_bytes", "8589934592\n")
        .file("sys/bus/pci/devices/0000:03:00.0/tile1/physical_vram_size_bytes", "8589934592\n");
    let gpus = host.gpus();
    let found = gpus.refresh(Some(host.engine())).await;
    assert_eq!(ids(&found), ["0000:00:02.0", "0000:03:00.0"]);
    assert_eq!(found.gpus[0].memory_bytes, None, "it has none of its own");
    assert_eq!(found.gpus[1].memory_bytes, Some(16 << 30));
    assert_eq!(found.gpus[1].model, "Intel Arc A770");
    assert!(found.gpus.iter().all(|gpu| gpu.encoder.as_ref().unwrap().sessions > 0));
    let quiet = found.telemetry[0].clone();
    assert_eq!((quiet.state(), quiet.utilisation_percent), (TelemetryState::Ok, None));
    let access = gpus.access(&["0000:00:02.0".into()]).await.unwrap();
    let (requests, nodes, groups, _) = devices(&reaches(&access).await);
    assert_eq!((requests.len(), groups.len()), (0, 0));
    assert_eq!(nodes, ["/dev/dri/card0", "/dev/dri/renderD128"], "no kfd, not the other card");
}

#[tokio::test]
async fn a_mixed_host_gives_each_its_own_way() {
    let host = Host::new()
        .nvidia("0000:01:00.0", "GPU-a", "NVIDIA L4")
        .amd("0000:04:00.0", "0x744c\n", 129, 1)
        .pci("0000:00:02.0", "0x8086\n", "0x4680\n", Some("i915"))
        .nodes("0000:00:02.0", 128, 0, 0o666);
    host.says(Ok(vec![told("GPU-a", "NVIDIA L4", "0000:01:00.0", 0)]));
    let gpus = host.gpus();
    let found = gpus.refresh(Some(host.engine())).await;
    assert_eq!(ids(&found), ["0000:00:02.0", "GPU-a", "0000:04:00.0"]);
    let access = gpus.access(&["GPU-a".into(), "0000:04:00.0".into()]).await.unwrap();
    let (requests, nodes, _, visible) = devices(&reaches(&access).await);
    assert_eq!(requests, [json!(["nvidia", ["GPU-a"]])]);
    assert_eq!(nodes, ["/dev/dri/card1", "/dev/dri/renderD129", "/dev/kfd"], "not Intel's");
    assert_eq!(visible, "GPU-a");
}

#[tokio::test]
async fn instances_of_a_cut_gpu_are_devices_and_the_gpu_is_not() {
    let host = Host::new()
        .nvidia("0000:01:00.0", "GPU-a", "NVIDIA A100-SXM4-40GB")
        .script(
            "nvidia-smi",
            "echo 'GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-a)'\n\
             echo '  MIG 3g.20gb     Device  0: (UUID: MIG-1)'\n\
             echo '  MIG 1g.5gb      Device  1: (UUID: MIG-2)'",
        )
        .cdi("nvidia.com/gpu", &[("0:0", &[]), ("MIG-2", &[]), ("0", &["/dev/nvidia0"])]);
    let cut = NvmlDevice { mig: true, ..told("GPU-a", "NVIDIA A100-SXM4-40GB", "0000:01:00.0", 0) };
    host.says(Ok(vec![cut]));
    let gpus = host.gpus();
    let found = gpus.refresh(Some(host.engine())).await;
    assert_eq!(ids(&found), ["MIG-1", "MIG-2"]);
    assert_eq!(found.gpus[1].model, "NVIDIA A100-SXM4-40GB MIG 1g.5gb");
    assert_eq!(found.gpus[1].memory_bytes, Some(4_750_000_000));
    assert!(found.gpus.iter().all(|gpu| gpu.to_proto().encoder_sessions == Some(0)));
    assert_eq!(found.telemetry[0].utilisation_percent, None, "that is the whole gpu's");
    let access = gpus.access(&["MIG-1".into(), "MIG-2".into()]).await.unwrap();
    let (requests, .., visible) = devices(&reaches(&access).await);
    assert_eq!(
        requests,
        [json!(["cdi", ["nvidia.com/gpu=MIG-2"]]), json!(["nvidia", ["MIG-1"]])],
        "a name by numbers is not believed"
    );
    assert_eq!(visible, "MIG-1");
    // The library dies: the instances stay, failed; the whole never appears.
    host.says(Err("Driver/library version mismatch"));
    let found = gpus.refresh(None).await;
    assert_eq!(ids(&found), ["MIG-1", "MIG-2"]);
    assert_eq!(state(&found, "MIG-1"), Some(TelemetryState::Failed));

    let host = host.script("nvidia-smi", "exit 9");
    let cut = NvmlDevice { mig: true, ..told("GPU-a", "NVIDIA A100-SXM4-40GB", "0000:01:00.0", 0) };
    host.says(Ok(vec![cut]));
    let found = host.gpus().refresh(Some(host.engine())).await;
    assert_eq!(ids(&found), Vec::<&str>::new());
    assert!(found.notice().contains("MIG"), "{}", found.notice());
}
