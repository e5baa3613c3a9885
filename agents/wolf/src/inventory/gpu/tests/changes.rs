//! A host that changes: libraries that die or hang, devices that come and go.

use super::*;

#[tokio::test]
async fn a_library_that_dies_is_a_failure_and_not_zeros() {
    let host = Host::new().nvidia("0000:01:00.0", "GPU-a", "NVIDIA L4").amd(
        "0000:04:00.0",
        "0x744c\n",
        129,
        1,
    );
    host.says(Ok(vec![told("GPU-a", "NVIDIA L4", "0000:01:00.0", 0)]));
    let gpus = host.gpus();
    let before = gpus.refresh(Some(host.engine())).await;
    assert_eq!(state(&before, "GPU-a"), Some(TelemetryState::Ok));
    host.says(Err("GPU is lost"));
    let dead = gpus.refresh(None).await;
    assert_eq!(dead.gpus, before.gpus, "what it is stays known");
    let telemetry = dead.telemetry.iter().find(|told| told.id == "GPU-a").unwrap();
    assert_eq!(telemetry.state(), TelemetryState::Failed);
    assert!(telemetry.message.contains("GPU is lost"));
    let values =
        (telemetry.utilisation_percent, telemetry.memory_used_bytes, telemetry.encoder_sessions);
    assert_eq!(values, (None, None, None));
    assert_eq!(state(&dead, "0000:04:00.0"), Some(TelemetryState::Ok), "others are well");
    let unhealthy: Vec<bool> = dead.devices().iter().map(|device| device.unhealthy).collect();
    assert_eq!(unhealthy, [true, false]);
    assert!(gpus.access(&["GPU-a".into()]).await.is_err());
    host.says(Ok(vec![told("GPU-a", "NVIDIA L4", "0000:01:00.0", 0)]));
    assert_eq!(gpus.refresh(None).await, before);
}

#[tokio::test]
async fn zeros_gone_devices_and_new_numbers() {
    let host = Host::new()
        .nvidia("0000:01:00.0", "GPU-a", "NVIDIA L4")
        .nvidia("0000:06:00.0", "GPU-b", "NVIDIA L4")
        .amd("0000:04:00.0", "0x744c\n", 129, 1);
    let both = || {
        vec![
            told("GPU-a", "NVIDIA L4", "0000:01:00.0", 0),
            told("GPU-b", "NVIDIA L4", "0000:06:00.0", 1),
        ]
    };
    host.says(Ok(both()));
    let gpus = host.gpus();
    let before = gpus.refresh(Some(host.engine())).await;
    // Zeros: of NVIDIA's and of AMD's.
    let mut zeros = both();
    zeros[0] = NvmlDevice {
        memory_total: Some(0),
        memory_used: Some(0),
        utilisation: Some(0),
        temperature: Some(0),
        ..zeros[0].clone()
    };
    host.says(Ok(zeros));
    host.write("sys/bus/pci/devices/0000:04:00.0/mem_info_vram_total", "0\n");
    let broken = gpus.refresh(None).await;
    for id in ["GPU-a", "0000:04:00.0"] {
        assert_eq!(state(&broken, id), Some(TelemetryState::Failed), "{id}");
        assert_eq!(broken.telemetry.iter().find(|t| t.id == id).unwrap().utilisation_percent, None);
    }
    assert_eq!(state(&broken, "GPU-b"), Some(TelemetryState::Ok));
    host.write("sys/bus/pci/devices/0000:04:00.0/mem_info_vram_total", "17163091968\n");
    // One fell off the library, one off the bus: both stay known, and failed.
    host.says(Ok(vec![both().remove(0)]));
    host.unplug("0000:04:00.0");
    let less = gpus.refresh(None).await;
    assert_eq!(ids(&less), ids(&before));
    for id in ["GPU-b", "0000:04:00.0"] {
        assert_eq!(state(&less, id), Some(TelemetryState::Failed), "{id}");
        let refused = gpus.access(&[id.to_owned()]).await.unwrap_err();
        assert!(refused.message.contains("failed"), "{refused}");
    }
    host.unplug("0000:06:00.0");
    let gone = gpus.refresh(None).await;
    assert_eq!(state(&gone, "GPU-b"), Some(TelemetryState::Failed));
    assert!(gone.telemetry.iter().any(|told| told.message.contains("gone")));
    assert!(gpus.access(&["GPU-never".into()]).await.unwrap_err().message.contains("no gpu"));
    // New numbers of everything: the ids stay.
    let mut turned = both();
    turned.reverse();
    turned[0].minor = Some(0);
    turned[1].minor = Some(1);
    host.says(Ok(turned));
    let back = gpus.refresh(None).await;
    let known = |found: &Found| -> Vec<String> {
        let nvidia = found.offered().filter(|gpu| gpu.vendor == Vendor::Nvidia);
        nvidia.map(|gpu| gpu.id.clone()).collect()
    };
    assert_eq!(known(&back), known(&before));
    assert_eq!(state(&back, "GPU-b"), Some(TelemetryState::Ok));
}

#[tokio::test]
async fn a_device_that_gets_its_uuid_later_is_still_one_device() {
    let host = Host::new().nvidia("0000:01:00.0", "GPU-????", "NVIDIA L4");
    let gpus = host.gpus();
    assert_eq!(ids(&gpus.refresh(Some(host.engine())).await), ["0000:01:00.0"]);
    host.says(Ok(vec![told("GPU-a", "NVIDIA L4", "0000:01:00.0", 0)]));
    assert_eq!(ids(&gpus.refresh(None).await), ["GPU-a"]);
}

#[derive(Debug)]
struct Hangs(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Nvml for Hangs {
    fn read(&self) -> Result<nvml::NvmlReading, nvml::NvmlFault> {
        let _ = self.0.lock().unwrap().recv();
        Err(nvml::NvmlFault::Failed("woken".into()))
    }
}

#[tokio::test]
async fn a_library_that_hangs_is_a_failure_in_time() {
    let host = Host::new().nvidia("0000:01:00.0", "GPU-a", "NVIDIA L4");
    let (wake, hung) = std::sync::mpsc::channel();
    let gpus =
        Gpus::new(Sources { nvml: Arc::new(Hangs(std::sync::Mutex::new(hung))), ..host.sources() });
    for _ in 0..2 {
        let found = gpus.refresh(Some(host.engine())).await;
        assert_eq!(state(&found, "GPU-a"), Some(TelemetryState::Failed));
        assert!(found.telemetry[0].message.contains("hangs"), "{:?}", found.telemetry);
    }
    drop(wake);
}
