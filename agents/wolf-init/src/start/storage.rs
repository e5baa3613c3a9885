//! Whether the two volumes are there and can be written.

use std::path::Path;

use wolfpack_dockerd::place::StepFailed;
use wolfpack_dockerd::place::mounts::{self, Mount};
use wolfpack_dockerd::status::Outcome;

use super::Achieved;
use crate::Config;

const STEP: &str = "storage";

pub(super) fn check(config: &Config) -> Achieved<()> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| StepFailed::new(STEP, error, "mount /proc"))?;
    let mounts = mounts::parse(&mountinfo);
    let kind = fit_for_images(&mounts, &config.data_root)?;
    writable(&config.data_root)?;
    writable(&config.state_dir)?;
    let data = config.data_root.display();
    match mounts::holding(&mounts, &config.state_dir) {
        Some(mount) if mount.fs_type == "overlay" => {
            let state = config.state_dir.display();
            let note = format!(
                "{state} is not a volume: identity and plan are lost with the container; start it \
                 with -v NAME:{state}"
            );
            Ok(((), Outcome::Degraded, note))
        }
        _ => Ok(((), Outcome::Done, format!("{data} is on {kind}"))),
    }
}

/// Overlays cannot be stacked on overlays; an engine that finds none fit copies
/// whole images instead, without a word.
fn fit_for_images<'m>(mounts: &'m [Mount], data_root: &Path) -> Result<&'m str, StepFailed> {
    let shown = data_root.display();
    let fix = format!("start the container with a volume of ext4 or xfs: -v NAME:{shown}");
    match mounts::holding(mounts, data_root) {
        Some(mount) if mount.fs_type == "overlay" => {
            Err(StepFailed::new(STEP, format!("{shown} is on an overlay"), fix))
        }
        Some(mount) if mount.read_only => {
            Err(StepFailed::new(STEP, format!("{shown} is read-only"), fix))
        }
        Some(mount) => Ok(&mount.fs_type),
        None => Err(StepFailed::new(STEP, format!("{shown} is on nothing"), fix)),
    }
}

fn writable(folder: &Path) -> Result<(), StepFailed> {
    let probe = folder.join(".wolfpack-init");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&probe, "written at every start\n"))
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| {
            let fix = format!("mount a volume that can be written: -v NAME:{}", folder.display());
            StepFailed::new(STEP, format!("{}: {error}", folder.display()), fix)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
1 0 0:1 / / rw - overlay overlay rw
2 1 0:2 / /var/lib/docker rw - ext4 /dev/vda rw
3 1 0:3 / /ro ro - xfs /dev/vdb ro
";

    #[test]
    fn overlays_and_what_cannot_be_written_are_refused() {
        let mounts = mounts::parse(MOUNTS);
        let of = |path: &str| fit_for_images(&mounts, Path::new(path));
        assert_eq!(of("/var/lib/docker").unwrap(), "ext4");
        assert!(of("/data").unwrap_err().why.contains("overlay"));
        assert!(of("/ro/docker").unwrap_err().why.contains("read-only"));
        assert!(fit_for_images(&[], Path::new("/data")).is_err());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        writable(&dir.path().join("deep/er")).unwrap();
        assert_eq!(dir.path().join("deep/er").read_dir().unwrap().count(), 0);
        let failed = writable(Path::new("/proc/none")).unwrap_err();
        assert_eq!(failed.step, STEP);
        assert!(failed.why.contains("/proc/none"), "{failed}");
    }
}
