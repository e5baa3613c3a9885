//! The result of one check.

use std::collections::BTreeMap;

use wolfpack_proto::sandbox::v1 as pb;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// All is well.
    Pass,
    /// Could not be looked at here; the message says why.
    Skip,
    /// It works, and could be better or will not last.
    Warn,
    /// Something does not work.
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name, such as `storage.driver`; stays the same over versions.
    pub id: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen.
    pub message: String,
    /// What to do about it; empty when there is nothing to do.
    pub fix: String,
    /// Values that were seen, for programs.
    pub facts: BTreeMap<String, String>,
}

/// What a check found, before it has its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) outcome: Outcome,
    pub(super) message: String,
    pub(super) fix: String,
    pub(super) facts: BTreeMap<String, String>,
}

impl Found {
    fn new(outcome: Outcome, message: impl Into<String>, fix: impl Into<String>) -> Self {
        let (message, fix) = (message.into(), fix.into());
        Self { outcome, message, fix, facts: BTreeMap::new() }
    }

    pub(super) fn pass(message: impl Into<String>) -> Self {
        Self::new(Outcome::Pass, message, "")
    }

    pub(super) fn skip(why: impl Into<String>) -> Self {
        Self::new(Outcome::Skip, why, "")
    }

    pub(super) fn warn(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Outcome::Warn, message, fix)
    }

    pub(super) fn fail(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Outcome::Fail, message, fix)
    }

    /// With a value for programs.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and paths are given as they are")]
    pub(super) fn fact(mut self, key: &str, value: impl ToString) -> Self {
        self.facts.insert(key.to_owned(), value.to_string());
        self
    }

    pub(super) fn named(self, id: &'static str) -> Check {
        let Self { outcome, message, fix, facts } = self;
        Check { id, outcome, message, fix, facts }
    }
}

impl From<Outcome> for pb::CheckOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Pass => Self::Pass,
            Outcome::Skip => Self::Skip,
            Outcome::Warn => Self::Warn,
            Outcome::Fail => Self::Fail,
        }
    }
}

impl From<Check> for pb::Check {
    fn from(check: Check) -> Self {
        Self {
            id: check.id.to_owned(),
            outcome: pb::CheckOutcome::from(check.outcome).into(),
            message: check.message,
            fix: check.fix,
            facts: check.facts.into_iter().collect(),
        }
    }
}
