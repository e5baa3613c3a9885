//! The escape probe: it runs inside a sandbox, as root, and tells what it
//! could have done from there.

use std::process::ExitCode;

use serde::Deserialize;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::types::v1 as types;
use wolfpack_types::{Fault, Reason};

use crate::command::resolve;
use crate::command::sandbox::{self, Ran};
use crate::connect::Api;
use crate::exit;
use crate::failure::Failure;
use crate::output;

/// The agent's binary, as each sandbox sees it.
const AGENT: &str = "/run/wolfpack/bin/wolfpack-sandbox-agent";

/// What the probe prints; fields of later versions are passed over.
#[derive(Debug, Deserialize)]
struct Found {
    ok: bool,
    checks: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    check: String,
    #[serde(default)]
    question: String,
    verdict: String,
    ok: bool,
    #[serde(default)]
    evidence: String,
}

pub(super) async fn run(api: &Api, given: &str, json: bool) -> Result<ExitCode, Failure> {
    let name = resolve::sandbox(api, given).await?;
    let sandbox = resolve::get(api, &name).await?;
    let start = pb::ExecStart {
        argv: [AGENT, "probe", "--json", "--expect", expected(&sandbox)]
            .map(str::to_owned)
            .to_vec(),
        // The most that anybody can be there.
        user: "root".to_owned(),
        ..Default::default()
    };
    let ran = sandbox::capture(api, &name, start).await?;
    let (raw, found) = read(&ran)?;
    if json {
        output::print_json(&raw)?;
    } else {
        output::print_table(
            ["CHECK", "VERDICT", "OK", "QUESTION", "EVIDENCE"],
            found.checks.iter().map(row),
        )?;
        output::line(&summary(&found))?;
    }
    Ok(if found.ok { ExitCode::SUCCESS } else { exit::UNWELL.into() })
}

/// What a sandbox with an engine of its own may do in its own namespaces, no
/// other may.
fn expected(sandbox: &pb::Sandbox) -> &'static str {
    let status = sandbox.status.as_ref().and_then(|status| status.docker.as_ref());
    match status.map(pb::DockerStatus::mode) {
        Some(types::DockerMode::Nested) => "nested",
        _ => "none",
    }
}

fn read(ran: &Ran) -> Result<(serde_json::Value, Found), Failure> {
    let read = serde_json::from_slice::<serde_json::Value>(&ran.stdout)
        .and_then(|raw| Ok((raw.clone(), serde_json::from_value::<Found>(raw)?)));
    read.map_err(|error| {
        let said = String::from_utf8_lossy(&ran.stderr);
        let said = said.lines().last().unwrap_or("nothing").to_owned();
        Fault::new(
            Reason::ExecFailed,
            format!(
                "the probe ended with code {} and no result ({error}); it said: {said}; is the sandbox of an older version? make a new one",
                ran.code
            ),
        )
        .into()
    })
}

fn row(row: &Row) -> [String; 5] {
    [
        row.check.clone(),
        row.verdict.clone(),
        if row.ok { "yes" } else { "NO" }.to_owned(),
        row.question.clone(),
        row.evidence.lines().next().unwrap_or_default().to_owned(),
    ]
}

fn summary(found: &Found) -> String {
    let wrong = found.checks.iter().filter(|row| !row.ok).count();
    let unknown = found.checks.iter().filter(|row| row.verdict == "unknown").count();
    format!(
        "\n{} checks, {wrong} allowed that must not be, {unknown} not found out: {}",
        found.checks.len(),
        if found.ok { "ok" } else { "NOT OK" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(stdout: &str) -> Ran {
        Ran { stdout: stdout.into(), stderr: b"a\nno such subcommand".to_vec(), code: 2 }
    }

    #[test]
    fn a_report_is_read_and_what_is_none_is_told_with_its_last_words() {
        let report = r#"{"ok":false,"facts":{"x":1},"checks":[
            {"check":"mount","question":"mount anything","verdict":"allowed","ok":false,"evidence":"tmpfs\nmore","later":1},
            {"check":"bpf","question":"q","verdict":"unknown","ok":true,"evidence":""}]}"#;
        let (raw, found) = read(&ran(report)).unwrap_or_else(|_| panic!());
        assert_eq!(raw["facts"]["x"], 1);
        assert_eq!(row(&found.checks[0])[..3], ["mount", "allowed", "NO"]);
        assert_eq!(row(&found.checks[0])[4], "tmpfs");
        assert!(summary(&found).contains("1 allowed that must not be, 1 not found out: NOT OK"));
        for odd in ["", "{}", "usage: ..."] {
            let Err(Failure::Fault(fault)) = read(&ran(odd)) else { panic!("{odd}") };
            assert!(fault.message.contains("no such subcommand"), "{fault}");
        }
    }

    #[test]
    fn only_a_nested_engine_explains_what_is_allowed() {
        let of = |mode: types::DockerMode| {
            let docker = pb::DockerStatus { mode: mode.into(), ..Default::default() };
            expected(&pb::Sandbox {
                status: Some(pb::SandboxStatus { docker: Some(docker), ..Default::default() }),
                ..Default::default()
            })
        };
        assert_eq!(of(types::DockerMode::Nested), "nested");
        for mode in [types::DockerMode::None, types::DockerMode::Shared] {
            assert_eq!(of(mode), "none");
        }
        assert_eq!(expected(&pb::Sandbox::default()), "none");
    }
}
