//! What every fleet must do, however it is put together.

use std::io::Cursor;

use bollard::Docker;
use bollard::query_parameters::InspectContainerOptions;
use tonic::Code;
use tonic_types::StatusExt as _;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::{Client, timed};

/// The seven capabilities that PID 1 needs to run the image's user, nothing else.
const CAPABILITIES: [&str; 7] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID"];

/// What the sandbox's own program does: its log has lines of both streams.
const SPOKEN: &str = "echo spoken 1; echo complained >&2; echo spoken 2; exec sleep 3600";

/// A desktop sandbox from create to delete, each demand checked.
pub(crate) async fn run(client: &Client) {
    let command = ["sh", "-c", SPOKEN].map(str::to_owned).to_vec();
    let spec = pb::SandboxSpec { desktop: true, command, ..Default::default() };
    let sandbox = client.run(spec).await.unwrap();
    exec(client, &sandbox.name).await;
    desktop(client, &sandbox.name).await;
    hardening(&sandbox).await;
    logs_and_errors(client, &sandbox.name).await;
    client.delete(&sandbox.name).await.unwrap();
    assert!(container_of(&sandbox).await.is_none(), "the container of a deleted sandbox is left");
}

async fn exec(client: &Client, name: &str) {
    let outcome =
        client.exec(name, &["sh", "-c", "echo out; echo err >&2; exit 7"], vec![]).await.unwrap();
    assert_eq!(
        (outcome.code, outcome.stdout.as_slice(), outcome.stderr.as_slice()),
        (7, b"out\n".as_slice(), b"err\n".as_slice())
    );
    assert_eq!(outcome.via, pb::TunnelPath::Sandbox as i32);

    // Counted lines: what is lost, doubled or swapped on the way is another sum.
    let ten = 10 * 1024 * 1024;
    let count =
        format!("seq 1 2000000 | head -c {ten} | tee /tmp/ten | sha256sum >&2; cat /tmp/ten");
    let outcome = client.exec(name, &["sh", "-c", &count], vec![]).await.unwrap();
    assert_eq!(outcome.code, 0, "{}", String::from_utf8_lossy(&outcome.stderr));
    let mut counted = Vec::with_capacity(ten + 16);
    for number in 1_u32.. {
        if counted.len() >= ten {
            break;
        }
        counted.extend_from_slice(format!("{number}\n").as_bytes());
    }
    counted.truncate(ten);
    let sum = sha256(&outcome.stdout);
    assert_eq!((outcome.stdout.len(), &sum), (ten, &sha256(&counted)), "changed on the way");
    let there = String::from_utf8(outcome.stderr).unwrap();
    assert_eq!(there.split_whitespace().next(), Some(sum.as_str()), "as the sandbox saw it");

    // `sha256sum` ends only when its stdin does: the half-close must arrive, after every byte.
    let input: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|at| (at.wrapping_mul(2_654_435_761) >> 24).to_le_bytes())
        .collect();
    let outcome = client.exec(name, &["sh", "-c", "cat | sha256sum"], input.clone()).await.unwrap();
    let digest = String::from_utf8(outcome.stdout).unwrap();
    assert_eq!(
        digest.split_whitespace().next().unwrap(),
        sha256(&input),
        "stdin was changed on the way"
    );

    let missing = client.exec(name, &["no-such-program"], vec![]).await.unwrap_err();
    assert_eq!(reason(&missing), "EXEC_FAILED", "{missing:#}");

    let start = pb::ExecStart {
        argv: ["stty", "size"].map(str::to_owned).to_vec(),
        tty: true,
        size: Some(pb::TerminalSize { rows: 33, columns: 111 }),
        ..Default::default()
    };
    let outcome = client.exec_start(name, start, vec![]).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&outcome.stdout).trim(), "33 111");

    let who = client.exec(name, &["id", "-u"], vec![]).await.unwrap();
    assert_eq!(who.stdout, b"1000\n", "a program runs as the image's user");
}

async fn desktop(client: &Client, name: &str) {
    let request = pb::GetScreenshotRequest { sandbox: name.to_owned() };
    let shot = client.desktop().get_screenshot(timed(request, 30)).await.unwrap().into_inner();
    let picture =
        image::ImageReader::with_format(Cursor::new(&shot.image), image::ImageFormat::Png)
            .decode()
            .unwrap();
    assert_eq!((picture.width(), picture.height()), (1280, 720), "the size of the display");
    assert_eq!((shot.width, shot.height), (1280, 720));
    assert_eq!(shot.via, pb::TunnelPath::Sandbox as i32);

    let text = "wölfe – 狼".to_owned();
    let set = pb::SetClipboardRequest { sandbox: name.to_owned(), text: text.clone() };
    client.desktop().set_clipboard(timed(set, 30)).await.unwrap();
    let get = pb::GetClipboardRequest { sandbox: name.to_owned() };
    let got = client.desktop().get_clipboard(timed(get, 30)).await.unwrap().into_inner();
    assert_eq!(got.text, text);
}

