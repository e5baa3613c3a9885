use super::*;

fn plan() -> NetworkPlan {
    serde_json::from_value(json!({
        "bridge": "172.20.0.1/24", "pools": [{ "base": "172.20.64.0/18", "size": 26 }],
        "mtu": 1400, "depth": 1, "reasons": [],
    }))
    .unwrap()
}

fn options() -> EngineOptions {
    EngineOptions::new(
        Path::new("dockerd"),
        Path::new("/var/lib/docker"),
        Path::new("/run"),
        plan(),
    )
}

#[test]
fn the_plan_and_the_places_reach_the_engine() {
    let config = daemon_json(&options());
    assert_eq!(config["bip"], "172.20.0.1/24");
    assert_eq!(config["mtu"], 1400);
    assert_eq!(config["default-address-pools"], json!([{ "base": "172.20.64.0/18", "size": 26 }]));
    assert_eq!(config["hosts"], json!(["unix:///run/docker.sock"]));
    assert_eq!(config["data-root"], "/var/lib/docker");
    assert_eq!(config["exec-root"], "/run/docker");
    assert_eq!(config["storage-driver"], "overlay2");
    assert_eq!(config["log-opts"]["max-size"], "10m");
    for absent in ["userns-remap", "dns", "runtimes", "features"] {
        assert!(config.get(absent).is_none(), "{absent}");
    }
    assert_eq!(arguments(&options()), ["--config-file", "/run/daemon.json"]);
}

#[test]
fn a_wolfs_engine_remaps_and_keeps_containers() {
    let options = EngineOptions {
        userns_remap: Some("default".to_owned()),
        live_restore: true,
        dns: vec!["172.20.0.1".parse().unwrap()],
        gpu: GpuOptions {
            nvidia_runtime: Some("/usr/bin/nvidia-container-runtime".into()),
            cdi: true,
        },
        ..options()
    };
    let config = daemon_json(&options);
    assert_eq!(config["userns-remap"], "default");
    assert_eq!(config["live-restore"], true);
    assert_eq!(config["dns"], json!(["172.20.0.1"]));
    assert_eq!(config["runtimes"]["nvidia"]["path"], "/usr/bin/nvidia-container-runtime");
    assert_eq!(config["features"]["cdi"], true);
    assert_eq!(options.faults(), Vec::<String>::new());
}

#[test]
fn rootless_is_a_flag_and_never_remaps_again() {
    let rootless = EngineOptions { rootless: true, ..options() };
    assert_eq!(arguments(&rootless).last().unwrap(), "--rootless");
    let both = EngineOptions { userns_remap: Some("default".to_owned()), ..rootless };
    assert_eq!(both.faults().len(), 1);
}

#[test]
fn extra_keys_are_added_and_never_override() {
    let extra = json!({
        "insecure-registries": ["10.1.1.1:5000"], "features": { "buildkit": true },
        "log-driver": "journald",
    });
    let Value::Object(extra) = extra else { unreachable!() };
    let with =
        EngineOptions { extra, gpu: GpuOptions { nvidia_runtime: None, cdi: true }, ..options() };
    let config = daemon_json(&with);
    assert_eq!(config["insecure-registries"], json!(["10.1.1.1:5000"]));
    assert_eq!(config["features"], json!({ "buildkit": true, "cdi": true }));
    assert!(config.get("log-opts").is_none(), "journald takes none");
    assert_eq!(with.faults(), Vec::<String>::new());
    for owned in OWNED {
        let extra = Map::from_iter([(owned.to_owned(), json!("x"))]);
        let faults = EngineOptions { extra, ..options() }.faults();
        assert_eq!(faults.len(), 1, "{owned}");
        assert!(faults[0].contains(owned));
    }
}

#[test]
fn relative_paths_are_refused() {
    let relative = EngineOptions { data_root: "docker".into(), ..options() };
    assert!(relative.faults()[0].contains("absolute"));
}
