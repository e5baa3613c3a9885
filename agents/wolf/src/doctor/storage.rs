//! Where images and containers are.

use wolfpack_dockerd::place::mounts;

use super::check::Found;
use super::engine::away;
use super::place::Look;

/// Drivers that share layers by overlaying them.
const GOOD: [&str; 2] = ["overlay2", "overlayfs"];
/// Those that work, and worse.
const POOR: [&str; 4] = ["fuse-overlayfs", "btrfs", "zfs", "devicemapper"];

pub(super) fn driver(look: &Look) -> Found {
    let engine = match &look.engine {
        Ok(engine) => engine,
        Err(why) => return away(why),
    };
    let driver = engine.driver.as_str();
    let found = if GOOD.contains(&driver) {
        Found::pass(format!("the storage driver is {driver}"))
    } else if POOR.contains(&driver) {
        Found::warn(
            format!("the storage driver is {driver}: it works, and is slower"),
            "use overlay2 on ext4 or xfs",
        )
    } else {
        Found::fail(
            format!("the storage driver is {driver}: every container is a full copy of its image"),
            "put the engine's data on a volume (ext4 or xfs), then overlay2 works",
        )
    };
    found.fact("driver", driver)
}

pub(super) fn overlay_depth(look: &Look) -> Found {
    let root = look.data_root();
    let Some(mount) = mounts::holding(&look.mounts, &root) else {
        return Found::skip(format!("what {} is on cannot be told", root.display()));
    };
    let kind = mount.fs_type.as_str();
    let words = format!("{} is on {kind} (at {})", root.display(), mount.target.display());
    let found = match kind {
        "overlay" | "fuse.fuse-overlayfs" => Found::fail(
            format!("{words}: overlays do not stack"),
            "mount a volume there: docker run -v NAME:/var/lib/docker",
        ),
        "tmpfs" | "ramfs" => {
            Found::warn(format!("{words}: images take memory"), "mount a volume on a disk there")
        }
        "nfs" | "nfs4" | "cifs" | "9p" | "fuse" | "vfat" | "exfat" => Found::fail(
            format!("{words}: layers cannot be overlaid on it"),
            "put the engine's data on a local disk with ext4 or xfs",
        ),
        _ => Found::pass(words),
    };
    found.fact("filesystem", kind)
}
