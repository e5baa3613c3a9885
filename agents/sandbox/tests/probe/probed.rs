//! One run of the probe in a container.

use std::collections::BTreeMap;

use serde_json::Value;

use super::machine::{IMAGE, agent, docker};

/// What it found.
pub(crate) struct Probed {
    pub(crate) code: i32,
    pub(crate) verdicts: BTreeMap<String, String>,
    pub(crate) evidence: BTreeMap<String, String>,
}

impl Probed {
    /// Of one check.
    pub(crate) fn is(&self, check: &str, verdict: &str) {
        let evidence = self.evidence.get(check);
        assert_eq!(self.verdicts[check], verdict, "{check}: {evidence:?}");
    }

    fn parse(code: i32, stdout: &str, stderr: &str) -> Self {
        let report: Value = serde_json::from_str(stdout)
            .unwrap_or_else(|error| panic!("{error}: {stdout:?} {stderr:?}"));
        let of = |key: &str| {
            let rows = report["checks"].as_array().unwrap().iter();
            let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
            rows.map(|row| (text(row, "check"), text(row, key))).collect()
        };
        assert_eq!(report["ok"].as_bool().unwrap(), code == 0, "{stdout}");
        Self { code, verdicts: of("verdict"), evidence: of("evidence") }
    }
}

/// Where the binary is in every container of this suite.
pub(crate) const BINARY: &str = "/agent/wolfpack-sandbox-agent";

fn run(flags: &[&str], entrypoint: &str, arguments: &[&str]) -> Probed {
    let mount = format!("{}:{BINARY}:ro", agent().display());
    let mut args = vec!["run", "--rm", "--user", "0:0", "--volume", &mount];
    args.extend(flags);
    args.extend(["--entrypoint", entrypoint, IMAGE]);
    args.extend(arguments);
    let output = docker(&args);
    Probed::parse(
        output.status.code().unwrap_or(-1),
        &String::from_utf8_lossy(&output.stdout),
        &String::from_utf8_lossy(&output.stderr),
    )
}

/// Runs the probe as PID 1 of a container with these flags.
pub(crate) fn probe(flags: &[&str], arguments: &[&str]) -> Probed {
    let all: Vec<&str> = ["probe", "--json"].iter().chain(arguments).copied().collect();
    run(flags, BINARY, &all)
}

/// Runs one check from a shell, after `before`.
pub(crate) fn probe_after(flags: &[&str], before: &str, check: &str) -> Probed {
    let script = format!("{before}\nexec {BINARY} probe --json --only {check}");
    run(flags, "/bin/sh", &["-ec", &script])
}
