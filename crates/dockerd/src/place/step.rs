//! A step that failed.

use serde::{Deserialize, Serialize};

/// A step of the preparation that failed: which one, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step} failed: {why}; {fix}")]
pub struct StepFailed {
    /// The step, one word.
    pub step: String,
    /// Why it failed.
    pub why: String,
    /// What to do about it.
    pub fix: String,
}

impl StepFailed {
    /// `step` failed for `why`; `fix` helps.
    pub fn new(step: &str, why: impl std::fmt::Display, fix: impl Into<String>) -> Self {
        Self { step: step.to_owned(), why: why.to_string(), fix: fix.into() }
    }
}
