//! Where containers write on the engine's host, and how much by its own count.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where a container's writes go, by paths of the engine's host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Its own layer; absent where the engine does not say.
    pub layer: Option<PathBuf>,
    /// Its volumes, those of its image too.
    pub volumes: Vec<WrittenVolume>,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenVolume {
    /// Its name.
    pub name: String,
    /// Where it is in the container.
    pub target: String,
    /// Where it is on the engine's host.
    pub path: PathBuf,
}

/// Bytes on disk by the engine's own count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineUsage {
    /// Of volumes, by name.
    pub volumes: BTreeMap<String, u64>,
    /// Of the layers of containers, by the engine's id.
    pub layers: BTreeMap<String, u64>,
}
