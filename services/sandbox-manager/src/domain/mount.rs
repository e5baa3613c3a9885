//! Folders of the wolf that a sandbox may ask to see.

use wolfpack_proto::sandbox::v1::Mount;
use wolfpack_types::{Fault, Reason};

/// What a sandbox has there already, or needs for itself.
const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev", "/run/wolfpack"];

/// Checks what the field rules of the proto cannot say. Whether the wolf allows
/// the source is the wolf's to say.
pub(super) fn check(mounts: &[Mount]) -> Result<(), Fault> {
    let mut targets: Vec<Vec<&str>> = Vec::new();
    for (at, mount) in mounts.iter().enumerate() {
        let refuse = |field: &str, why: &str| {
            Err(Fault::new(Reason::RequestInvalid, format!("mount {at}: the {field} {why}"))
                .violates(format!("sandbox.spec.mounts[{at}].{field}"), why.to_owned()))
        };
        if parts(&mount.source).is_none() {
            return refuse("source", "must be an absolute path without \"..\"");
        }
        let Some(target) = parts(&mount.target) else {
            return refuse("target", "must be an absolute path without \"..\"");
        };
        let taken = |path: &str| {
            let reserved: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            target.starts_with(&reserved) || reserved.starts_with(&target)
        };
        if let Some(reserved) = RESERVED.into_iter().find(|path| taken(path)) {
            return refuse("target", &format!("may not be above or below {reserved}"));
        }
        if targets.contains(&target) {
            return refuse("target", "is there twice");
        }
        targets.push(target);
    }
    Ok(())
}

/// The parts of an absolute path; `None` for one that goes up.
fn parts(path: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = path
        .strip_prefix('/')?
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    (!parts.contains(&"..")).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &str, target: &str) -> Mount {
        Mount { source: source.into(), target: target.into(), read_only: false }
    }

    #[test]
    fn a_mount_covers_nothing_that_the_sandbox_needs() {
        assert!(check(&[mount("/home/me/src", "/src"), mount("/data", "/run/data")]).is_ok());
        for (source, target) in [
            ("home", "/src"),
            ("/home/../etc", "/src"),
            ("/home", "src"),
            ("/home", "/src/../proc"),
            ("/home", "/"),
            ("/home", "//"),
            ("/home", "/proc"),
            ("/home", "/proc/1/root"),
            ("/home", "/sys/./fs"),
            ("/home", "/dev/shm"),
            ("/home", "/run"),
            ("/home", "//run//wolfpack/x"),
        ] {
            let refused = check(&[mount(source, target)]).unwrap_err();
            assert_eq!(refused.reason, Reason::RequestInvalid, "{source}:{target}");
            assert_eq!(refused.violations.len(), 1);
        }
        assert!(check(&[mount("/a", "/x"), mount("/b", "//x/")]).is_err(), "the same target");
        assert!(check(&[mount("/a", "/processes"), mount("/b", "/devices")]).is_ok());
    }
}