/// What the engine says of the container that was really created.
async fn hardening(sandbox: &pb::Sandbox) {
    let container = container_of(sandbox).await.expect("a running sandbox has a container");
    let host = container.host_config.unwrap();
    let config = container.config.unwrap();
    assert_eq!(host.privileged, Some(false));
    let dropped = host.cap_drop.unwrap_or_default();
    assert!(dropped.iter().any(|cap| cap.eq_ignore_ascii_case("ALL")), "{dropped:?}");
    let mut added: Vec<String> = host.cap_add.unwrap_or_default();
    for cap in &mut added {
        *cap = cap.trim_start_matches("CAP_").to_owned();
    }
    added.sort();
    assert_eq!(added, CAPABILITIES);
    let options = host.security_opt.unwrap_or_default();
    assert!(options.iter().any(|option| option.starts_with("no-new-privileges")), "{options:?}");
    assert!(!options.iter().any(|option| option.contains("unconfined")), "{options:?}");
    assert!(
        host.memory.unwrap_or(0) > 0 && host.memory_swap == host.memory,
        "memory is limited, swap is not on top"
    );
    assert!(host.nano_cpus.unwrap_or(0) > 0 || host.cpu_quota.unwrap_or(0) > 0, "cpu is limited");
    assert!(host.pids_limit.unwrap_or(0) > 0, "pids are limited");
    for (what, mode) in
        [("pid", host.pid_mode), ("uts", host.uts_mode), ("userns", host.userns_mode)]
    {
        assert_ne!(mode.as_deref(), Some("host"), "{what}");
    }
    assert_ne!(host.network_mode.as_deref(), Some("host"));
    assert_ne!(host.ipc_mode.as_deref(), Some("host"), "ipc");
    assert!(host.devices.unwrap_or_default().is_empty(), "no devices");
    assert!(host.port_bindings.unwrap_or_default().is_empty(), "no published ports");
    assert!(!host.masked_paths.unwrap_or_default().is_empty(), "masked paths are kept");
    assert!(!host.readonly_paths.unwrap_or_default().is_empty(), "read-only paths are kept");
    let mounts = container.mounts.unwrap_or_default();
    for mount in &mounts {
        let source = mount.source.clone().unwrap_or_default();
        let target = mount.destination.clone().unwrap_or_default();
        assert!(
            !source.contains("docker.sock") && target.starts_with("/run/wolfpack"),
            "{source} on {target}"
        );
    }
    let labels = config.labels.unwrap_or_default();
    let id = sandbox.name.trim_start_matches("sandboxes/");
    assert!(labels.values().any(|value| value.ends_with(id)), "{labels:?}");
    let environment = config.env.unwrap_or_default().join("\n");
    assert!(
        !environment.contains("wp_") && !environment.contains("eyJ"),
        "a credential is in the environment"
    );
}

async fn logs_and_errors(client: &Client, name: &str) {
    let request = pb::StreamLogsRequest { sandbox: name.to_owned(), ..Default::default() };
    let mut logs = client.io().stream_logs(timed(request, 30)).await.unwrap().into_inner();
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    while let Some(part) = logs.message().await.unwrap() {
        if part.stderr { &mut complained } else { &mut said }.extend_from_slice(&part.data);
    }
    let said = String::from_utf8_lossy(&said);
    let complained = String::from_utf8_lossy(&complained);
    let own: Vec<&str> = said.lines().filter(|line| line.starts_with("spoken")).collect();
    assert_eq!(own, ["spoken 1", "spoken 2"], "{said}");
    assert!(complained.lines().any(|line| line == "complained"), "{complained}");
    assert!(!said.contains("complained"), "the streams are kept apart: {said}");

    let request = pb::GetSandboxRequest { name: "sandboxes/none".to_owned() };
    let status = client.sandboxes().get_sandbox(timed(request, 10)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let info = status.get_error_details().error_info().cloned().expect("an ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("SANDBOX_NOT_FOUND", "wolfpack.dev"));

    let request = pb::GetSandboxRequest { name: "Not A Name".to_owned() };
    let status = client.sandboxes().get_sandbox(timed(request, 10)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations =
        status.get_error_details().bad_request().cloned().expect("a BadRequest").field_violations;
    assert_eq!(violations[0].field, "name");
}

/// The container of a sandbox as the engine sees it; `None` when there is none.
pub(crate) async fn container_of(
    sandbox: &pb::Sandbox,
) -> Option<bollard::models::ContainerInspectResponse> {
    use bollard::query_parameters::ListContainersOptionsBuilder;
    let docker = Docker::connect_with_defaults().unwrap();
    let id = sandbox.name.trim_start_matches("sandboxes/");
    let all = docker
        .list_containers(Some(ListContainersOptionsBuilder::default().all(true).build()))
        .await
        .unwrap();
    let found = all.into_iter().find(|container| {
        container.labels.as_ref().is_some_and(|labels| {
            labels.iter().any(|(key, value)| key == "wolfpack.sandbox" && value.ends_with(id))
        })
    })?;
    docker.inspect_container(&found.id.unwrap(), None::<InspectContainerOptions>).await.ok()
}

/// The reason in a status's ErrorInfo.
pub(crate) fn reason(error: &anyhow::Error) -> String {
    error
        .downcast_ref::<tonic::Status>()
        .and_then(|status| status.get_error_details().error_info().cloned())
        .map_or_else(String::new, |info| info.reason)
}

fn sha256(data: &[u8]) -> String {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(data).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}
