//! Who may do what: keys, roles, other people's sandboxes.

use tonic::Status;
use wolfpack_proto::sandbox::v1::*;
use wolfpack_proto::types::v1::DockerMode;
use wolfpack_types::Reason;

use crate::harness::*;
use crate::on_each_engine;

fn exec(name: &str) -> ExecRequest {
    let exec = ExecStart { argv: vec!["exit".into(), "0".into()], ..ExecStart::default() };
    let start = SandboxExecStart { sandbox: name.to_owned(), exec: Some(exec) };
    ExecRequest { frame: Some(exec_request::Frame::Start(start)) }
}

fn link(name: &str) -> CreateLinkRequest {
    CreateLinkRequest { sandbox: name.to_owned(), port: 8080, life: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_for_who_may_go_in_and_names_port_project_and_maker() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let name = owner.running("mine").await.name;
        let made = owner.ports.create_link(link(&name)).await.unwrap().into_inner();
        let id = name.strip_prefix("sandboxes/").unwrap();
        let token = format!("wpl_ {name} 8080 projects/a users/ada 3600");
        assert_eq!(made.token, token);
        assert_eq!(made.url, format!("http://8080--{id}.localhost:1/?wp_link={token}"));
        let hours = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let longer = CreateLinkRequest { life: hours(604_800), ..link(&name) };
        let made = owner.ports.create_link(longer).await.unwrap().into_inner();
        assert!(made.token.ends_with(" 604800"), "{}", made.token);
        for (port, life) in [(0, None), (65_536, None), (80, hours(604_801)), (80, hours(59))] {
            let request = CreateLinkRequest { port, life, ..link(&name) };
            let refused = owner.ports.create_link(request).await.unwrap_err();
            assert_eq!(reason(&refused), Reason::RequestInvalid, "{port} {life:?}");
        }
        owner.delete(&name).await;
        let refused = owner.ports.create_link(link(&name)).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::SandboxNotRunning);
    })
    .await;
}

/// Every rpc that names a sandbox, delete last.
async fn each_rpc(client: &mut Client, name: &str) -> Vec<(&'static str, Result<(), Status>)> {
    let sandbox = name.to_owned();
    let watch = WatchSandboxesRequest { name: sandbox.clone(), resume_revision: 0 };
    let logs = StreamLogsRequest { sandbox: sandbox.clone(), ..StreamLogsRequest::default() };
    let text = String::new();
    vec![
        ("GetSandbox", client.get(name).await.map(drop)),
        ("WatchSandboxes", client.sandboxes.watch_sandboxes(watch).await.map(drop)),
        ("StreamLogs", client.io.stream_logs(logs).await.map(drop)),
        ("Exec", client.io.exec(futures::stream::iter([exec(name)])).await.map(drop)),
        (
            "GetScreenshot",
            client
                .desktop
                .get_screenshot(GetScreenshotRequest { sandbox: sandbox.clone() })
                .await
                .map(drop),
        ),
        (
            "GetClipboard",
            client
                .desktop
                .get_clipboard(GetClipboardRequest { sandbox: sandbox.clone() })
                .await
                .map(drop),
        ),
        (
            "SetClipboard",
            client
                .desktop
                .set_clipboard(SetClipboardRequest { sandbox: sandbox.clone(), text })
                .await
                .map(drop),
        ),
        ("CreateLink", client.ports.create_link(link(name)).await.map(drop)),
        (
            "DeleteSandbox",
            client
                .sandboxes
                .delete_sandbox(DeleteSandboxRequest { name: sandbox, etag: String::new() })
                .await
                .map(drop),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_sandbox_is_there_for_its_project_only() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let name = owner.running("mine").await.name;
        for (rpc, answer) in each_rpc(&mut manager.client("wp_b_developer"), &name).await {
            assert_eq!(reason(&answer.unwrap_err()), Reason::SandboxNotFound, "{rpc}");
        }
        for (rpc, answer) in each_rpc(&mut manager.client("wp_wrong"), &name).await {
            assert_eq!(reason(&answer.unwrap_err()), Reason::ApiKeyInvalid, "{rpc}");
        }
        for (rpc, answer) in each_rpc(&mut manager.client(""), &name).await {
            assert_eq!(reason(&answer.unwrap_err()), Reason::CredentialMissing, "{rpc}");
        }
        let theirs = manager
            .client("wp_b_developer")
            .sandboxes
            .list_sandboxes(ListSandboxesRequest::default())
            .await;
        assert!(theirs.unwrap().into_inner().sandboxes.is_empty());
        assert_eq!(state(&owner.get(&name).await.unwrap()), SandboxState::Running);
        for (rpc, answer) in each_rpc(&mut owner, &name).await {
            answer.unwrap_or_else(|status| panic!("{rpc}: {status:?}"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_reads_and_does_nothing_else() {
    on_each_engine(1, |_, manager| async move {
        let name = manager.owner().running("").await.name;
        let mut viewer = manager.client("wp_a_viewer");
        for (rpc, answer) in each_rpc(&mut viewer, &name).await {
            match rpc {
                "GetSandbox" | "WatchSandboxes" | "StreamLogs" => answer.unwrap(),
                _ => assert_eq!(reason(&answer.unwrap_err()), Reason::RoleTooLow, "{rpc}"),
            }
        }
        let refused = viewer.sandboxes.create_sandbox(create_request("")).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RoleTooLow);
    })
    .await;
}

/// Whoever is in it owns the wolf: who could not have made it must not act in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admins_act_in_a_sandbox_that_shares_its_wolfs_engine() {
    on_each_engine(1, |_, manager| async move {
        let mut admin = manager.client("wp_a_admin");
        let shared = SandboxSpec { docker: DockerMode::Shared.into(), ..SandboxSpec::default() };
        let name = admin.create_with(shared.clone()).await.unwrap().name;
        admin.until(&name, SandboxState::Running).await;
        for (rpc, answer) in each_rpc(&mut manager.owner(), &name).await {
            match rpc {
                "Exec" | "GetScreenshot" | "GetClipboard" | "SetClipboard" | "CreateLink" => {
                    assert_eq!(reason(&answer.unwrap_err()), Reason::RoleTooLow, "{rpc}");
                }
                _ => answer.unwrap(),
            }
        }
        let name = admin.create_with(shared).await.unwrap().name;
        admin.until(&name, SandboxState::Running).await;
        for (rpc, answer) in each_rpc(&mut admin, &name).await {
            answer.unwrap_or_else(|status| panic!("{rpc}: {status:?}"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_run_cannot_be_used() {
    on_each_engine(0, |_, manager| async move {
        let mut owner = manager.owner();
        let name = owner.create("").await.name;
        for (rpc, answer) in each_rpc(&mut owner, &name).await {
            match rpc {
                "GetSandbox" | "WatchSandboxes" | "CreateLink" | "DeleteSandbox" => {
                    answer.unwrap();
                }
                _ => assert_eq!(reason(&answer.unwrap_err()), Reason::SandboxNotRunning, "{rpc}"),
            }
        }
    })
    .await;
}
