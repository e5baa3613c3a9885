//! What is mounted, from the text of `/proc/self/mountinfo`. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What of the filesystem is mounted; `/` is all of it, `/..` something
    /// above this cgroup namespace.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Whether this mount, not its filesystem, is read-only.
    pub read_only: bool,
    /// `overlay`, `cgroup2`, ...
    pub fs_type: String,
    /// Options of its filesystem; on cgroup v1 they name the controllers.
    pub super_options: Vec<String>,
}

/// Reads a mountinfo, oldest first. Lines that are none are left out.
#[must_use]
pub fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(line).collect()
}

/// `id parent major:minor root target options [fields] - type source super`.
fn line(text: &str) -> Option<Mount> {
    let (mount, filesystem) = text.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, target, options) = (mount.next()?, mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let fs_type = filesystem.next()?.to_owned();
    let super_options = filesystem.nth(1).unwrap_or_default();
    Some(Mount {
        root: unescape(root),
        target: unescape(target),
        read_only: options.split(',').any(|option| option == "ro"),
        fs_type,
        super_options: super_options.split(',').map(str::to_owned).collect(),
    })
}

/// The kernel writes blanks and backslashes as `\040`.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| bytes.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(octal.unwrap_or(bytes[at]));
        at += if octal.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(plain))
}

/// What hides a part of `/proc` or `/sys`, in the order in which it must be
/// unmounted: while one is left, the kernel refuses a fresh proc or sysfs in a
/// user namespace, so no sandbox would start. The cgroup trees are none of it.
#[must_use]
pub fn masks(mounts: &[Mount]) -> Vec<PathBuf> {
    let hides = |mount: &&Mount| {
        let below = |top: &str| mount.target.starts_with(top) && mount.target != Path::new(top);
        let cgroup = mount.target.starts_with("/sys/fs/cgroup");
        (below("/proc") || below("/sys")) && !cgroup
    };
    let mut masks: Vec<PathBuf> =
        mounts.iter().filter(hides).map(|mount| mount.target.clone()).collect();
    masks.sort_by_key(|target| std::cmp::Reverse(target.components().count()));
    masks
}

/// The mount that a path is on.
#[must_use]
pub fn holding<'m>(mounts: &'m [Mount], path: &Path) -> Option<&'m Mount> {
    // Of two on one target the newer one is seen.
    let on = |mount: &&Mount| path.starts_with(&mount.target);
    mounts.iter().filter(on).max_by_key(|mount| mount.target.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a container of Docker 20.10 on cgroup v1, shortened.
    const DOCKER: &str = "\
700 600 0:60 / / rw,relatime master:200 - overlay overlay rw,lowerdir=/l
701 700 0:61 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
702 700 0:62 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
703 700 0:63 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
704 703 0:64 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
705 704 0:30 / /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:15 - cgroup cgroup rw,memory
706 700 254:0 /var/lib/docker/volumes/a\\040b/_data /var/lib/docker rw,relatime master:1 - ext4 /dev/vda rw
707 701 0:61 /bus /proc/bus ro,nosuid,nodev,noexec,relatime - proc proc rw
708 701 0:62 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
709 701 0:61 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
710 709 0:65 / /proc/sys/net/deep ro,relatime - tmpfs tmpfs ro
711 703 0:66 / /sys/firmware ro,relatime - tmpfs tmpfs ro
712 701 0:67 / /proc/bus ro,relatime - tmpfs tmpfs ro
";

    #[test]
    fn what_hides_proc_and_sys_is_found_deepest_first() {
        let masks = masks(&parse(DOCKER));
        assert_eq!(masks[0], Path::new("/proc/sys/net/deep"));
        let rest = ["/proc/bus", "/proc/kcore", "/proc/sys", "/sys/firmware", "/proc/bus"];
        assert_eq!(masks[1..], rest.map(PathBuf::from), "both on /proc/bus, no cgroup");
    }

    #[test]
    fn nothing_hidden_needs_nothing() {
        let bare: String = DOCKER.lines().take(7).map(|line| format!("{line}\n")).collect();
        assert_eq!(masks(&parse(&bare)), Vec::<PathBuf>::new());
    }

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        let mounts = parse(DOCKER);
        assert_eq!(mounts.len(), 13);
        assert_eq!(mounts[6].root, Path::new("/var/lib/docker/volumes/a b/_data"));
        assert!(mounts[3].read_only && !mounts[4].read_only && mounts[5].read_only);
        assert_eq!(mounts[5].super_options, ["rw", "memory"]);
        assert_eq!(parse("nonsense\n\n1 2 3\n"), Vec::new());
    }

    #[test]
    fn a_path_is_on_its_nearest_mount() {
        let mounts = parse(DOCKER);
        let kind = |path: &str| holding(&mounts, Path::new(path)).unwrap().fs_type.as_str();
        assert_eq!(kind("/var/lib/docker/overlay2"), "ext4");
        assert_eq!(kind("/var/lib/dockers"), "overlay");
        assert_eq!(kind("/proc/bus"), "tmpfs", "the newer one");
    }
}
