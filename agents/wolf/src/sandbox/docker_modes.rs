//! What of Docker a wolf can give.

use wolfpack_types::DockerMode;

use crate::config::DockerConfig;
use crate::engine::EngineInfo;

/// The modes that sandboxes may have here: an engine of their own only where
/// root in them is nobody on the host, the wolf's only where its operator says
/// so.
#[must_use]
pub fn docker_modes(engine: &EngineInfo, config: &DockerConfig) -> Vec<DockerMode> {
    let nested = engine.remapped_root.is_some().then_some(DockerMode::Nested);
    let shared = config.shared.then_some(DockerMode::Shared);
    [Some(DockerMode::None), nested, shared].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_has_its_condition() {
        let mut engine = EngineInfo {
            version: "20.10.24".into(),
            storage_driver: "overlay2".into(),
            cgroup_version: 1,
            cpus: None,
            data_root: None,
            remapped_root: None,
            backing_filesystem: None,
            cdi_folders: Vec::new(),
        };
        let mut config = DockerConfig::default();
        assert_eq!(docker_modes(&engine, &config), [DockerMode::None]);
        engine.remapped_root = Some((100_000, 100_000));
        assert_eq!(docker_modes(&engine, &config), [DockerMode::None, DockerMode::Nested]);
        config.shared = true;
        assert!(docker_modes(&engine, &config).contains(&DockerMode::Shared));
        engine.remapped_root = None;
        assert_eq!(docker_modes(&engine, &config), [DockerMode::None, DockerMode::Shared]);
    }
}
