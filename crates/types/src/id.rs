//! Typed ids. An id is 1 to 64 characters of `a-z0-9-`; the ones we make are
//! UUID v7 in base32 (26 characters), so they sort by creation time. An id is
//! not a secret.

use data_encoding::Specification;
use uuid::Uuid;

/// A string is not an id or not the resource name that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct ParseIdError {
    /// What was read, cut to 80 characters.
    pub value: String,
    /// What it should have been, such as `wolves/{id}`.
    pub expected: &'static str,
}

impl ParseIdError {
    fn new(value: &str, expected: &'static str) -> Self {
        Self { value: value.chars().take(80).collect(), expected }
    }
}

fn fresh() -> String {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    match specification.encoding() {
        Ok(encoding) => encoding.encode(Uuid::now_v7().as_bytes()),
        // The alphabet above is a valid one of 32 symbols.
        Err(_) => Uuid::now_v7().simple().to_string(),
    }
}

fn valid(value: &str) -> bool {
    (1..=64).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $collection:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The collection that resource names of this kind begin with.
            pub const COLLECTION: &'static str = $collection;

            /// Makes a fresh id.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "a fresh id is not a default")]
            pub fn new() -> Self {
                Self(fresh())
            }

            /// Reads a bare id.
            ///
            /// # Errors
            /// When it is empty, longer than 64 or has other characters than `a-z0-9-`.
            pub fn parse(value: &str) -> Result<Self, ParseIdError> {
                if valid(value) {
                    Ok(Self(value.to_owned()))
                } else {
                    Err(ParseIdError::new(value, concat!("an id of ", $collection)))
                }
            }

            /// Reads a resource name, `collection/id`.
            ///
            /// # Errors
            /// When the collection is another one or the id is not valid.
            pub fn from_name(name: &str) -> Result<Self, ParseIdError> {
                name.strip_prefix(concat!($collection, "/"))
                    .filter(|id| valid(id))
                    .map(|id| Self(id.to_owned()))
                    .ok_or_else(|| ParseIdError::new(name, concat!($collection, "/{id}")))
            }

            /// The resource name, `collection/id`.
            #[must_use]
            pub fn name(&self) -> String {
                format!("{}/{}", Self::COLLECTION, self.0)
            }

            /// The bare id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;
            fn try_from(value: String) -> Result<Self, ParseIdError> {
                Self::parse(&value)
            }
        }
    )*};
}

ids! {
    /// A wolf.
    WolfId, "wolves";
    /// A sandbox.
    SandboxId, "sandboxes";
    /// A project.
    ProjectId, "projects";
    /// A user.
    UserId, "users";
    /// An API key; not its secret.
    ApiKeyId, "apiKeys";
    /// A join token; not its secret.
    JoinTokenId, "joinTokens";
    /// A reservation.
    ReservationId, "reservations";
    /// One boot of a sandbox.
    ExecutionId, "executions";
    /// A listener of a broker that leads to a target.
    ExposureId, "exposures";
    /// One process of an agent or a service.
    InstanceId, "instances";
    /// One attachment of an agent to a broker.
    SessionId, "sessions";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fresh_ids_are_valid_distinct_and_sorted_by_time() {
        let first = WolfId::new();
        std::thread::yield_now();
        let ids: Vec<WolfId> = (0..1000).map(|_| WolfId::new()).collect();
        assert!(ids.iter().all(|id| WolfId::parse(id.as_str()).as_ref() == Ok(id)));
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 1000);
        assert!(ids.iter().all(|id| id >= &first || id.as_str()[..8] == first.as_str()[..8]));
    }

    #[test]
    fn names_of_another_collection_are_refused() {
        assert!(WolfId::from_name("sandboxes/abc").is_err());
        assert!(WolfId::from_name("wolves/").is_err());
        assert!(WolfId::from_name("wolves/a/b").is_err());
        assert!(WolfId::from_name("wolves/ABC").is_err());
        assert_eq!(
            WolfId::from_name("wolves/a-1").map(|id| id.name()),
            Ok("wolves/a-1".to_owned())
        );
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_round_trips(value in ".{0,100}") {
            if let Ok(id) = SandboxId::parse(&value) {
                prop_assert_eq!(SandboxId::from_name(&id.name()), Ok(id));
            }
        }
    }
}
