//! Which devices of this network namespace are bridges of a Docker engine.

use std::path::Path;

/// How many hexadecimal digits an engine puts into a bridge's name.
const DIGITS: usize = 12;

/// Whether the device is a bridge with a name that engines give: `docker0`, or
/// `br-` and the first digits of a network's id.
pub(super) fn is_docker_bridge(sys_class_net: &Path, device: &str) -> bool {
    named_by_docker(device) && sys_class_net.join(device).join("bridge").is_dir()
}

fn named_by_docker(device: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    device == "docker0"
        || device
            .strip_prefix("br-")
            .is_some_and(|digits| digits.len() == DIGITS && digits.chars().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bridges_with_an_engine_s_names_are_an_engine_s() {
        for (name, docker) in [
            ("docker0", true),
            ("br-0123456789ab", true),
            ("br-0123456789AB", false),
            ("br-lan", false),
            ("br0", false),
            ("eth0", false),
            ("docker1", false),
        ] {
            assert_eq!(named_by_docker(name), docker, "{name}");
        }
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("docker0/bridge")).unwrap();
        std::fs::create_dir_all(tree.path().join("br-0123456789ab")).unwrap();
        assert!(is_docker_bridge(tree.path(), "docker0"));
        assert!(!is_docker_bridge(tree.path(), "br-0123456789ab"));
    }
}
