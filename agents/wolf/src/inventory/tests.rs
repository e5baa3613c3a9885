use super::*;

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
    assert_eq!(found.gpus, Found::default());
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
