//! What was found, and how it is shown.

use serde::Serialize;

use super::{Expect, Facts};

/// The answer to one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It cannot.
    Blocked,
    /// It can, and that reaches beyond the sandbox.
    Allowed,
    /// It can, and that stays in namespaces of the sandbox's own.
    AllowedOwnNamespace,
    /// It could not be found out.
    Unknown,
}

/// A verdict and what it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// What was tried and what the kernel said.
    pub evidence: String,
}

impl Finding {
    pub(super) fn blocked(evidence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Blocked, evidence: evidence.into() }
    }

    pub(super) fn allowed(evidence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Allowed, evidence: evidence.into() }
    }

    pub(super) fn own(evidence: impl Into<String>) -> Self {
        Self { verdict: Verdict::AllowedOwnNamespace, evidence: evidence.into() }
    }

    pub(super) fn unknown(evidence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, evidence: evidence.into() }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    check: &'static str,
    question: &'static str,
    verdict: Verdict,
    ok: bool,
    evidence: String,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether nothing is allowed that must not be.
    ok: bool,
    /// What the sandbox is, as the kernel says.
    facts: Facts,
    checks: Vec<Row>,
}

impl Report {
    /// Judges findings by what is expected.
    #[must_use]
    pub fn new(
        facts: &Facts,
        expect: Expect,
        rows: Vec<(&'static str, &'static str, Finding)>,
    ) -> Self {
        let ok = |verdict| match verdict {
            Verdict::Allowed => false,
            Verdict::AllowedOwnNamespace => expect == Expect::Nested,
            // It is shown, and whoever reads it decides.
            Verdict::Blocked | Verdict::Unknown => true,
        };
        let checks: Vec<Row> = rows
            .into_iter()
            .map(|(check, question, Finding { verdict, evidence })| Row {
                check,
                question,
                verdict,
                ok: ok(verdict),
                evidence,
            })
            .collect();
        Self { ok: checks.iter().all(|row| row.ok), facts: facts.clone(), checks }
    }

    /// Whether something is allowed that must not be.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.ok
    }

    /// Prints it as one line of JSON.
    pub fn print_json(&self) {
        println!("{}", serde_json::json!(self));
    }

    /// Prints it for people.
    pub fn print_table(&self) {
        println!("{}", self.facts.words());
        for row in &self.checks {
            let verdict = match row.verdict {
                Verdict::Blocked => "blocked",
                Verdict::Allowed => "ALLOWED",
                Verdict::AllowedOwnNamespace => "allowed (own namespaces)",
                Verdict::Unknown => "unknown",
            };
            println!("{:20} {verdict:25} {}", row.check, row.evidence);
        }
        let count = |verdict| self.checks.iter().filter(|row| row.verdict == verdict).count();
        println!(
            "{} checks: {} blocked, {} allowed, {} allowed in own namespaces, {} unknown: {}",
            self.checks.len(),
            count(Verdict::Blocked),
            count(Verdict::Allowed),
            count(Verdict::AllowedOwnNamespace),
            count(Verdict::Unknown),
            if self.ok { "ok" } else { "NOT OK" },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespaces_are_fine_only_where_they_are_expected() {
        let judge = |expect, finding| {
            Report::new(&Facts::default(), expect, vec![("a", "b", finding)]).failed()
        };
        assert!(judge(Expect::Nested, Finding::allowed("")));
        assert!(judge(Expect::None, Finding::own("")));
        assert!(!judge(Expect::Nested, Finding::own("")));
        assert!(!judge(Expect::None, Finding::unknown("")));
        let report =
            Report::new(&Facts::default(), Expect::None, vec![("a", "b", Finding::own("e"))]);
        let json = serde_json::json!(report);
        assert_eq!(json["checks"][0]["verdict"], "allowed-own-namespace");
        assert_eq!(
            (json["ok"].as_bool(), json["checks"][0]["ok"].as_bool()),
            (Some(false), Some(false))
        );
    }
}
