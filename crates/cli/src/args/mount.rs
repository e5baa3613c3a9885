//! `--mount SRC:DST[:ro]`.

use std::str::FromStr;

use wolfpack_proto::sandbox::v1 as pb;

/// A folder or file of the wolf that the sandbox sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountArg {
    /// On the wolf.
    pub source: String,
    /// In the sandbox.
    pub target: String,
    /// Whether it may only be read.
    pub read_only: bool,
}

impl FromStr for MountArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let read_only = match (parts.next(), parts.next()) {
            (None, _) | (Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => return Err("write SRC:DST, or SRC:DST:ro for one that is only read".to_owned()),
        };
        for (what, path) in
            [("SRC, the path on the wolf,", source), ("DST, the path in the sandbox,", target)]
        {
            if !path.starts_with('/') {
                return Err(format!("{what} must be absolute: write /SRC:/DST[:ro]"));
            }
        }
        Ok(Self { source: source.to_owned(), target: target.to_owned(), read_only })
    }
}

impl From<&MountArg> for pb::Mount {
    fn from(mount: &MountArg) -> Self {
        Self {
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_may_be_read_only() {
        let read = |text: &str| text.parse::<MountArg>();
        let mount = |read_only| MountArg { source: "/a".into(), target: "/b".into(), read_only };
        assert_eq!(read("/a:/b"), Ok(mount(false)));
        assert_eq!(read("/a:/b:rw"), Ok(mount(false)));
        assert_eq!(read("/a:/b:ro"), Ok(mount(true)));
        for bad in ["", "/a", "/a:", ":/b", "a:/b", "/a:b", "/a:/b:no", "/a:/b:ro:x", "./a:/b"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("code:/b").unwrap_err().contains("on the wolf"));
    }
}
