//! Whether the two volumes are there and can be written, and an engine can keep
//! images on the first.

use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};
use wolfpack_dockerd::place::StepFailed;
use wolfpack_dockerd::place::mounts::{self, Mount};
use wolfpack_dockerd::status::Outcome;

use super::Achieved;
use crate::Config;

const STEP: &str = "storage";
/// Free space without which an engine cannot write what it starts with, in
/// bytes. No more than that: one that starts on a full disk reclaims images.
const ROOM: u64 = 64_000_000;
/// Where overlays are tried, below the data root.
const TRIED: &str = ".wolfpack-init-overlay";

pub(super) fn check(config: &Config) -> Achieved<()> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| StepFailed::new(STEP, error, "mount /proc"))?;
    let mounts = mounts::parse(&mountinfo);
    let kind = fit_for_images(&mounts, &config.data_root)?;
    writable(&config.data_root)?;
    writable(&config.state_dir)?;
    let data = config.data_root.display();
    let free = free(&config.data_root)?;
    enough(&config.data_root, free)?;
    // Another driver was asked for, and the engine itself is asked about it.
    let overlays = ["", "overlay", "overlay2", "overlayfs"];
    if overlays.contains(&config.engine.storage_driver.as_str()) {
        overlay(&config.data_root)?;
    }
    match mounts::holding(&mounts, &config.state_dir) {
        Some(mount) if mount.fs_type == "overlay" => {
            let state = config.state_dir.display();
            let note = format!(
                "{state} is not a volume: identity and plan are lost with the container; start it \
                 with -v NAME:{state}"
            );
            Ok(((), Outcome::Degraded, note))
        }
        _ => Ok(((), Outcome::Done, format!("{data} is on {kind}, {} MB free", free / 1_000_000))),
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

/// Bytes that are free on the file system of a folder.
fn free(folder: &Path) -> Result<u64, StepFailed> {
    let stat = rustix::fs::statvfs(folder).map_err(|errno| {
        StepFailed::new(STEP, format!("{}: {errno}", folder.display()), "mount another volume")
    })?;
    // With what is set aside for root, whom the engine and the agent are, and
    // no sandbox: a wolf that they filled can still start and make room.
    Ok(stat.f_bfree.saturating_mul(stat.f_frsize))
}

fn enough(folder: &Path, free: u64) -> Result<(), StepFailed> {
    if free >= ROOM {
        return Ok(());
    }
    let why = format!(
        "{} has {} MB free of the {} MB it needs",
        folder.display(),
        free / 1_000_000,
        ROOM / 1_000_000
    );
    Err(StepFailed::new(STEP, why, "make room on the volume, or give it a larger one"))
}

/// Mounts an overlay on the data root as the engine will for each container,
/// reads and writes through it, and takes it away again.
fn overlay(data_root: &Path) -> Result<(), StepFailed> {
    let at = data_root.join(TRIED);
    // An init that was killed here left its folders; its mount went with it.
    let cleared = || match std::fs::remove_dir_all(&at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    };
    let tried = cleared().and_then(|()| try_overlay(&at));
    // Whatever came of it: the folders go.
    let gone = cleared();
    tried.and(gone).map_err(|error| {
        let why = format!("no overlay can be mounted on {}: {error}", data_root.display());
        let fix = "mount a volume of ext4, or of xfs with ftype=1, and start the container with \
            --cap-add SYS_ADMIN --security-opt seccomp=unconfined";
        StepFailed::new(STEP, why, fix)
    })
}

fn try_overlay(at: &Path) -> io::Result<()> {
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| at.join(name));
    for folder in [&lower, &upper, &work, &merged] {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(lower.join("below"), "below")?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount("overlay", &merged, "overlay", flags, options.as_c_str())?;
    // What is below is seen, and covered without being changed.
    let used = std::fs::read(merged.join("below"))
        .and_then(|_| std::fs::write(merged.join("below"), "above"))
        .and_then(|()| std::fs::read(lower.join("below")));
    rustix::mount::unmount(&merged, UnmountFlags::DETACH)?;
    match used?.as_slice() {
        b"below" => Ok(()),
        _ => Err(io::Error::other("what is below was changed")),
    }
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
    fn a_full_disk_is_named_and_the_last_free_byte_counts() {
        let folder = Path::new("/var/lib/docker");
        assert!(enough(folder, ROOM).is_ok());
        let failed = enough(folder, ROOM - 1).unwrap_err();
        assert_eq!(failed.step, STEP);
        assert!(failed.why.contains("63 MB free"), "{failed}");
        assert!(free(Path::new("/")).unwrap() > 0);
        assert!(free(Path::new("/none/at/all")).is_err());
    }

    /// An overlay's upper folder is never procfs.
    #[test]
    fn what_carries_no_overlay_is_named() {
        let failed = overlay(Path::new("/proc/self")).unwrap_err();
        assert!(failed.why.contains("no overlay can be mounted on /proc/self"), "{failed}");
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
