//! What can go wrong with an engine, without its client's types.

use std::error::Error;
use std::time::Duration;

use wolfpack_types::{Fault, Reason};

/// The most of an engine's own words that is kept.
const WORDS: usize = 300;

/// A call to the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing answers on the engine's socket.
    #[error("the engine does not answer")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// The engine did not finish in time.
    #[error("the engine did not {doing} within {within:?}")]
    Deadline {
        /// What it was asked to do.
        doing: &'static str,
        /// How long it had.
        within: Duration,
    },
    /// What was named is not there.
    #[error("the engine has no such thing: {0}")]
    NotFound(String),
    /// It is there already, or in a state that does not allow the call.
    #[error("the engine says it conflicts: {0}")]
    Conflict(String),
    /// The engine refused or failed, with its HTTP status.
    #[error("the engine answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The engine's words, cut.
        message: String,
    },
    /// A stream of the engine broke off or carried an error.
    #[error("a stream of the engine failed: {0}")]
    Stream(String),
    /// The engine is older than what we need.
    #[error("the engine speaks API {have}; {need} or newer is needed: update the engine")]
    TooOld {
        /// Its API version.
        have: String,
        /// Ours.
        need: &'static str,
    },
    /// A network has the name of ours and is not one that we would make.
    #[error(
        "network {name} {why}: remove it with `docker network rm {name}`, or set network to another name"
    )]
    Unfit {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The engine answered something that cannot be understood.
    #[error("the engine's answer cannot be read: {0}")]
    Unreadable(String),
}

impl EngineError {
    /// Cuts an engine's words to what is worth keeping.
    #[must_use]
    pub fn words(text: &str) -> String {
        text.chars().filter(|c| !c.is_control()).take(WORDS).collect()
    }

    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Deadline { .. } | Self::Stream(_) => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::NotFound(_)
            | Self::Conflict(_)
            | Self::TooOld { .. }
            | Self::Unfit { .. }
            | Self::Unreadable(_) => false,
        }
    }

    /// The fault a caller sees: what the engine failed to do, not why.
    #[must_use]
    pub fn into_fault(self, doing: &str) -> Fault {
        Fault::new(
            Reason::EngineFailed,
            format!("the engine of the wolf failed to {doing}; try again, the wolf's log says why"),
        )
        .caused_by(self)
    }
}
