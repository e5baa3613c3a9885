//! A source that was found and is held open. Blocking: call from a blocking
//! thread.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::rules::{Forbidden, MountRequest};

/// What a path led to, held: whatever becomes of the path, this is it.
#[derive(Debug)]
pub struct Held {
    request: MountRequest,
    found: OwnedFd,
    folder: bool,
}

impl Held {
    /// Looks a source up below the folder of `allow` that it is in. The
    /// folder's own path is the operator's and may have links; below it none
    /// is followed and nothing leads out.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn find(request: MountRequest, allow: &[PathBuf]) -> Result<Self, Forbidden> {
        let (folder, rest) = request.below(allow)?;
        let (found, kind) = look(folder, &rest, &request.source)?;
        Ok(Self { request, found, folder: kind == FileType::Directory })
    }

    /// What was asked for.
    #[must_use]
    pub fn request(&self) -> &MountRequest {
        &self.request
    }

    /// Whether it is a folder, not a file.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// A path that leads to what is held, for this process only.
    #[must_use]
    pub fn own_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.found.as_raw_fd()).into()
    }
}

fn look(folder: &Path, rest: &Path, source: &Path) -> Result<(OwnedFd, FileType), Forbidden> {
    let refused = |error: Errno| match error {
        Errno::LOOP | Errno::XDEV => Forbidden::Link(source.to_owned()),
        _ => Forbidden::Absent(source.to_owned()),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, folder, flags, Mode::empty()).map_err(refused)?;
    let found = if rest.as_os_str().is_empty() {
        top
    } else {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(top.as_fd(), rest, flags | OFlags::NOFOLLOW, Mode::empty(), resolve)
            .map_err(refused)?
    };
    let stat = rustix::fs::fstat(found.as_fd()).map_err(refused)?;
    match FileType::from_raw_mode(stat.st_mode) {
        kind @ (FileType::Directory | FileType::RegularFile) => Ok((found, kind)),
        FileType::Symlink => Err(Forbidden::Link(source.to_owned())),
        _ => Err(Forbidden::Kind(source.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn find(root: &Path, rest: &str) -> Result<Held, Forbidden> {
        let source = if rest.is_empty() { root.to_owned() } else { root.join(rest) };
        let request = MountRequest { source, target: "/w".into(), read_only: true };
        Held::find(request, &[root.to_owned()])
    }

    #[test]
    fn links_lead_nowhere_and_sockets_are_not_mounted() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let path = root.path();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/file"), "x").unwrap();
        symlink(outside.path(), path.join("a/out")).unwrap();
        symlink("b", path.join("a/inside")).unwrap();
        symlink("/proc/self/root", path.join("a/magic")).unwrap();
        let _listener = UnixListener::bind(path.join("a/docker.sock")).unwrap();

        assert!(find(path, "").unwrap().is_folder());
        assert!(find(path, "a/b").unwrap().is_folder());
        assert!(!find(path, "a/file").unwrap().is_folder());
        for (rest, rule) in [
            ("a/out", "symbolic_link"),
            ("a/out/x", "symbolic_link"),
            ("a/inside", "symbolic_link"),
            ("a/magic/etc", "symbolic_link"),
            ("a/docker.sock", "kind"),
            ("a/none", "absent"),
        ] {
            assert_eq!(find(path, rest).unwrap_err().rule(), rule, "{rest}");
        }
        // The operator's own path may lead through one.
        let short = outside.path().join("short");
        symlink(path, &short).unwrap();
        let led = fs::read_link(find(&short, "a/b").unwrap().own_path()).unwrap();
        assert_eq!(led, path.join("a/b"));
    }

    #[test]
    fn what_is_held_is_what_was_found_whatever_the_path_becomes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/mine"), "").unwrap();
        let held = find(path, "a/b").unwrap();
        fs::rename(path.join("a/b"), path.join("c")).unwrap();
        symlink("/", path.join("a/b")).unwrap();
        let names: Vec<_> = fs::read_dir(held.own_path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["mine"]);
        assert_eq!(find(path, "a/b").unwrap_err().rule(), "symbolic_link");
    }
}
