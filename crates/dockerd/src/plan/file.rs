//! The plan on disk, so that an engine has the same networks after a start.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::NetworkPlan;

impl NetworkPlan {
    /// Reads a plan that was stored; `None` when there is none, or when what is
    /// there is not a plan (it is then planned anew). Blocking.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn load(file: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&bytes) {
            Ok(plan) => Ok(Some(plan)),
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "not a network plan; planned anew");
                Ok(None)
            }
        }
    }

    /// Stores the plan: whole or not at all. Blocking.
    ///
    /// # Errors
    /// When the file or its folder cannot be written.
    pub fn store(&self, file: &Path) -> io::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let beside = file.with_extension("new");
        let mut out = File::create(&beside)?;
        out.write_all(&serde_json::to_vec_pretty(self)?)?;
        out.sync_all()?;
        fs::rename(&beside, file)
    }
}

#[cfg(test)]
mod tests {
    use crate::outer::Outer;
    use crate::plan::{NetworkPlan, Wanted, plan};

    #[test]
    fn a_plan_survives_a_start_and_garbage_is_planned_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/network.json");
        assert_eq!(NetworkPlan::load(&file).unwrap(), None);
        let planned = plan(&Outer::default(), &Wanted::at_depth(1), None).unwrap();
        planned.store(&file).unwrap();
        assert_eq!(NetworkPlan::load(&file).unwrap(), Some(planned));
        for garbage in [&b""[..], b"{", b"{\"bridge\":\"172.20.0.1/99\"}"] {
            std::fs::write(&file, garbage).unwrap();
            assert_eq!(NetworkPlan::load(&file).unwrap(), None);
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(NetworkPlan::load(&file).is_err());
    }
}
