//! Ports of the broker, made, looked at and ended, as a process.

use super::fake_gateway::FakeGateway;
use super::{text, wolfpack};

#[test]
fn exposures_are_made_shown_with_their_last_failure_and_ended() {
    let gateway = FakeGateway::start();
    let run = |arguments: &[&str]| wolfpack(&gateway, &[&["exposure"], arguments].concat(), b"");
    let create = ["create", "sandboxes/good-id", "8080", "--port", "30000", "--for", "2m"];
    let made = run(&create);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    assert_eq!(
        text(&made.stdout),
        "127.0.0.1:30000 -> sandboxes/good-id tcp:8080 until 1970-01-01T00:02:00Z (exposures/e0)\n"
    );
    let made = run(&[&create[..], &["--max-connections", "7", "-o", "json"]].concat());
    let exposure: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(exposure["name"], "exposures/e1");
    assert_eq!(exposure["limits"]["maxConnections"], 7);

    let seen = text(&run(&["get", "e0"]).stdout);
    assert!(seen.contains("TARGET_UNREACHABLE: nothing listens"), "{seen}");
    assert!(seen.lines().any(|line| line.split_whitespace().eq(["failed", "1"])), "{seen}");
    let listed = text(&run(&["list"]).stdout);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("e1") && listed.contains("TARGET_UNREACHABLE"), "{listed}");

    assert_eq!(text(&run(&["delete", "exposures/e0"]).stdout), "exposures/e0 deleted\n");
    let again = run(&["delete", "e0"]);
    assert_eq!(again.status.code(), Some(66), "{again:?}");
    let refused = run(&["create", "sandboxes/good-id", "22"]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(text(&refused.stderr).contains("add the port to targets.tcp"), "{refused:?}");
    for wrong in [&["get"][..], &["get", "wolves/a"]] {
        assert_eq!(run(wrong).status.code(), Some(64), "{wrong:?}");
    }
    // No target for port-forward, so none for an exposure: the broker is not asked.
    for wrong in ["0", "tcp:0", "tcp:http", "UP"] {
        let output = run(&["create", "sandboxes/good-id", wrong]);
        assert_eq!(output.status.code(), Some(64), "{wrong}: {output:?}");
    }
}
