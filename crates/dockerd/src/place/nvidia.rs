//! Whether an engine can hand NVIDIA GPUs to containers: the devices must be in
//! this container, and a runtime or a CDI specification beside them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::program::run;

/// Older toolkits let a container become root outside (CVE-2024-0132,
/// CVE-2025-23266).
const SAFE: [u32; 3] = [1, 17, 8];

/// Where things are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvidiaPaths {
    /// The device that is there when the driver is.
    pub control_device: PathBuf,
    /// The container runtime.
    pub runtime: PathBuf,
    /// The toolkit's program.
    pub toolkit: PathBuf,
    /// Folders of CDI specifications.
    pub cdi_dirs: Vec<PathBuf>,
}

impl Default for NvidiaPaths {
    fn default() -> Self {
        Self {
            control_device: "/dev/nvidiactl".into(),
            runtime: "/usr/bin/nvidia-container-runtime".into(),
            toolkit: "/usr/bin/nvidia-ctk".into(),
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        }
    }
}

/// What is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The driver's device.
    pub device: bool,
    /// The runtime.
    pub runtime: Option<PathBuf>,
    /// What the toolkit or the runtime says as its version.
    pub version: Option<String>,
    /// CDI specifications for NVIDIA's devices.
    pub specifications: Vec<PathBuf>,
}

/// What an engine is told about GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "gpu")]
pub enum Nvidia {
    /// No NVIDIA device is here.
    None,
    /// It can hand them out.
    Ready {
        /// The runtime to know as `nvidia`.
        runtime: Option<PathBuf>,
        /// Whether CDI specifications are there.
        cdi: bool,
        /// The toolkit's version; empty without one.
        version: String,
    },
    /// A device is here, and it cannot be handed out.
    Refused {
        /// Why.
        why: String,
        /// What to do about it.
        fix: String,
    },
}

/// Looks and asks.
pub async fn look(paths: &NvidiaPaths) -> Found {
    let device = paths.control_device.exists();
    let runtime = paths.runtime.is_file().then(|| paths.runtime.clone());
    let mut version = None;
    if device {
        let programs = [&paths.toolkit, &paths.runtime];
        for program in programs.into_iter().filter(|program| program.is_file()) {
            if version.is_none() {
                version = run(program.as_os_str(), &["--version"]).await.ok();
            }
        }
    }
    let specifications = paths.cdi_dirs.iter().flat_map(|folder| specifications(folder)).collect();
    Found { device, runtime, version, specifications }
}

fn specifications(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let kind = |file: &PathBuf| {
        let suffix = file.extension().and_then(|suffix| suffix.to_str());
        matches!(suffix, Some("json" | "yaml" | "yml"))
            && std::fs::read_to_string(file).is_ok_and(|text| text.contains("nvidia.com/gpu"))
    };
    files.filter(kind).collect()
}

/// What the engine is told. Pure.
#[must_use]
pub fn plan(found: &Found) -> Nvidia {
    if !found.device {
        return Nvidia::None;
    }
    let refused = |why: String, fix: &str| Nvidia::Refused { why, fix: fix.to_owned() };
    let cdi = !found.specifications.is_empty();
    if found.runtime.is_none() && !cdi {
        return refused(
            "an NVIDIA device is here, but neither a container runtime nor a CDI specification"
                .to_owned(),
            "mount the machine's CDI specification at /etc/cdi, or use an image with \
             nvidia-container-toolkit",
        );
    }
    let version = found.version.as_deref().and_then(version);
    match (&found.runtime, version) {
        // A specification alone needs none of the toolkit's programs.
        (None, None) => Nvidia::Ready { runtime: None, cdi, version: String::new() },
        (Some(_), None) => refused(
            "the NVIDIA container toolkit does not say its version".to_owned(),
            "install nvidia-container-toolkit 1.17.8 or newer",
        ),
        (_, Some(version)) if version < SAFE => refused(
            format!(
                "the NVIDIA container toolkit is {}, and up to 1.17.7 it lets a container become \
                 root outside",
                shown(version)
            ),
            "install nvidia-container-toolkit 1.17.8 or newer",
        ),
        (runtime, Some(version)) => {
            Nvidia::Ready { runtime: runtime.clone(), cdi, version: shown(version) }
        }
    }
}

fn shown(version: [u32; 3]) -> String {
    version.map(|part| part.to_string()).join(".")
}

/// The first `1.2.3` of a text.
fn version(text: &str) -> Option<[u32; 3]> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let mut parts = word.split('.').map(|part| part.parse().ok());
        Some([parts.next()??, parts.next()??, parts.next()??])
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn found(version: &str) -> Found {
        Found {
            device: true,
            runtime: Some("/usr/bin/nvidia-container-runtime".into()),
            version: Some(version.to_owned()),
            specifications: Vec::new(),
        }
    }

    #[test]
    fn old_toolkits_are_refused() {
        for (said, ready) in [
            ("NVIDIA Container Toolkit CLI version 1.17.8\ncommit: 1", true),
            ("NVIDIA Container Toolkit CLI version 1.18.0-rc.2", true),
            ("NVIDIA Container Runtime version 1.17.7", false),
            ("NVIDIA Container Runtime version 1.9.12", false),
            ("no number", false),
        ] {
            assert_eq!(matches!(plan(&found(said)), Nvidia::Ready { .. }), ready, "{said}");
        }
    }

    #[test]
    fn without_a_device_nothing_is_told_and_a_bare_device_is_refused() {
        let none = Found { device: false, ..found("1.18.0") };
        assert_eq!(plan(&none), Nvidia::None);
        let bare = Found { runtime: None, version: None, ..found("") };
        assert!(matches!(plan(&bare), Nvidia::Refused { .. }));
        let cdi = Found { specifications: vec!["/etc/cdi/nvidia.yaml".into()], ..bare };
        assert!(matches!(plan(&cdi), Nvidia::Ready { cdi: true, runtime: None, .. }));
    }

    #[tokio::test]
    async fn it_is_found_where_the_paths_say() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let paths = NvidiaPaths {
            control_device: at("nvidiactl"),
            runtime: at("runtime"),
            toolkit: at("ctk"),
            cdi_dirs: vec![at("none"), at("cdi")],
        };
        assert_eq!(look(&paths).await, Found::default());
        std::fs::write(&paths.control_device, "").unwrap();
        std::fs::write(&paths.toolkit, "#!/bin/sh\necho version 1.17.9\n").unwrap();
        std::fs::set_permissions(&paths.toolkit, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(at("cdi")).unwrap();
        std::fs::write(at("cdi/nvidia.yaml"), "kind: nvidia.com/gpu\n").unwrap();
        std::fs::write(at("cdi/other.yaml"), "kind: vendor.com/net\n").unwrap();
        std::fs::write(at("cdi/nvidia.txt"), "kind: nvidia.com/gpu\n").unwrap();
        let found = look(&paths).await;
        assert_eq!(found.specifications, [at("cdi/nvidia.yaml")]);
        let ready = Nvidia::Ready { runtime: None, cdi: true, version: "1.17.9".to_owned() };
        assert_eq!(plan(&found), ready);
    }
}
