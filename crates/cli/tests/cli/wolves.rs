//! What is shown of wolves and of Docker in sandboxes, as a process.

use super::fake_gateway::FakeGateway;
use super::{text, wolfpack};

#[test]
fn doctor_shows_each_line_and_its_code_says_whether_something_fails() {
    let gateway = FakeGateway::start();
    let well = wolfpack(&gateway, &["doctor", "--wolf", "one"], b"");
    assert_eq!(well.status.code(), Some(0), "{well:?}");
    let told = text(&well.stdout);
    assert!(told.starts_with("warn  kernel.version"), "{told}");
    assert!(told.ends_with("1 pass, 1 warn, 0 fail, 0 skip\n"), "{told}");

    let ill = wolfpack(&gateway, &["doctor", "--wolf", "wolves/two"], b"");
    assert_eq!(ill.status.code(), Some(1), "{ill:?}");
    assert!(text(&ill.stdout).contains("      to do: give it a volume"), "{ill:?}");
    let ill = wolfpack(&gateway, &["doctor", "--wolf", "two", "--json"], b"");
    assert_eq!(ill.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&ill.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["checks"][1]["outcome"], "CHECK_OUTCOME_FAIL");
}

#[test]
fn the_probe_runs_in_the_sandbox_and_its_table_is_shown() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["doctor", "--probe", "sandboxes/good-id"], b"");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = text(&output.stdout);
    assert!(table.contains("mount") && table.contains("allowed"), "{table}");
    assert!(table.ends_with("1 allowed that must not be, 0 not found out: NOT OK\n"), "{table}");
    let output = wolfpack(&gateway, &["doctor", "--probe", "sandboxes/good-id", "--json"], b"");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["checks"][0]["check"], "mount");
}

#[test]
fn shared_docker_is_warned_of_and_what_was_asked_for_is_sent() {
    let gateway = FakeGateway::start();
    let create = |docker: &str| {
        let arguments = [
            "sandbox",
            "create",
            "--name",
            "good",
            "--docker",
            docker,
            "--mount",
            "/srv/a:/b:ro",
            "--encoder",
            "2:hevc:preferred",
            "--no-wait",
            "-o",
            "json",
        ];
        wolfpack(&gateway, &arguments, b"")
    };
    let output = create("shared");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stderr).contains("owns that wolf and every sandbox on it"), "{output:?}");
    let sandbox: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let spec = &sandbox["spec"];
    assert_eq!(spec["docker"], "DOCKER_MODE_SHARED");
    assert_eq!(spec["mounts"][0]["source"], "/srv/a");
    assert_eq!(spec["mounts"][0]["readOnly"], true);
    assert_eq!(spec["encoder"]["sessions"], 2);
    assert_eq!(spec["encoder"]["need"], "ENCODER_NEED_PREFERRED");
    let output = create("nested");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn containers_are_told_by_where_they_stand_and_wolves_by_what_they_have() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["sandbox", "containers", "sandboxes/good-id"], b"");
    let table = text(&output.stdout);
    assert!(table.contains("within") && table.contains("inside"), "{table}");
    assert!(table.contains("next-door") && table.contains("beside (sibling)"), "{table}");
    for name in ["one", "wolf/one"] {
        let output = wolfpack(&gateway, &["wolf", "get", name], b"");
        let facts = text(&output.stdout);
        for part in ["docker modes", "nested", "/srv", "1 GiB is left"] {
            assert!(facts.contains(part), "{part} in {facts}");
        }
    }
}

#[test]
fn memory_that_nothing_fits_in_is_refused_here() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["sandbox", "create", "--memory", "1"], b"");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(text(&output.stderr).contains("needs at least 32M"), "{output:?}");
}

