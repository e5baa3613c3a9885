//! The escape probe in every mode. That each of its checks can fail is shown
//! with the sandbox agent's own tests, in a weakened container.

use serde_json::Value;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::Client;

use super::{ImageFleet, nested};

/// Runs the probe as root, the most anybody can be in a sandbox.
async fn probe(client: &Client, spec: pb::SandboxSpec) -> Value {
    let sandbox = client.run(spec).await.unwrap();
    let start = pb::ExecStart {
        argv: ["/run/wolfpack/bin/wolfpack-sandbox-agent", "probe", "--json"]
            .map(str::to_owned)
            .to_vec(),
        user: "root".to_owned(),
        ..Default::default()
    };
    let outcome = client.exec_start(&sandbox.name, start, vec![]).await.unwrap();
    let report = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(outcome.code, 0, "{report}\n{}", String::from_utf8_lossy(&outcome.stderr));
    client.delete(&sandbox.name).await.unwrap();
    serde_json::from_str(&report).unwrap()
}

/// Names of the checks with this verdict.
fn with_verdict<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["verdict"] == verdict)
        .map(|check| check["check"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leads_out_of_a_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = ImageFleet::start(folder.path()).await;
    let client = fleet.fleet.client().await;

    let none = probe(&client, pb::SandboxSpec::default()).await;
    assert!(with_verdict(&none, "blocked").len() >= 20, "{none:#}");
    assert_eq!(with_verdict(&none, "allowed"), [""; 0], "{none:#}");
    assert_eq!(with_verdict(&none, "allowed-own-namespace"), [""; 0], "{none:#}");

    let nested = probe(&client, nested()).await;
    assert_eq!(with_verdict(&nested, "allowed"), [""; 0], "{nested:#}");
    // An engine cannot run without: it mounts in its own namespaces.
    assert!(!with_verdict(&nested, "allowed-own-namespace").is_empty(), "{nested:#}");
    fleet.fleet.stop().await;
}
