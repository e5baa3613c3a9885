//! What cannot run is refused with words, before anything runs.

use std::collections::BTreeMap;

use tonic::Code;
use wolfpack_proto::agent::v1::{
    GetClipboardRequest, GetScreenshotRequest, GetStatusRequest, exec_request,
};
use wolfpack_proto::sandbox::v1::{ExecInput, ExecStart, exec_input};
use wolfpack_rpc::from_status;
use wolfpack_types::Reason;

use super::harness::shell;
use super::{Sandbox, sandbox};

fn program(argv: &[&str]) -> ExecStart {
    ExecStart { argv: argv.iter().map(ToString::to_string).collect(), ..ExecStart::default() }
}

async fn refused(sandbox: &Sandbox, start: ExecStart) -> (Reason, String) {
    match sandbox.start(start).await {
        Ok(_) => panic!("it runs"),
        Err(fault) => (fault.reason, fault.message),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_named() {
    let sandbox = sandbox().await;
    let plain = sandbox.folder.path().join("plain");
    std::fs::write(&plain, "#!/nonexistent/shell\n").unwrap();
    let plain = plain.to_str().unwrap();
    let cases = [
        (
            program(&["no-such-program"]),
            "there is no program \"no-such-program\" in the sandbox's PATH",
        ),
        (
            program(&["/no/such/program"]),
            "there is no program \"/no/such/program\" in the sandbox, or",
        ),
        (program(&[plain]), "is not executable"),
        (program(&["/"]), "is not executable"),
        (ExecStart { user: "eve".into(), ..shell("true") }, "there is no user \"eve\""),
        (ExecStart { user: "wolf:eve".into(), ..shell("true") }, "there is no group \"eve\""),
        (ExecStart { cwd: "/no/such/folder".into(), ..shell("true") }, "there is no directory"),
        (ExecStart { cwd: "/proc/self/status".into(), ..shell("true") }, "is not a directory"),
        (program(&["echo", "a\0b"]), "zero byte"),
        (program(&["echo", &"x".repeat(131_072)]), "too long"),
    ];
    for (start, words) in cases {
        for tty in [false, true] {
            let (reason, message) = refused(&sandbox, ExecStart { tty, ..start.clone() }).await;
            assert_eq!(reason, Reason::ExecFailed, "{message}");
            assert!(message.contains(words), "{message:?} says {words:?}");
        }
    }
    // A script whose interpreter is missing.
    std::fs::set_permissions(plain, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (_, message) = refused(&sandbox, program(&[plain])).await;
    assert!(message.contains("interpreter"), "{message:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_the_proto_are_kept() {
    let sandbox = sandbox().await;
    let bad_name = BTreeMap::from([("A=B".to_owned(), "x".to_owned())]);
    let cases = [
        program(&[]),
        ExecStart { env: bad_name, ..shell("true") },
        ExecStart { user: "a b".into(), ..shell("true") },
        ExecStart { cwd: "x".repeat(5000), ..shell("true") },
    ];
    for start in cases {
        let (reason, message) = refused(&sandbox, start).await;
        assert_eq!(reason, Reason::RequestInvalid, "{message}");
    }
    let early = ExecInput { input: Some(exec_input::Input::Stdin("x".into())) };
    let fault = sandbox.send_first(exec_request::Frame::Input(early)).await.err().unwrap();
    assert_eq!(fault.reason, Reason::FirstMessageMissing);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_input_ends_the_program_and_says_why() {
    let sandbox = sandbox().await;
    let mut run = sandbox.start(shell("echo up; sleep 100")).await.unwrap();
    run.until("up").await;
    run.signal(99).await;
    let status = run.next().await.unwrap_err();
    assert_eq!(
        (status.code(), from_status(&status).reason),
        (Code::InvalidArgument, Reason::RequestInvalid)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_desktop_its_calls_say_so() {
    let sandbox = sandbox().await;
    let mut client = sandbox.client.clone();
    let picture = client.get_screenshot(GetScreenshotRequest {}).await.unwrap_err();
    assert_eq!(from_status(&picture).reason, Reason::DesktopAbsent);
    let text = client.get_clipboard(GetClipboardRequest {}).await.unwrap_err();
    assert_eq!(from_status(&text).reason, Reason::DesktopAbsent);
    let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert!(status.ready && status.message.is_empty() && !status.execution_id.is_empty());
}
