//! Names of images.

/// Images under this name are made on the wolf itself, never fetched: a public
/// registry's image of the same name is somebody else's.
const LOCAL_PREFIX: &str = "wolfpack/";

/// The reference with a tag: an engine that is asked for a name without one
/// fetches every tag there is.
#[must_use]
pub fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains(':') || reference.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

/// Whether the image is only ever made on this host.
#[must_use]
pub fn is_local(reference: &str) -> bool {
    let name = ["docker.io/", "index.docker.io/"]
        .into_iter()
        .find_map(|registry| reference.strip_prefix(registry))
        .unwrap_or(reference);
    name.starts_with(LOCAL_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_a_tag() {
        assert_eq!(with_tag("debian"), "debian:latest");
        assert_eq!(with_tag("localhost:5000/debian"), "localhost:5000/debian:latest");
        assert_eq!(with_tag("localhost:5000/debian:12"), "localhost:5000/debian:12");
        assert_eq!(with_tag("debian@sha256:00"), "debian@sha256:00");
    }

    #[test]
    fn our_images_are_never_fetched_by_any_spelling() {
        for local in
            ["wolfpack/sandbox-base", "docker.io/wolfpack/x:1", "index.docker.io/wolfpack/x"]
        {
            assert!(is_local(local), "{local}");
        }
        for remote in ["wolfpack", "wolfpack.example/x", "ghcr.io/wolfpack/x", "a/wolfpack/x"] {
            assert!(!is_local(remote), "{remote}");
        }
    }
}
