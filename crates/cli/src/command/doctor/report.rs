//! Checks as lines for people and as one object for programs.

use std::process::ExitCode;

use serde_json::{Value, json};
use wolfpack_proto::sandbox::v1::{Check, CheckOutcome};

use crate::exit;
use crate::failure::Failure;
use crate::output;

const CHECK: &str = "wolfpack.sandbox.v1.Check";
/// Room for ids, so that messages stand below each other.
const ID_WIDTH: usize = 28;

/// Collects what was found.
pub(super) struct Report {
    json: bool,
    shown: Vec<Value>,
    counts: [usize; 4],
}

/// The outcomes in the order they are counted.
const WORDS: [&str; 4] = ["pass", "warn", "fail", "skip"];

fn index(outcome: CheckOutcome) -> usize {
    match outcome {
        CheckOutcome::Pass => 0,
        CheckOutcome::Warn => 1,
        CheckOutcome::Fail => 2,
        // One of a later version, too: nothing is known of it.
        CheckOutcome::Skip | CheckOutcome::Unspecified => 3,
    }
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, shown: Vec::new(), counts: [0; 4] }
    }

    /// Shows a check to people at once, and keeps it for programs.
    pub(super) fn add(&mut self, check: &Check) -> Result<(), Failure> {
        self.counts[index(check.outcome())] += 1;
        if self.json {
            self.shown.push(output::json(CHECK, check)?);
            return Ok(());
        }
        text(check).lines().try_for_each(output::line)
    }

    /// Closes it; the exit code.
    pub(super) fn end(self) -> Result<ExitCode, Failure> {
        let failed = self.counts[index(CheckOutcome::Fail)];
        if self.json {
            output::print_json(&json!({ "ok": failed == 0, "checks": self.shown }))?;
        } else {
            output::line(&summary(self.counts))?;
        }
        Ok(if failed == 0 { ExitCode::SUCCESS } else { exit::UNWELL.into() })
    }
}

fn text(check: &Check) -> String {
    let word = WORDS[index(check.outcome())];
    let mut text = format!("{word}  {:ID_WIDTH$}  {}", check.id, check.message);
    if !check.fix.is_empty() {
        text.push_str("\n      to do: ");
        text.push_str(&check.fix.lines().collect::<Vec<_>>().join("\n             "));
    }
    text
}

fn summary(counts: [usize; 4]) -> String {
    let parts: Vec<_> =
        WORDS.iter().zip(counts).map(|(word, count)| format!("{count} {word}")).collect();
    format!("\n{}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: CheckOutcome, fix: &str) -> Check {
        Check {
            id: "engine.storage-driver".into(),
            outcome: outcome.into(),
            message: "vfs".into(),
            fix: fix.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_line_says_what_was_seen_and_what_to_do() {
        let text = text(&check(CheckOutcome::Fail, "put a volume there\nand start again"));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("fail  engine.storage-driver"), "{text}");
        assert!(lines[0].ends_with("  vfs") && lines[1] == "      to do: put a volume there");
        assert!(!super::text(&check(CheckOutcome::Pass, "")).contains("to do"));
        assert_eq!(summary([1, 0, 2, 3]), "\n1 pass, 0 warn, 2 fail, 3 skip");
    }

    #[test]
    fn only_a_failure_makes_the_code_one() {
        let code = |outcome| {
            let mut report = Report::new(false);
            report.add(&check(outcome, "")).unwrap();
            format!("{:?}", report.end().unwrap())
        };
        let of = |code| format!("{code:?}");
        assert_eq!(code(CheckOutcome::Fail), of(ExitCode::from(1)));
        for well in [CheckOutcome::Pass, CheckOutcome::Warn, CheckOutcome::Skip] {
            assert_eq!(code(well), of(ExitCode::SUCCESS));
        }
    }
}