#[test]
fn tunnels_are_listed_and_watched() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["tunnel", "list"], b"");
    let table = text(&output.stdout);
    assert!(table.contains("wolves/one") && table.contains("moonlight-web,wolf-api"), "{table}");
    let output = wolfpack(&gateway, &["tunnel", "watch", "-o", "json"], b"");
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["attached"]["endpoint"], "wolves/one");
    assert_eq!(lines[0]["attached"]["sessionId"], "now");
    assert_eq!(lines[0]["time"], "1970-01-01T00:00:01Z");
    assert_eq!(lines[0]["revision"], "1");
    assert_eq!(lines[1]["detached"]["connections"], 3);
    assert_ne!(lines[1]["time"], lines[0]["time"], "an end is told with when it was heard of");
    // What ends it for good is told.
    assert_eq!(output.status.code(), Some(77), "{output:?}");

    let told = text(&wolfpack(&gateway, &["tunnel", "watch"], b"").stdout);
    let words: Vec<Vec<&str>> =
        told.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["TIME", "EVENT", "ENDPOINT", "SESSION", "TARGETS", "INSTANCE"]);
    let targets = "moonlight-web,wolf-api";
    assert_eq!(words[1], ["1970-01-01T00:00:01Z", "attached", "wolves/one", "now", targets, "-"]);
    assert_eq!(words[2][1..4], ["detached", "wolves/one", "now"]);
    let at = |word: &str| told.lines().map(|line| line.find(word)).collect::<Vec<_>>();
    assert_eq!(at("wolves/one")[1], at("ENDPOINT")[0], "below its header: {told}");
}

#[test]
fn one_tunnel_is_shown_and_closed() {
    let gateway = FakeGateway::start();
    let tunnel = |arguments: &[&str]| wolfpack(&gateway, &[&["tunnel"], arguments].concat(), b"");
    let output = tunnel(&["get", "wolf/one"]);
    let facts = text(&output.stdout);
    for part in ["wolves/one", "session", "now", "3 of 100", "1.00 KiB", "2.00 MiB", "50/s at most"]
    {
        assert!(facts.contains(part), "{part} in {facts}");
    }
    assert!(!facts.contains("rate"), "no bound is nothing to show: {facts}");
    let output = tunnel(&["get", "wolf/one", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["limits"]["maxConnections"], 100);
    let output = tunnel(&["get", "sandboxes/good-id"]);
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    assert!(text(&output.stderr).contains("ENDPOINT_NOT_FOUND"), "{output:?}");
    assert!(text(&output.stderr).contains("exists, but no agent of it is attached"), "{output:?}");

    let output = tunnel(&["close", "wolves/one"]);
    assert!(text(&output.stdout).contains("wolves/one closed, session now"), "{output:?}");
    let output = tunnel(&["close", "wolves/one", "--session", "old"]);
    let told = "nothing was closed: wolves/one has session now, not old\n";
    assert_eq!(text(&output.stdout), told, "{output:?}");
    let output = tunnel(&["close", "wolves/one", "--session", "old", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["sessionId"], &json["attachedSessionId"]), (&"".into(), &"now".into()));
    let output = tunnel(&["close", "wolves/three"]);
    let told = "nothing was closed: no agent of wolves/three is attached\n";
    assert_eq!(text(&output.stdout), told, "{output:?}");
    let output = tunnel(&["close", "wolves/one", "--reason", "no", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["sessionId"], "", "the reason arrives: {output:?}");
    let output = tunnel(&["close", "sandboxes/good-id"]);
    assert_eq!(output.status.code(), Some(77), "{output:?}");
}

#[test]
fn a_tunnel_that_is_not_there_is_told_with_what_is_known_of_its_endpoint() {
    use wolfpack_proto::sandbox::v1::SandboxState as S;
    let gateway = FakeGateway::start();
    let get = |endpoint: &str| wolfpack(&gateway, &["tunnel", "get", endpoint], b"");
    let output = get("wolves/three");
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    let told = text(&output.stderr);
    let words = "ENDPOINT_NOT_FOUND: wolves/three is OFFLINE, but no agent of it is attached";
    assert!(told.contains(words), "{told}");
    for (state, code, words) in [
        (S::Lost, 66, "sandboxes/good-id is LOST, but no agent of it is attached"),
        (S::Deleted, 66, "SANDBOX_NOT_FOUND: sandboxes/good-id was deleted"),
        (S::Failed, 65, "SANDBOX_NOT_RUNNING: sandboxes/good-id has failed"),
    ] {
        gateway.becomes(state);
        let output = get("sandboxes/good-id");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains(words), "{output:?}");
    }
    let output = get("sandboxes/nobody");
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    assert!(text(&output.stderr).contains("SANDBOX_NOT_FOUND: sandboxes/nobody"), "{output:?}");
}
