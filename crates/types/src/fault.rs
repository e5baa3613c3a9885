//! An error that a caller sees: a reason of the table, words that say what to
//! do next, and facts. What went wrong inside stays in `source`, for logs only.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::reason::Reason;

/// One field of a request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, such as `sandbox.spec.image`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// An error on its way to a caller.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which error of the table.
    pub reason: Reason,
    /// What happened and what to do next, lowercase, without secrets.
    pub message: String,
    /// Facts for programs; no secrets.
    pub metadata: BTreeMap<String, String>,
    /// Fields that break rules.
    pub violations: Vec<FieldViolation>,
    /// Name of the resource it is about.
    pub resource: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// What went wrong inside; logged, never sent.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault with a reason and words.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            resource: None,
            retry_after: None,
            source: None,
        }
    }

    /// A fault of ours: the caller learns only that it happened, the log why.
    #[must_use]
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(
            Reason::Internal,
            "an internal error occurred; try again, and tell the operator if it stays",
        )
        .caused_by(source)
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Names the resource.
    #[must_use]
    pub fn about(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Adds a field that breaks a rule.
    #[must_use]
    pub fn violates(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations
            .push(FieldViolation { field: field.into(), description: description.into() });
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_in(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Keeps what went wrong inside.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<crate::id::ParseIdError> for Fault {
    fn from(error: crate::id::ParseIdError) -> Self {
        Self::new(Reason::RequestInvalid, error.to_string())
    }
}
