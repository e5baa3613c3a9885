//! What this machine's kernel cannot show: controls that need what it does not
//! have. They are said in one line, past the capture of passing tests.

use std::io::Write as _;
use std::path::Path;

/// The kernel's first IPC namespace.
const FIRST_IPC: &str = "ipc:[4026531839]";
/// As the probe: kinds of file system that only read.
const HARMLESS: [&str; 5] = ["squashfs", "erofs", "iso9660", "cramfs", "romfs"];

/// Why the control of a check cannot be shown here; `None` when it must be.
pub(crate) fn why(check: &str) -> Option<&'static str> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // Version 2 has number 0 and names no controllers.
    let version_1 = |controller: &str| {
        let lines = read("/proc/self/cgroup");
        let mut named = lines.lines().filter_map(|line| line.split(':').nth(1));
        named.any(|names| !names.is_empty() && names.contains(controller))
    };
    let missing = match check {
        "module_load" => !Path::new("/proc/modules").exists(),
        "devices_allow" => !version_1("devices"),
        "release_agent" => !version_1(""),
        "disk_nodes" => !Path::new("/sys/block/loop0/dev").exists(),
        "mount_disk" => {
            let known = read("/proc/filesystems");
            !known.lines().any(|line| HARMLESS.contains(&line.trim()))
        }
        "host_ipc" => {
            let own = std::fs::read_link("/proc/self/ns/ipc").unwrap();
            own.to_string_lossy() != FIRST_IPC
        }
        _ => panic!("the control of {check} is always shown"),
    };
    missing.then_some(match check {
        "module_load" => "the kernel loads no modules",
        "devices_allow" | "release_agent" => "there are no version 1 cgroups",
        "disk_nodes" => "there is no loop device",
        "mount_disk" => "the kernel has no file system that only reads",
        _ => "this machine is a container itself",
    })
}

/// One line, whatever is captured.
#[test]
fn what_this_machine_cannot_show_is_said() {
    let all =
        ["module_load", "devices_allow", "release_agent", "disk_nodes", "mount_disk", "host_ipc"];
    let missing: Vec<String> =
        all.iter().filter_map(|check| Some(format!("{check} ({})", why(check)?))).collect();
    let line = if missing.is_empty() {
        "probe controls: all shown\n".to_owned()
    } else {
        format!("probe controls NOT SHOWN on this machine: {}\n", missing.join(", "))
    };
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    assert!(missing.len() < all.len(), "a machine that shows none of them shows nothing");
}
