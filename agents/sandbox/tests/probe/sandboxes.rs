//! What the probe finds where nothing was weakened.

use super::machine::{Network, docker_ok, engine, name};
use super::probed::probe;

/// Without Docker: flags as a wolf's agent gives them. What the wolf's
/// firewall keeps away is not asked here, where there is no wolf.
#[test]
fn a_sandbox_without_docker_is_allowed_nothing() {
    if !engine() {
        return;
    }
    let network = Network(name("probe"));
    let icc = "com.docker.network.bridge.enable_icc=false";
    docker_ok(&["network", "create", "--opt", icc, &network.0]);
    let mut flags = vec!["--network", &network.0, "--security-opt", "no-new-privileges"];
    flags.extend(["--cap-drop", "ALL"]);
    for capability in ["SETUID", "SETGID", "SETPCAP", "CHOWN", "KILL", "DAC_OVERRIDE", "FOWNER"] {
        flags.extend(["--cap-add", capability]);
    }
    let mut arguments = vec!["--expect", "none"];
    for check in ALL.iter().filter(|check| !["wolf_ports", "metadata"].contains(check)) {
        arguments.extend(["--only", check]);
    }
    let probed = probe(&flags, &arguments);
    assert_eq!(probed.verdicts.len(), ALL.len() - 2);
    for check in probed.verdicts.keys() {
        probed.is(check, "blocked");
    }
    assert_eq!(probed.code, 0);
    let offline = probe(&["--network", "none", "--cap-drop", "ALL"], &["--expect", "none"]);
    assert_eq!(offline.verdicts.len(), ALL.len(), "every check is known to this suite");
    for check in ["wolf_ports", "metadata", "neighbour_ports"] {
        offline.is(check, "blocked");
    }
}

/// Every check; each has a control in this suite.
pub(crate) const ALL: [&str; 23] = [
    "core_pattern",
    "kernel_helpers",
    "sysrq",
    "kernel_memory",
    "module_load",
    "bpf",
    "devices_allow",
    "release_agent",
    "mknod_disk",
    "disk_nodes",
    "mount_disk",
    "mount",
    "host_pid",
    "host_ipc",
    "host_network",
    "host_ptrace",
    "neighbour_processes",
    "neighbour_sockets",
    "neighbour_volumes",
    "docker_socket",
    "neighbour_ports",
    "wolf_ports",
    "metadata",
];
