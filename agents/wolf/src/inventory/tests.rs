use std::os::unix::fs::symlink;

use super::*;
use crate::sandbox::GpuAccess;

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn roots(&self) -> Roots {
        let at = |name: &str| self.dir.path().join(name);
        Roots { sys: at("sys"), proc: at("proc"), dev: at("dev") }
    }

    fn file(self, path: &str, content: &str) -> Self {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn gpu(self, address: &str, class: &str, vendor: &str, driver: Option<&str>) -> Self {
        let base = format!("sys/bus/pci/devices/{address}");
        let tree = self
            .file(&format!("{base}/class"), class)
            .file(&format!("{base}/vendor"), vendor)
            .file(&format!("{base}/device"), "0x2684\n");
        if let Some(driver) = driver {
            let target = format!("../../../drivers/{driver}");
            symlink(target, tree.dir.path().join(base).join("driver")).unwrap();
        }
        tree
    }

    fn host(self) -> Self {
        self.file("sys/devices/system/cpu/online", "0-3,8\n")
            .file("proc/meminfo", "MemTotal:  8388608 kB\nMemAvailable:  4194304 kB\n")
            .file("proc/sys/kernel/pid_max", "4194304\n")
    }
}

#[test]
fn an_empty_tree_measures_nothing_and_nothing_is_zero() {
    let found = Inventory::measure(&Tree::new().roots(), None);
    assert_eq!(
        (found.cpu_milli, found.memory_bytes, found.disk_bytes, found.pids),
        (None, None, None, None)
    );
    assert!(found.gpus.is_empty());
    let told = found.to_proto();
    assert_eq!(told.resources.unwrap(), proto::Resources::default());
}

#[test]
fn the_tightest_cgroup_counts_in_both_versions() {
    let free = Tree::new().host();
    let found = Inventory::measure(&free.roots(), None);
    assert_eq!(found.cpu_milli, Some(5_000));
    assert_eq!(found.memory_bytes, Some((8 << 30) - RESERVED_MEMORY));
    assert_eq!(found.desktop_slots, 10);

    let second = Tree::new()
        .host()
        .file("proc/self/cgroup", "0::/wolf/agent\n")
        .file("sys/fs/cgroup/wolf/cpu.max", "150000 100000\n")
        .file("sys/fs/cgroup/wolf/memory.max", "4294967296\n")
        .file("sys/fs/cgroup/wolf/agent/cpu.max", "max 100000\n")
        .file("sys/fs/cgroup/wolf/agent/memory.max", "max\n")
        .file("sys/fs/cgroup/wolf/agent/pids.max", "500\n");
    let found = Inventory::measure(&second.roots(), None);
    assert_eq!(found.cpu_milli, Some(1_500));
    assert_eq!(found.memory_bytes, Some((4 << 30) - RESERVED_MEMORY));
    assert_eq!(found.pids, Some(500));

    let first = Tree::new()
        .host()
        .file("proc/self/cgroup", "4:cpu,cpuacct:/wolf\n3:memory:/wolf\n0::/\n")
        .file("sys/fs/cgroup/cpu/wolf/cpu.cfs_quota_us", "200000\n")
        .file("sys/fs/cgroup/cpu/wolf/cpu.cfs_period_us", "100000\n")
        .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
        .file("sys/fs/cgroup/memory/wolf/memory.limit_in_bytes", "2147483648\n")
        .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    let found = Inventory::measure(&first.roots(), None);
    assert_eq!(found.cpu_milli, Some(2_000));
    assert_eq!(found.memory_bytes, Some((2 << 30) - RESERVED_MEMORY));
}

#[test]
fn gpus_are_display_devices_of_known_vendors_with_a_usable_driver() {
    let tree = Tree::new()
        .gpu("0000:01:00.0", "0x030000\n", "0x10de\n", Some("nvidia"))
        .gpu("0000:01:00.1", "0x040300\n", "0x10de\n", Some("snd_hda_intel"))
        .gpu("0000:02:00.0", "0x030200\n", "0x10de\n", Some("vfio-pci"))
        .gpu("0000:03:00.0", "0x030000\n", "0x1a03\n", Some("ast"))
        .gpu("0000:04:00.0", "0x038000\n", "0x1002\n", Some("amdgpu"))
        .gpu("0000:05:00.0", "0x030000\n", "0x8086\n", None)
        .gpu("0000:06:00.0", "0x030200\n", "0x10de\n", Some("nvidia"))
        .file(
            "proc/driver/nvidia/gpus/0000:01:00.0/information",
            "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   \t\t 98\nGPU UUID: \t GPU-8a5f\n",
        )
        .file(
            "proc/driver/nvidia/gpus/0000:06:00.0/information",
            "Model: \t\t NVIDIA L4\nGPU UUID: \t GPU-????????\n",
        )
        .file("sys/module/nvidia/version", "550.54.14\n")
        .file("sys/bus/pci/devices/0000:04:00.0/mem_info_vram_total", "17163091968\n")
        .file("sys/bus/pci/devices/0000:04:00.0/drm/renderD129/uevent", "")
        .file("sys/bus/pci/devices/0000:04:00.0/drm/card1/uevent", "")
        .file("dev/dri/renderD129", "")
        .file("dev/kfd", "");
    let gpus = Inventory::measure(&tree.roots(), None).gpus;
    let ids: Vec<&str> = gpus.iter().map(|gpu| gpu.id.as_str()).collect();
    assert_eq!(ids, ["GPU-8a5f", "0000:04:00.0", "0000:06:00.0"]);
    assert_eq!(gpus[0].model, "NVIDIA GeForce RTX 4090");
    assert_eq!(gpus[0].driver_version, "550.54.14");
    assert_eq!(gpus[0].memory_bytes, None, "sysfs does not tell it");
    assert_eq!(gpus[0].access, GpuAccess::Nvidia { id: "GPU-8a5f".into() });
    assert_eq!(gpus[1].vendor, Vendor::Amd);
    assert_eq!(gpus[1].model, "AMD 0x2684");
    assert_eq!(gpus[1].memory_bytes, Some(17_163_091_968));
    assert_eq!(
        gpus[1].access,
        GpuAccess::Nodes(vec!["/dev/dri/renderD129".into(), "/dev/kfd".into()])
    );
    assert_eq!(gpus[2].model, "NVIDIA L4");
}

#[test]
fn usage_is_measured_between_two_looks() {
    let tree = Tree::new()
        .host()
        .file("proc/stat", "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n")
        .file("proc/loadavg", "0.10 0.20 0.30 2/345 6789\n");
    let mut meter = UsageMeter::new(tree.roots());
    let first = meter.measure(None);
    assert_eq!((first.cpu_milli, first.disk_bytes), (None, None));
    assert_eq!(first.memory_bytes, Some(4 << 30));
    assert_eq!(first.pids, Some(345));
    let tree = tree.file("proc/stat", "cpu  140 0 110 740 110 0 0 0 0 0\n");
    assert_eq!(meter.measure(Some(tree.dir.path())).cpu_milli, Some(2_500));
    assert!(meter.measure(Some(tree.dir.path())).disk_bytes.is_some());
}

#[test]
fn what_the_operator_says_stands() {
    let says = CapacityConfig { cpu_milli: Some(7), desktop_slots: Some(0), ..Default::default() };
    let found = Inventory::measure(&Tree::new().host().roots(), None).overridden(&says);
    assert_eq!((found.cpu_milli, found.desktop_slots), (Some(7), 0));
    assert!(found.memory_bytes.is_some());
    assert_eq!(found.capacity().cpu_milli, Some(7));
}
