//! Which mounts are allowed, by their paths alone. Pure.

use std::path::{Component, Path, PathBuf};

use wolfpack_types::sandbox_boot::{BOOT_DIR, DOCKER_DATA, DOCKER_SOCKET};
use wolfpack_types::{Fault, Reason};

/// The most mounts of a sandbox.
const MOUNTS: usize = 16;
/// Paths in a sandbox that are the kernel's, the engine's or the agent's:
/// nothing is mounted at, below or above them. Above, since the engine would
/// make their mount points in the folder of the host.
const RESERVED: [&str; 10] = [
    "/proc",
    "/sys",
    "/dev",
    BOOT_DIR,
    DOCKER_SOCKET,
    "/run/docker.sock",
    DOCKER_DATA,
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
];

/// A mount as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// The path on the wolf.
    pub source: PathBuf,
    /// The path in the sandbox.
    pub target: String,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// Why a mount is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// There are too many.
    #[error("a sandbox has at most {MOUNTS} mounts")]
    TooMany,
    /// The source is not an absolute path of named folders.
    #[error("{0} is not an absolute path without . or ..")]
    SourceOdd(PathBuf),
    /// No allowed folder is above it.
    #[error("{0} is not below a folder that this wolf allows")]
    NotAllowed(PathBuf),
    /// There is nothing.
    #[error("{0} is not on this wolf")]
    Absent(PathBuf),
    /// A symbolic link is on the way.
    #[error("{0} leads through a symbolic link")]
    Link(PathBuf),
    /// It is a socket, a device or a pipe.
    #[error("{0} is neither a folder nor a file")]
    Kind(PathBuf),
    /// Only a path could be given to the engine, and what a path leads to can
    /// be replaced until the engine follows it.
    #[error("its agent cannot bind {0} for the engine (docs/wolf.md, folders of the wolf)")]
    Unstaged(PathBuf),
    /// The target is not an absolute path of named folders.
    #[error("{0} is not an absolute path without . or ..")]
    TargetOdd(String),
    /// The target is the sandbox's own.
    #[error("{0} is the sandbox's own")]
    TargetReserved(String),
    /// Two mounts have it.
    #[error("{0} is mounted twice")]
    TargetTwice(String),
}

impl Forbidden {
    /// One word for programs.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::SourceOdd(_) => "source_odd",
            Self::NotAllowed(_) => "not_allowed",
            Self::Absent(_) => "absent",
            Self::Link(_) => "symbolic_link",
            Self::Kind(_) => "kind",
            Self::Unstaged(_) => "unstaged",
            Self::TargetOdd(_) => "target_odd",
            Self::TargetReserved(_) => "target_reserved",
            Self::TargetTwice(_) => "target_twice",
        }
    }

    /// The fault a caller sees.
    #[must_use]
    pub fn into_fault(self) -> Fault {
        let rule = self.rule();
        Fault::new(
            Reason::MountForbidden,
            format!("the wolf refuses the mount: {self}; mount a folder below its mounts.allow"),
        )
        .with("rule", rule)
    }
}

impl MountRequest {
    /// The allowed folder that the source is in, and the path below it.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn below<'a>(&self, allow: &'a [PathBuf]) -> Result<(&'a Path, PathBuf), Forbidden> {
        if !named(&self.source) {
            return Err(Forbidden::SourceOdd(self.source.clone()));
        }
        if !named(Path::new(&self.target)) {
            return Err(Forbidden::TargetOdd(self.target.clone()));
        }
        if reserved(&self.target) {
            return Err(Forbidden::TargetReserved(self.target.clone()));
        }
        // The longest, so that the way through links is the shortest.
        allow
            .iter()
            .filter_map(|folder| {
                let rest = self.source.strip_prefix(folder).ok()?;
                Some((folder.as_path(), rest.to_owned()))
            })
            .min_by_key(|(_, rest)| rest.components().count())
            .ok_or_else(|| Forbidden::NotAllowed(self.source.clone()))
    }

    /// Whether these can be one sandbox's.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn together(all: &[Self]) -> Result<(), Forbidden> {
        if all.len() > MOUNTS {
            return Err(Forbidden::TooMany);
        }
        for (at, one) in all.iter().enumerate() {
            let same = |other: &Self| Path::new(&other.target) == Path::new(&one.target);
            if all[..at].iter().any(same) {
                return Err(Forbidden::TargetTwice(one.target.clone()));
            }
        }
        Ok(())
    }
}

