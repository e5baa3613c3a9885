//! How GPUs are found and what of them is offered.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::inventory::{Sources, default_toolkit_programs};

/// The most encoder sessions the registry takes for a device.
const SESSIONS: u32 = 10_000;

/// How GPUs are found and what of them is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuConfig {
    /// Programs of NVIDIA's container toolkit that say its version; the first
    /// that is there counts. Default: `nvidia-ctk`, `nvidia-container-runtime`,
    /// `nvidia-container-cli`.
    pub toolkit_programs: Vec<PathBuf>,
    /// NVIDIA's tool that lists the instances of GPUs. Default: `nvidia-smi`.
    pub nvidia_smi: PathBuf,
    /// Where this agent sees the engine's CDI specifications, when that is not
    /// where the engine has them. Default: where the engine has them.
    pub cdi_folders: Vec<PathBuf>,
    /// Encoder sessions of a GPU whose model is not in the table. Default: not
    /// known, which offers none.
    pub encoder_sessions: Option<u32>,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            toolkit_programs: default_toolkit_programs(),
            nvidia_smi: "nvidia-smi".into(),
            cdi_folders: Vec::new(),
            encoder_sessions: None,
        }
    }
}

impl GpuConfig {
    /// This host's sources, as configured.
    #[must_use]
    pub fn sources(&self) -> Sources {
        Sources {
            toolkit_programs: self.toolkit_programs.clone(),
            nvidia_smi: self.nvidia_smi.clone(),
            cdi_folders: self.cdi_folders.clone(),
            encoder_sessions: self.encoder_sessions,
            ..Sources::host()
        }
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.encoder_sessions.is_some_and(|sessions| sessions > SESSIONS) {
            faults.push(format!("gpu.encoder_sessions: at most {SESSIONS}"));
        }
        if self.cdi_folders.iter().any(|folder| !folder.is_absolute()) {
            faults.push("gpu.cdi_folders must be absolute paths".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_told() {
        assert_eq!(GpuConfig::default().faults(), Vec::<String>::new());
        let odd = GpuConfig {
            encoder_sessions: Some(10_001),
            cdi_folders: vec!["etc/cdi".into()],
            ..GpuConfig::default()
        };
        assert_eq!(odd.faults().len(), 2);
        let sources = GpuConfig { encoder_sessions: Some(3), ..GpuConfig::default() }.sources();
        assert_eq!(sources.encoder_sessions, Some(3));
        assert!(!sources.toolkit_programs.is_empty());
    }
}
