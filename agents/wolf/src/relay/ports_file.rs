//! The relay's ports, on disk: sandboxes that run were told them, so a new
//! agent must listen on the same. Blocking: call from a blocking thread.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::lifecycle::RelayPorts;

/// A file with the two ports.
#[derive(Debug, Clone)]
pub struct PortsFile {
    path: PathBuf,
}

impl PortsFile {
    /// The file in this directory.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join("relay-ports") }
    }

    /// The ports of last time; `None` when there are none or they cannot be
    /// read, which costs running sandboxes their own tunnel, not their life.
    #[must_use]
    pub fn read(&self) -> Option<RelayPorts> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let (gateway, broker) = text.trim().split_once(' ')?;
        Some(RelayPorts { gateway: gateway.parse().ok()?, broker: broker.parse().ok()? })
    }

    /// Keeps the ports.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, ports: RelayPorts) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        let mut staged = tempfile::NamedTempFile::new_in(dir)?;
        writeln!(staged, "{} {}", ports.gateway, ports.broker)?;
        staged.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}
