//! Which test calls each rpc with success. Those for users are called by the
//! matrix with the owner's key; this is the table of the others. A new rpc
//! without a row fails, and so does a row whose test or call is gone.

use std::path::Path;

use crate::dynamic_call::{methods, path, pool};
use crate::rows::{Audience, ROWS};

/// A row: the rpc, the test, by file and name, and the file with the call: the
/// test's own, or what it drives.
type Row = (&'static str, &'static str, &'static str, &'static str);

const REGISTRY: &str = "services/registry/tests/registry/fleet.rs";
const TOKENS: &str = "services/registry/tests/registry/sandbox_tokens.rs";
const JOINING: &str = "services/registry/tests/registry/joining.rs";
const SCHEDULER: &str = "services/scheduler/tests/scheduler.rs";
const PLACING: &str = "services/scheduler/tests/rig/mod.rs";
const BROKER: &str = "services/tunnel-broker/tests/tunnel/identity.rs";
const WOLF: &str = "agents/wolf/src/runtime/tests/mod.rs";
const LIFE: &str = "agents/wolf/src/runtime/tests/life.rs";
const STREAMS: &str = "agents/wolf/src/runtime/tests/streams.rs";
const DOCTOR: &str = "agents/wolf/src/doctor/tests.rs";
const DESKTOP: &str = "agents/sandbox/tests/container/desktop.rs";
/// The matrix calls the manager's rpc, and the manager the wolf's.
const MATRIX: &str = "tests/security/matrix.rs";
const THE_MATRIX: &str = "every_rpc_answers_each_kind_of_caller_as_its_row_says";
const MANAGER_IMAGES: &str = "services/sandbox-manager/src/service/images.rs";

const SHOWN: &[Row] = &[
    (
        "/wolfpack.registry.v1.WolfService/RegisterWolf",
        JOINING,
        "a_forged_name_in_a_request_is_ignored_and_a_certificate_renews",
        JOINING,
    ),
    (
        "/wolfpack.registry.v1.WolfService/Heartbeat",
        "services/registry/tests/registry/liveness.rs",
        "a_wolf_joins_registers_beats_and_is_online_while_its_tunnel_is",
        REGISTRY,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/JoinWolf",
        JOINING,
        "a_join_token_works_once",
        REGISTRY,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/RenewWolfCertificate",
        JOINING,
        "a_forged_name_in_a_request_is_ignored_and_a_certificate_renews",
        JOINING,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/MintSandboxToken",
        TOKENS,
        "a_token_names_one_boot_and_ends_with_it",
        TOKENS,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/MintLink",
        TOKENS,
        "a_link_opens_its_port_until_its_sandbox_is_deleted",
        TOKENS,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/RefreshSandboxToken",
        TOKENS,
        "a_token_names_one_boot_and_ends_with_it",
        TOKENS,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/RevokeSandboxTokens",
        TOKENS,
        "a_token_names_one_boot_and_ends_with_it",
        TOKENS,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/GetSigningKeys",
        TOKENS,
        "only_the_manager_mints_and_only_our_keys_count",
        TOKENS,
    ),
    // "Elsewhere as soon as it is told": by this watch, and by nothing else.
    (
        "/wolfpack.registry.v1.IdentityService/WatchRevocations",
        TOKENS,
        "a_token_names_one_boot_and_ends_with_it",
        "crates/rpc/src/auth/remote.rs",
    ),
    (
        "/wolfpack.registry.v1.IdentityService/Introspect",
        "services/registry/tests/registry/identity.rs",
        "a_revoked_key_ends_at_once_everywhere",
        "services/registry/tests/registry/identity.rs",
    ),
    (
        "/wolfpack.scheduler.v1.SchedulerService/Place",
        SCHEDULER,
        "the_life_of_a_reservation",
        PLACING,
    ),
    (
        "/wolfpack.scheduler.v1.SchedulerService/ConfirmReservation",
        SCHEDULER,
        "the_life_of_a_reservation",
        PLACING,
    ),
    (
        "/wolfpack.scheduler.v1.SchedulerService/ReleaseReservation",
        SCHEDULER,
        "the_life_of_a_reservation",
        PLACING,
    ),
    (
        "/wolfpack.tunnel.v1.AgentTunnelService/Attach",
        BROKER,
        "an_agent_attaches_only_as_itself",
        BROKER,
    ),
    (
        "/wolfpack.tunnel.v1.AgentTunnelService/Carry",
        BROKER,
        "forged_replayed_and_foreign_dial_ids_are_refused",
        BROKER,
    ),
    (
        "/wolfpack.agent.v1.WolfRuntimeService/CreateSandbox",
        LIFE,
        "a_sandbox_is_created_hardened_and_told_who_it_is",
        WOLF,
    ),
    (
        "/wolfpack.agent.v1.WolfRuntimeService/RemoveSandbox",
        LIFE,
        "a_sandbox_is_created_hardened_and_told_who_it_is",
        WOLF,
    ),
    (
        "/wolfpack.agent.v1.WolfRuntimeService/ListSandboxes",
        STREAMS,
        "a_watch_sees_every_end_whatever_becomes_of_events",
        WOLF,
    ),
    (
        "/wolfpack.agent.v1.WolfRuntimeService/WatchSandboxes",
        STREAMS,
        "a_watch_sees_every_end_whatever_becomes_of_events",
        STREAMS,
    ),
    (
        "/wolfpack.agent.v1.WolfRuntimeService/StreamLogs",
        STREAMS,
        "logs_keep_their_streams_apart_and_end_with_the_container",
        STREAMS,
    ),
    ("/wolfpack.agent.v1.WolfImageService/ListImages", MATRIX, THE_MATRIX, MANAGER_IMAGES),
    ("/wolfpack.agent.v1.WolfImageService/LoadImage", MATRIX, THE_MATRIX, MANAGER_IMAGES),
    ("/wolfpack.agent.v1.WolfImageService/RemoveImage", MATRIX, THE_MATRIX, MANAGER_IMAGES),
    (
        "/wolfpack.agent.v1.WolfDoctorService/RunChecks",
        DOCTOR,
        "the_service_sends_every_check_and_echoes",
        DOCTOR,
    ),
    (
        "/wolfpack.agent.v1.WolfDoctorService/Echo",
        DOCTOR,
        "the_service_sends_every_check_and_echoes",
        DOCTOR,
    ),
    (
        "/wolfpack.agent.v1.ContainerService/ListContainers",
        "agents/sandbox/tests/nested/engine.rs",
        "a_sandbox_has_an_engine_of_its_own",
        "agents/sandbox/tests/nested/engine.rs",
    ),
    (
        "/wolfpack.agent.v1.SandboxAgentService/GetStatus",
        "agents/sandbox/tests/exec/refusals.rs",
        "without_a_desktop_its_calls_say_so",
        "agents/sandbox/tests/exec/refusals.rs",
    ),
    (
        "/wolfpack.agent.v1.SandboxAgentService/Exec",
        "agents/sandbox/tests/exec/output.rs",
        "both_outputs_and_the_exit_code",
        "agents/sandbox/tests/harness/mod.rs",
    ),
    (
        "/wolfpack.agent.v1.SandboxAgentService/GetScreenshot",
        DESKTOP,
        "a_window_appears_and_is_seen",
        DESKTOP,
    ),
    (
        "/wolfpack.agent.v1.SandboxAgentService/GetClipboard",
        DESKTOP,
        "the_clipboard_goes_both_ways",
        DESKTOP,
    ),
    (
        "/wolfpack.agent.v1.SandboxAgentService/SetClipboard",
        DESKTOP,
        "the_clipboard_goes_both_ways",
        DESKTOP,
    ),
];

