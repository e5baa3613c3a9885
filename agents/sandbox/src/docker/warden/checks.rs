//! What must be so before an engine is worth a start.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The program in a `PATH`, if it is there and can be run.
#[must_use]
pub(super) fn find(program: &str, path: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    path.split(':').filter(|folder| folder.starts_with('/')).find_map(|folder| {
        let file = Path::new(folder).join(program);
        let meta = std::fs::metadata(&file).ok()?;
        (meta.is_file() && meta.permissions().mode() & 0o111 != 0).then_some(file)
    })
}

/// Why the engine's data cannot be there; `None` when it can. On the
/// container's own overlay every container of the engine would need overlay on
/// overlay, which the kernel refuses, and a temporary file system is memory.
#[must_use]
pub(super) fn unfit(data: &Path, mountinfo: &str) -> Option<String> {
    let place = data.display();
    let Some(kind) = file_system(data, mountinfo) else {
        return Some(format!(
            "{place} is not a volume but part of the sandbox's own file system, on which no engine \
             can keep its images; the wolf mounts one for docker = NESTED: create the sandbox so"
        ));
    };
    matches!(kind.as_str(), "overlay" | "aufs" | "tmpfs" | "ramfs" | "fuse-overlayfs").then(|| {
        format!("{place} is on {kind}, on which no engine can keep its images; it needs a volume on a disk")
    })
}

/// The type of the file system mounted right there; the last one counts.
fn file_system(place: &Path, mountinfo: &str) -> Option<String> {
    let place = place.to_str()?;
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let at = before.split(' ').nth(4)?;
            (at == place).then(|| after.split(' ').next().map(str::to_owned))?
        })
        .next_back()
}

/// IPv4 addresses of the names that the deepest containers must know too, by
/// the sandbox's `/etc/hosts`.
#[must_use]
pub(super) fn names(hosts: &str, wanted: &[&str]) -> BTreeMap<String, Ipv4Addr> {
    let mut found = BTreeMap::new();
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<Ipv4Addr>) else { continue };
        for word in words {
            if let Some(name) = wanted.iter().find(|name| name.eq_ignore_ascii_case(word)) {
                found.entry((*name).to_owned()).or_insert(address);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
100 90 0:50 / / rw,relatime master:1 - overlay overlay rw,lowerdir=a\n\
101 100 254:0 /var/lib/docker/volumes/v/_data /var/lib/docker rw - ext4 /dev/vda rw\n\
102 100 0:51 / /tmp/docker rw - tmpfs tmpfs rw\n\
103 100 254:0 /x /twice rw - ext4 /dev/vda rw\n\
104 100 0:52 / /twice rw shared:7 - overlay overlay rw\n";

    #[test]
    fn only_a_volume_on_a_disk_will_do() {
        assert_eq!(unfit(Path::new("/var/lib/docker"), MOUNTS), None);
        let why = |place: &str| unfit(Path::new(place), MOUNTS).unwrap();
        assert!(why("/var/lib/other").contains("is not a volume"));
        assert!(why("/var/lib/docker/deeper").contains("is not a volume"));
        assert!(why("/tmp/docker").contains("tmpfs"));
        assert!(why("/twice").contains("overlay"), "what was mounted last");
    }

    #[test]
    fn programs_are_found_where_they_can_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dockerd");
        let path = format!("relative:/nowhere:{}", folder.path().display());
        std::fs::write(&file, "").unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode))
                .unwrap();
        };
        mode(0o644);
        assert_eq!(find("dockerd", &path), None);
        mode(0o755);
        assert_eq!(find("dockerd", &path), Some(file.clone()));
    }

    #[test]
    fn the_wolfs_name_is_read_from_hosts() {
        let hosts = "127.0.0.1 localhost\n::1 wolfpack.internal\n172.20.1.1\twolfpack.internal # x\n9.9.9.9 Wolfpack.Internal\n";
        let found = names(hosts, &["wolfpack.internal"]);
        assert_eq!(found.len(), 1);
        assert_eq!(found["wolfpack.internal"], Ipv4Addr::new(172, 20, 1, 1));
    }
}