/// Whether a path in a sandbox is at, below or above one that is its own.
#[must_use]
pub fn reserved(target: &str) -> bool {
    let target = Path::new(target);
    RESERVED.iter().map(Path::new).any(|own| target.starts_with(own) || own.starts_with(target))
}

/// Whether a path is absolute and names each folder.
fn named(path: &Path) -> bool {
    let text = path.to_string_lossy();
    path.to_str().is_some()
        && !text.contains('\0')
        && path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && !text.split('/').any(|part| part == ".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mount(source: &str, target: &str) -> MountRequest {
        MountRequest { source: source.into(), target: target.into(), read_only: false }
    }

    fn rule(source: &str, target: &str) -> &'static str {
        let allow = [PathBuf::from("/srv/code"), PathBuf::from("/srv/code/deep")];
        mount(source, target).below(&allow).err().map_or("", |broken| broken.rule())
    }

    #[test]
    fn only_what_is_below_an_allowed_folder_is_mounted() {
        assert_eq!(rule("/srv/code", "/work"), "");
        assert_eq!(rule("/srv/code/a b/c", "/work/deep"), "");
        assert_eq!(rule("/srv/code/", "/work/"), "");
        for source in ["/srv", "/srv/codex", "/", "/etc", "/srv/cod"] {
            assert_eq!(rule(source, "/work"), "not_allowed", "{source}");
        }
        for source in ["srv/code", "/srv/code/../../etc", "/srv/code/..", "/srv/code/./x", ""] {
            assert_eq!(rule(source, "/work"), "source_odd", "{source}");
        }
        let allow = [PathBuf::from("/srv/code"), PathBuf::from("/srv/code/deep")];
        let (folder, rest) = mount("/srv/code/deep/x", "/w").below(&allow).unwrap();
        assert_eq!((folder, rest), (Path::new("/srv/code/deep"), PathBuf::from("x")));
    }

    #[test]
    fn what_is_the_sandboxs_own_is_covered_by_nothing() {
        for target in [
            "/",
            "//",
            "/proc",
            "/proc/sys",
            "/sys/fs/cgroup",
            "/dev/shm",
            "/run",
            "/run/wolfpack",
            "/run/wolfpack/bin",
            "/var",
            "/var/run",
            "/var/run/docker.sock",
            "/var/lib/docker/x",
            "/etc",
            "/etc/hosts",
        ] {
            assert_eq!(rule("/srv/code", target), "target_reserved", "{target}");
        }
        for target in ["/work", "/processes", "/var/lib/dock", "/run/other", "/etc/app"] {
            assert_eq!(rule("/srv/code", target), "", "{target}");
        }
        for target in ["work", "/work/../proc", "/work/./x", ""] {
            assert_eq!(rule("/srv/code", target), "target_odd", "{target}");
        }
    }

    #[test]
    fn a_target_is_mounted_once() {
        let two = [mount("/srv/code/a", "/w"), mount("/srv/code/b", "/w/")];
        assert_eq!(MountRequest::together(&two), Err(Forbidden::TargetTwice("/w/".into())));
        let many: Vec<_> = (0..17).map(|n| mount("/srv/code", &format!("/w{n}"))).collect();
        assert_eq!(MountRequest::together(&many), Err(Forbidden::TooMany));
        assert_eq!(MountRequest::together(&many[..16]), Ok(()));
    }

    proptest! {
        #[test]
        fn nothing_outside_is_ever_below(source in "/?([a-z.]{0,3}/?){0,6}") {
            let allow = [PathBuf::from("/a/b")];
            if let Ok((folder, rest)) = mount(&source, "/w").below(&allow) {
                prop_assert_eq!(folder, Path::new("/a/b"));
                let whole = folder.join(&rest);
                prop_assert!(whole.starts_with("/a/b"));
                prop_assert!(!whole.to_string_lossy().split('/').any(|part| part == ".."));
            }
        }
    }
}
