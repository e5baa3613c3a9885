//! Made hosts: trees of the kernel's files, a library that says what the test
//! says, tools that are scripts.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::nvml::{Nvml, NvmlDevice, NvmlFault, NvmlReading};
use super::{EngineFacts, Gpus, Sources};
use crate::inventory::Roots;

/// What the library says next.
#[derive(Debug, Clone)]
pub(crate) struct FakeNvml(Arc<Mutex<Result<NvmlReading, NvmlFault>>>);

impl Nvml for FakeNvml {
    fn read(&self) -> Result<NvmlReading, NvmlFault> {
        self.0.lock().clone()
    }
}

/// A host that tests make.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    nvml: FakeNvml,
    remapped: bool,
    engine_cdi: bool,
}

impl Host {
    pub(crate) fn new() -> Self {
        let absent = NvmlFault::Absent("no libnvidia-ml.so.1".into());
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
            nvml: FakeNvml(Arc::new(Mutex::new(Err(absent)))),
            remapped: false,
            engine_cdi: false,
        };
        host.toolkit("1.18.0")
    }

    pub(crate) fn roots(&self) -> Roots {
        let at = |name: &str| self.dir.path().join(name);
        Roots { sys: at("sys"), proc: at("proc"), dev: at("dev") }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.write(path, content);
        self
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A display device on the bus.
    pub(crate) fn pci(self, address: &str, vendor: &str, id: &str, driver: Option<&str>) -> Self {
        self.device(address, "0x030000\n", vendor, id, driver)
    }

    pub(crate) fn device(
        self,
        address: &str,
        class: &str,
        vendor: &str,
        id: &str,
        driver: Option<&str>,
    ) -> Self {
        let base = format!("sys/bus/pci/devices/{address}");
        self.write(&format!("{base}/class"), class);
        self.write(&format!("{base}/vendor"), vendor);
        self.write(&format!("{base}/device"), id);
        if let Some(driver) = driver {
            symlink(format!("../../../drivers/{driver}"), self.path(&base).join("driver")).unwrap();
        }
        self
    }

    /// The nodes of a device, `renderD128` and `card0`, with a mode.
    pub(crate) fn nodes(self, address: &str, render: u32, card: u32, mode: u32) -> Self {
        for name in [format!("renderD{render}"), format!("card{card}")] {
            self.write(&format!("sys/bus/pci/devices/{address}/drm/{name}/uevent"), "");
            self.write(&format!("dev/dri/{name}"), "");
            let node = self.path(&format!("dev/dri/{name}"));
            fs::set_permissions(node, fs::Permissions::from_mode(mode)).unwrap();
        }
        self
    }

    /// A GPU of AMD's with readings.
    pub(crate) fn amd(self, address: &str, id: &str, render: u32, card: u32) -> Self {
        let base = format!("sys/bus/pci/devices/{address}");
        self.pci(address, "0x1002\n", id, Some("amdgpu"))
            .nodes(address, render, card, 0o660)
            .file("dev/kfd", "")
            .file(&format!("{base}/mem_info_vram_total"), "17163091968\n")
            .file(&format!("{base}/mem_info_vram_used"), "1048576\n")
            .file(&format!("{base}/gpu_busy_percent"), "7\n")
            .file(&format!("{base}/hwmon/hwmon3/temp1_input"), "45000\n")
    }

    /// A GPU of NVIDIA's as the kernel sees it, with its UUID.
    pub(crate) fn nvidia(self, address: &str, uuid: &str, model: &str) -> Self {
        self.pci(address, "0x10de\n", "0x2684\n", Some("nvidia"))
            .file(
                &format!("proc/driver/nvidia/gpus/{address}/information"),
                &format!("Model: \t\t {model}\nIRQ:   \t\t 98\nGPU UUID: \t {uuid}\n"),
            )
            .file("sys/module/nvidia/version", "550.54.14\n")
    }

    /// Makes the library say this from now on.
    pub(crate) fn says(&self, reading: Result<Vec<NvmlDevice>, &str>) {
        *self.nvml.0.lock() = reading
            .map(|devices| NvmlReading { driver_version: "550.54.14".into(), devices })
            .map_err(|why| NvmlFault::Failed(why.to_owned()));
    }

    /// A script in place of the toolkit's program.
    pub(crate) fn toolkit(self, version: &str) -> Self {
        self.script("nvidia-ctk", &format!("echo NVIDIA Container Toolkit CLI version {version}"))
    }

    pub(crate) fn script(self, name: &str, body: &str) -> Self {
        self.write(name, &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// A CDI specification that names devices with their nodes, and an engine
    /// that reads it.
    pub(crate) fn cdi(mut self, kind: &str, devices: &[(&str, &[&str])]) -> Self {
        let devices: Vec<_> = devices
            .iter()
            .map(|(name, nodes)| {
                let nodes: Vec<_> =
                    nodes.iter().map(|path| serde_json::json!({"path": path})).collect();
                serde_json::json!({"name": name, "containerEdits": {"deviceNodes": nodes}})
            })
            .collect();
        let spec = serde_json::json!({"cdiVersion": "0.5.0", "kind": kind, "devices": devices});
        self.engine_cdi = true;
        let name = kind.replace('/', "-");
        self.file(&format!("etc/cdi/{name}.json"), &spec.to_string())
    }

    /// An engine that remaps users.
    pub(crate) fn remapped(mut self) -> Self {
        self.remapped = true;
        self
    }

    pub(crate) fn sources(&self) -> Sources {
        Sources {
            roots: self.roots(),
            nvml: Arc::new(self.nvml.clone()),
            toolkit_programs: vec![self.path("nvidia-ctk")],
            nvidia_smi: self.path("nvidia-smi"),
            cdi_folders: Vec::new(),
            encoder_sessions: None,
        }
    }

    pub(crate) fn engine(&self) -> EngineFacts {
        let folders = [self.path("etc/cdi"), self.path("var/run/cdi")];
        let cdi_folders = if self.engine_cdi { folders.to_vec() } else { Vec::new() };
        EngineFacts { cdi_folders, remapped: self.remapped }
    }

    pub(crate) fn gpus(&self) -> Gpus {
        Gpus::new(self.sources())
    }

    /// Takes a device off the bus.
    pub(crate) fn unplug(&self, address: &str) {
        fs::remove_dir_all(self.path(&format!("sys/bus/pci/devices/{address}"))).unwrap();
    }
}

/// A device as a healthy library tells it.
pub(crate) fn told(uuid: &str, name: &str, address: &str, minor: u32) -> NvmlDevice {
    NvmlDevice {
        uuid: uuid.to_owned(),
        name: name.to_owned(),
        pci_bus_id: format!("0000{}", address.to_ascii_uppercase()),
        minor: Some(minor),
        memory_total: Some(24 << 30),
        memory_used: Some(1 << 30),
        utilisation: Some(3),
        temperature: Some(41),
        encoder_sessions: Some(1),
        mig: false,
        fault: None,
    }
}

/// Whether a path is below another.
pub(crate) fn node(path: &str) -> PathBuf {
    Path::new("/dev").join(path)
}
