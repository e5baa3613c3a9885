//! What is remembered of the wolf's container between two starts.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wolfpack_registry::ca::write_private;

/// The file `wolf-container.json` in the data folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// The instance of the state volume that has joined: with another one the
    /// wolf joins anew.
    pub(super) joined: Option<String>,
    /// The ports of the relay: they are in the container's environment.
    pub(super) gateway_port: Option<u16>,
    /// As above.
    pub(super) broker_port: Option<u16>,
}

impl Record {
    /// What was remembered; nothing when there is no file, or it is not one of ours.
    pub(super) fn read(data: &Path) -> Self {
        std::fs::read(file(data))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub(super) fn save(&self, data: &Path) -> io::Result<()> {
        write_private(&file(data), &serde_json::to_vec_pretty(self)?)
    }
}

fn file(data: &Path) -> PathBuf {
    data.join("wolf-container.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_runtime::BoxError;

    #[test]
    fn what_was_saved_is_read_and_nonsense_is_nothing() -> Result<(), BoxError> {
        let folder = tempfile::tempdir()?;
        assert_eq!(Record::read(folder.path()), Record::default());
        let record =
            Record { joined: Some("a".to_owned()), gateway_port: Some(1), broker_port: None };
        record.save(folder.path())?;
        assert_eq!(Record::read(folder.path()), record);
        std::fs::write(file(folder.path()), "{")?;
        assert_eq!(Record::read(folder.path()), Record::default());
        Ok(())
    }
}
