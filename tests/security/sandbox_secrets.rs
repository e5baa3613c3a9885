//! What a sandbox can find out: no secret of its host, and nothing of its
//! neighbours.

mod registry;

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::Client;
use wolfpack_testkit::dev_fleet::DevFleet;

/// Listens on port 7777 in the background, for a minute at most.
const LISTEN: &str = "setsid perl -MIO::Socket::INET -e 'alarm 60; my $l = IO::Socket::INET->new(LocalPort => 7777, \
     Listen => 5, ReuseAddr => 1) or die; while (my $c = $l->accept) { close $c }' >/dev/null 2>&1 </dev/null & sleep 0.5";

/// Runs a shell line as root in a sandbox: the most that a user can be there.
async fn as_root(client: &Client, name: &str, line: &str) -> String {
    let start = pb::ExecStart {
        argv: ["sh", "-c", line].map(str::to_owned).to_vec(),
        user: "root".to_owned(),
        ..Default::default()
    };
    let outcome = client.exec_start(name, start, vec![]).await.unwrap();
    String::from_utf8_lossy(&outcome.stdout).into_owned()
}

/// A shell line that looks for a text: in what every process was given, and in
/// files, those of its boot too, which are mounted.
fn scan(needle: &str) -> String {
    // In brackets, so that the line does not find itself.
    let (first, rest) = needle.split_at(1);
    let needle = format!("[{first}]{rest}");
    format!(
        "for p in /proc/[0-9]*; do cat $p/environ $p/cmdline 2>/dev/null | tr '\\0' '\\n' | \
         grep -aq -e '{needle}' && echo process $p; done; \
         find / /run/wolfpack -xdev -type f -size -256k -not -path '/proc/*' -not -path '/sys/*' \
         -exec grep -al -e '{needle}' {{}} + 2>/dev/null | sort -u | head -20"
    )
}

/// Where a scan found its text.
#[derive(Debug, Default)]
struct Found {
    files: Vec<String>,
    processes: Vec<String>,
}

fn found(told: &str) -> Found {
    let (processes, files) =
        told.lines().partition::<Vec<_>, _>(|line| line.starts_with("process "));
    let owned = |lines: Vec<&str>| lines.into_iter().map(str::to_owned).collect();
    Found { files: owned(files), processes: owned(processes) }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_secret_and_no_neighbour_is_seen_from_a_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = DevFleet::start(folder.path(), &[]).await;
    let client = fleet.client().await;
    let sandbox = client.run(pb::SandboxSpec::default()).await.unwrap();
    let neighbour = client.run(pb::SandboxSpec::default()).await.unwrap();
    let name = sandbox.name.as_str();

    // The control: the scan finds a secret that is there.
    let plant = "echo planted-control-secret > /tmp/control; echo planted-control-secret > /run/wolfpack/control; \
                 X=planted-control-secret setsid sleep 30 >/dev/null 2>&1 </dev/null & sleep 0.3";
    as_root(&client, name, plant).await;
    let control = found(&as_root(&client, name, &scan("planted-control-secret")).await);
    for file in ["/run/wolfpack/control", "/tmp/control"] {
        assert!(control.files.iter().any(|found| found == file), "{control:?}");
    }
    assert!(!control.processes.is_empty(), "{control:?}");

    let key_secret = fleet.ready().api_key.clone();
    let own_token_is = "/run/wolfpack/token";
    for (what, needle) in [
        ("an API key", key_secret.as_str()),
        ("a join token", "wpj_"),
        ("a private key", "PRIVATE KEY-----"),
    ] {
        let found = found(&as_root(&client, name, &scan(needle)).await);
        let files: Vec<&String> = found
            .files
            .iter()
            .filter(|file| !(what == "a private key" && file.starts_with("/usr/")))
            .filter(|file| !file.starts_with("/run/wolfpack/bin/"))
            .collect();
        assert!(files.is_empty(), "{what} is in the sandbox: {files:?}");
        assert!(found.processes.is_empty(), "{what} was given to {:?}", found.processes);
    }

    // Its own token is there, for root alone, and names this sandbox only.
    let mode = as_root(&client, name, &format!("stat -c '%a %u' {own_token_is}")).await;
    assert_eq!(mode.trim(), "600 0");
    let user = client.exec(name, &["cat", own_token_is], vec![]).await.unwrap();
    assert_ne!(user.code, 0, "the image's user reads the token");

    let sockets = as_root(
        &client,
        name,
        "find / -xdev -name 'docker.sock' 2>/dev/null; ls /var/run/docker.sock 2>/dev/null",
    )
    .await;
    assert_eq!(sockets, "", "an engine's socket is in the sandbox");

    // The neighbour listens; it reaches itself by its own address, nobody else does.
    as_root(&client, &neighbour.name, LISTEN).await;
    let address = as_root(&client, &neighbour.name, "hostname -i").await.trim().to_owned();
    let knock =
        format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/7777' 2>/dev/null; echo code $?");
    assert_eq!(
        as_root(&client, &neighbour.name, &knock).await.trim(),
        "code 0",
        "the control: it listens"
    );
    assert_eq!(
        as_root(&client, name, &knock).await.trim(),
        "code 124",
        "packets reach a neighbour"
    );
    let processes = as_root(&client, name, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(!processes.contains("dockerd") && !processes.contains(&neighbour.name), "{processes}");

    client.delete(name).await.unwrap();
    client.delete(&neighbour.name).await.unwrap();
    fleet.stop().await;
}
