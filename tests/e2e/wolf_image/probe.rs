//! The escape probe in every mode, by the command line, against the table of
//! `docs/wolf.md`: what is documented is what is asserted. That each of its
//! checks can fail is shown with the sandbox agent's own tests, in a weakened
//! container.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::process::Command;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::Client;
use wolfpack_testkit::dev_fleet::DevFleet;
use wolfpack_testkit::process::binary;

use super::{ImageFleet, WolfContainer, nested, sh, within};

const TABLE: &str = include_str!("../../../docs/wolf.md");

/// What the documentation says of a mode: check to verdict.
pub(super) fn documented(mode: &str) -> BTreeMap<String, String> {
    let mut rows = TABLE
        .lines()
        .skip_while(|line| !line.starts_with("| check | asks to |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let head = rows.next().expect("docs/wolf.md has the table");
    let column = head.iter().position(|name| *name == mode).expect("the mode has a column");
    rows.skip(1)
        .map(|row| {
            let verdict = match row[column] {
                "own namespace only" => "allowed-own-namespace",
                verdict @ ("blocked" | "allowed") => verdict,
                other => panic!("{row:?}: {other:?} is no verdict"),
            };
            (row[0].trim_matches('`').to_owned(), verdict.to_owned())
        })
        .collect()
}

/// Runs `wolfpack doctor --probe`: the exit code, and check to verdict.
async fn doctor(fleet: &DevFleet, sandbox: &str) -> (i32, Value) {
    let mut command = Command::new(binary("wolfpack"));
    command
        .args(["doctor", "--probe", sandbox, "--json"])
        .env("WOLFPACK_SERVER", &fleet.ready().server)
        .env("WOLFPACK_API_KEY", &fleet.ready().api_key);
    let output = within(180, &mut command).await;
    let said = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&said).unwrap_or_else(|error| {
        panic!("{error}: {said}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    (output.status.code().unwrap_or(-1), report)
}

/// Check to verdict.
fn verdicts(report: &Value) -> BTreeMap<String, String> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = report["checks"].as_array().unwrap();
    rows.iter().map(|row| (text(row, "check"), text(row, "verdict"))).collect()
}

/// The probe in a running sandbox says what is documented of its mode, no more
/// and no less; and the wolf's address on its own network is as closed as its
/// end of the sandbox's.
pub(super) async fn says_what_is_documented(
    fleet: &DevFleet,
    wolf: &WolfContainer,
    client: &Client,
    sandbox: &str,
    mode: &str,
) {
    let (code, report) = doctor(fleet, sandbox).await;
    assert_eq!(verdicts(&report), documented(mode), "{mode}: {report:#}");
    assert_eq!(code == 0, mode != "shared", "{mode}: {code} {report:#}");
    assert_eq!(report["ok"].as_bool(), Some(mode != "shared"), "{mode}");

    let address = wolf.address().await;
    // As root, the most that anybody can be in a sandbox.
    let start = pb::ExecStart {
        argv: [
            "/run/wolfpack/bin/wolfpack-sandbox-agent",
            "probe",
            "--json",
            "--only",
            "wolf_ports",
            "--wolf-address",
            &address,
        ]
        .map(str::to_owned)
        .to_vec(),
        user: "root".to_owned(),
        ..Default::default()
    };
    let outcome = client.exec_start(sandbox, start, vec![]).await.unwrap();
    let report = String::from_utf8_lossy(&outcome.stdout);
    assert!(report.contains(&address), "the address was asked: {report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(verdicts(&report)["wolf_ports"], "blocked", "{mode}: {report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leads_out_of_a_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = ImageFleet::start(folder.path()).await;
    let client = fleet.fleet.client().await;
    for (mode, spec) in [("none", pb::SandboxSpec::default()), ("nested", nested())] {
        let sandbox = client.run(spec).await.unwrap().name;
        if mode == "nested" {
            // With its engine up, when there is the most to find.
            sh(&client, &sandbox, "docker info >/dev/null").await;
        }
        says_what_is_documented(&fleet.fleet, &fleet.wolf, &client, &sandbox, mode).await;
        client.delete(&sandbox).await.unwrap();
    }
    fleet.fleet.stop().await;
}
