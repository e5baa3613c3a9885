//! Whether the engine can keep a container to a project quota. Pure.

use super::EngineInfo;

/// From this version on volumes are kept to a quota too.
const VOLUMES_FROM: u32 = 23;

/// Whether containers can be given a size: overlay2 on XFS that is mounted with
/// project quotas. `mountinfo` is `/proc/self/mountinfo` as the engine sees it.
#[must_use]
pub fn of_containers(engine: &EngineInfo, mountinfo: &str) -> bool {
    let overlay = matches!(engine.storage_driver.as_str(), "overlay2");
    let xfs = engine.backing_filesystem.as_deref() == Some("xfs");
    let Some(data_root) = engine.data_root.as_deref().filter(|_| overlay && xfs) else {
        return false;
    };
    // The mount that is nearest above; of two at one place the later is seen.
    let above = mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        let options = filesystem.split(' ').nth(2)?;
        data_root.starts_with(point).then_some((point.len(), options))
    });
    let nearest = above.max_by_key(|(length, _)| *length);
    nearest.is_some_and(|(_, options)| {
        options.split(',').any(|option| matches!(option, "prjquota" | "pquota"))
    })
}

/// Whether volumes can be given a size too.
#[must_use]
pub fn of_volumes(engine: &EngineInfo, mountinfo: &str) -> bool {
    let major = engine.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= VOLUMES_FROM) && of_containers(engine, mountinfo)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
31 22 254:2 / /var/lib/docker rw shared:2 - xfs /dev/vdb rw,attr2,prjquota
32 22 254:3 / /srv rw shared:3 - xfs /dev/vdc rw,attr2,noquota
";

    fn engine(version: &str, driver: &str, backing: &str, root: &str) -> EngineInfo {
        EngineInfo {
            version: version.into(),
            storage_driver: driver.into(),
            cgroup_version: 2,
            cpus: None,
            data_root: Some(root.into()),
            remapped_root: None,
            backing_filesystem: Some(backing.into()),
            cdi_folders: Vec::new(),
        }
    }

    #[test]
    fn only_overlay_on_xfs_with_project_quotas_keeps_sizes() {
        let root = "/var/lib/docker/100000.100000";
        assert!(of_containers(&engine("20.10.24", "overlay2", "xfs", root), MOUNTS));
        assert!(!of_volumes(&engine("20.10.24+dfsg1", "overlay2", "xfs", root), MOUNTS));
        assert!(of_volumes(&engine("28.2.2", "overlay2", "xfs", root), MOUNTS));
        for (driver, backing, root) in [
            ("overlay2", "extfs", root),
            ("vfs", "xfs", root),
            ("overlay2", "xfs", "/srv/docker"),
            ("overlay2", "xfs", "/data"),
        ] {
            let engine = engine("28.2.2", driver, backing, root);
            assert!(!of_containers(&engine, MOUNTS), "{driver} {backing} {root}");
        }
    }
}
