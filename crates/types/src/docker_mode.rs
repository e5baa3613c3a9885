//! What a sandbox has of Docker.

/// What a sandbox has of Docker.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DockerMode {
    /// No engine and no socket.
    #[default]
    None,
    /// An engine of its own inside it.
    Nested,
    /// The wolf's engine: what it starts are its siblings.
    Shared,
}

impl DockerMode {
    /// Its name in labels, files and arguments.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Nested => "nested",
            Self::Shared => "shared",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::None, Self::Nested, Self::Shared].into_iter().find(|mode| mode.as_str() == name)
    }

    /// Who is kept from whom, in plain words.
    #[must_use]
    pub fn isolation(self) -> &'static str {
        match self {
            Self::None => "no docker: the sandbox reaches no engine",
            Self::Nested => {
                "an engine of its own in a user namespace: neighbours and the wolf are out of its \
                 reach; root in the sandbox is nobody on the wolf"
            }
            Self::Shared => {
                "NOT ISOLATED: the wolf's own engine; whoever is in this sandbox owns the wolf \
                 and every sandbox on it"
            }
        }
    }
}

impl std::fmt::Display for DockerMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for mode in [DockerMode::None, DockerMode::Nested, DockerMode::Shared] {
            assert_eq!(DockerMode::parse(mode.as_str()), Some(mode));
        }
        assert_eq!(DockerMode::parse("privileged"), None);
    }
}
