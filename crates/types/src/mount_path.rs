//! Folders of a wolf that sandboxes may mount: what "below" means. Textual; the
//! wolf itself looks at the real folders too, since links can lead elsewhere.

use std::path::{Component, Path};

/// Whether `source` is `allowed` or below it, compared by whole components. A
/// path that is not absolute or climbs with `..` is below nothing.
#[must_use]
pub fn is_below(source: &str, allowed: &str) -> bool {
    let plain = |path: &str| {
        Path::new(path).is_absolute()
            && Path::new(path).components().all(|part| part != Component::ParentDir)
    };
    plain(source) && plain(allowed) && Path::new(source).starts_with(allowed)
}

/// The first source that is below none of the allowed folders.
#[must_use]
pub fn first_forbidden<'a>(sources: &'a [String], allowed: &[String]) -> Option<&'a str> {
    let mut sources = sources.iter();
    let forbidden = |source: &&String| !allowed.iter().any(|folder| is_below(source, folder));
    sources.find(forbidden).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_is_by_components_and_never_upwards() {
        for (source, allowed, below) in [
            ("/srv/code", "/srv/code", true),
            ("/srv/code/a", "/srv/code", true),
            ("/srv/code//a/./b", "/srv/code/", true),
            ("/srv/codex", "/srv/code", false),
            ("/srv", "/srv/code", false),
            ("/srv/code/../../etc", "/srv/code", false),
            ("/srv/code/..", "/srv/code", false),
            ("srv/code", "/srv/code", false),
            ("/anything", "/", true),
            ("/srv/code", "", false),
            ("/srv/..", "/srv/..", false),
        ] {
            assert_eq!(is_below(source, allowed), below, "{source} below {allowed}");
        }
        let sources = ["/a/b".to_owned(), "/c".to_owned()];
        assert_eq!(first_forbidden(&sources, &["/a".to_owned()]), Some("/c"));
        assert_eq!(first_forbidden(&sources, &["/c".to_owned(), "/a".to_owned()]), None);
        assert_eq!(first_forbidden(&sources, &[]), Some("/a/b"));
        assert_eq!(first_forbidden(&[], &[]), None);
    }
}
