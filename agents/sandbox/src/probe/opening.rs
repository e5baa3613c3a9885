//! Opening files without doing anything with them.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::report::Finding;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opening {
    /// It was open, and is closed again.
    Opened,
    /// It is not there.
    Absent,
    /// The kernel's words.
    Refused(String),
}

/// Opens for writing, without truncating, creating or waiting.
pub(super) fn for_writing(path: &Path) -> Opening {
    open(path, OpenOptions::new().write(true))
}

/// Opens for reading, without waiting.
pub(super) fn for_reading(path: &Path) -> Opening {
    open(path, OpenOptions::new().read(true))
}

fn open(path: &Path, options: &mut OpenOptions) -> Opening {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    match options.custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(_) => Opening::Opened,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Opening::Absent
        }
        Err(error) => Opening::Refused(error.to_string()),
    }
}

/// Allowed when any of them opens; each one's answer is evidence.
pub(super) fn any(paths: &[&str], open: fn(&Path) -> Opening, verb: &str) -> Finding {
    let mut evidence = Vec::new();
    for path in paths {
        match open(Path::new(path)) {
            Opening::Opened => return Finding::allowed(format!("{path} opens for {verb}")),
            Opening::Absent => evidence.push(format!("{path}: not there")),
            Opening::Refused(why) => evidence.push(format!("{path}: {why}")),
        }
    }
    Finding::blocked(evidence.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Verdict;

    #[test]
    fn a_file_is_opened_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(for_writing(&file), Opening::Opened);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
        assert_eq!(for_writing(&folder.path().join("none")), Opening::Absent);
        assert!(!folder.path().join("none").exists());
        assert!(matches!(for_writing(folder.path()), Opening::Refused(_)));
        let path = file.to_str().unwrap();
        assert_eq!(any(&["/nowhere", path], for_writing, "writing").verdict, Verdict::Allowed);
        assert_eq!(any(&["/nowhere"], for_writing, "writing").verdict, Verdict::Blocked);
    }
}