/// Why a row does not hold; `None` when it does.
fn fault((rpc, test_file, test, call_file): &Row) -> Option<String> {
    let repo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |file: &str| std::fs::read_to_string(repo.join(file)).unwrap_or_default();
    let tests = read(test_file);
    let Some(at) = tests.find(&format!("fn {test}()")) else {
        return Some(format!("{rpc}: there is no test {test} in {test_file}"));
    };
    // Nothing but the attribute is between the item before and the test.
    let before = tests[..at].rsplit_once("#[").map_or("", |(_, attribute)| attribute);
    if !(before.starts_with("test]") || before.starts_with("tokio::test")) || before.contains('}') {
        return Some(format!("{rpc}: {test} in {test_file} is no test"));
    }
    let call = format!(".{}(", snake(rpc.rsplit('/').next().unwrap()));
    if !read(call_file).contains(&call) {
        return Some(format!("{rpc}: there is no {call}…) in {call_file}"));
    }
    None
}

/// The name of an rpc as the method of a client.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[test]
fn every_rpc_is_called_with_success_by_a_test() {
    let mut faults: Vec<String> = SHOWN.iter().filter_map(fault).collect();
    for rpc in methods(&pool()).iter().map(path) {
        let by_users = ROWS
            .iter()
            .any(|(row, audience, _)| *row == rpc && matches!(audience, Audience::Users(..)));
        match SHOWN.iter().filter(|row| row.0 == rpc).count() + usize::from(by_users) {
            1 => {}
            0 => faults.push(format!("{rpc}: no row says which test calls it with success")),
            _ => faults.push(format!("{rpc}: two rows")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_row_that_does_not_hold_is_found() {
    let good = &SHOWN[0];
    assert_eq!(fault(good), None);
    assert!(fault(&(good.0, good.1, "no_such_test", good.3)).is_some());
    assert!(fault(&(good.0, REGISTRY, "beat", good.3)).is_some(), "a helper is no test");
    assert!(fault(&("/x/NoSuchCall", good.1, good.2, good.3)).is_some());
}
