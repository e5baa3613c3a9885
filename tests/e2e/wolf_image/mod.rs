//! A wolf in a container of its own, started without `--privileged`, and three
//! levels of Docker: this machine's engine, the wolf's, the sandbox's.

mod leaks;
mod levels;
mod mounts;
mod outside;
mod probe;
mod recovery;
mod second_wolf;
mod shared;
mod tenants;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use wolfpack_dockerd::status::InitStatus;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::types::v1::DockerMode;
use wolfpack_testkit::client::Client;
use wolfpack_testkit::dev_fleet::DevFleet;
use wolfpack_testkit::process::binary;

/// The image with an engine of its own.
const WITH_DOCKER: &str = "wolfpack/sandbox-docker:latest";

/// Held while a wolf starts and is given its image, which takes all processors:
/// two at once would only be late.
static STARTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A fleet whose wolf is a container.
struct ImageFleet {
    fleet: DevFleet,
    wolf: WolfContainer,
}

impl ImageFleet {
    async fn start(folder: &Path) -> Self {
        let _alone = STARTS.lock().await;
        let fleet = DevFleet::start_with_wolf_image(folder, &[]).await;
        let id = fleet.wolf_container().expect("the wolf is a container");
        let this = Self { fleet, wolf: WolfContainer { id } };
        push(&this.fleet, &this.fleet.ready().wolf).await;
        this
    }
}

/// Gives a wolf the image with an engine of its own.
async fn push(fleet: &DevFleet, wolf: &str) {
    let mut command = Command::new(binary("wolfpack"));
    command
        .args(["image", "push", WITH_DOCKER, "--wolf", wolf])
        .env("WOLFPACK_SERVER", &fleet.ready().server)
        .env("WOLFPACK_API_KEY", &fleet.ready().api_key);
    succeeded("wolfpack image push", &within(600, &mut command).await);
}

/// The wolf's container on this machine's engine.
struct WolfContainer {
    id: String,
}

impl WolfContainer {
    /// Runs a shell line in the wolf; it must succeed.
    async fn sh(&self, line: &str) -> String {
        docker(&["exec", &self.id, "sh", "-c", line]).await
    }

    /// Its own address, outside of its sandboxes' networks.
    async fn address(&self) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        docker(&["inspect", "--format", format, &self.id]).await.trim().to_owned()
    }

    /// What its init says.
    async fn status(&self) -> InitStatus {
        serde_json::from_str(&self.sh("wolfpack-wolf-init status").await).unwrap()
    }

    /// The address of this machine on the wolf's network: outside of the wolf.
    async fn gateway(&self) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}";
        docker(&["inspect", "--format", format, &self.id]).await.trim().to_owned()
    }
}

/// Runs docker on this machine's engine; it must succeed.
async fn docker(arguments: &[&str]) -> String {
    let mut command = Command::new("docker");
    command.args(arguments);
    succeeded(&format!("docker {arguments:?}"), &within(300, &mut command).await)
}

async fn within(seconds: u64, command: &mut Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(seconds), command.output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} took over {seconds} s"))
        .unwrap()
}

fn succeeded(what: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{text}\n{error}", output.status);
    text
}

/// A sandbox with an engine of its own.
fn nested() -> pb::SandboxSpec {
    pb::SandboxSpec { docker: DockerMode::Nested as i32, ..Default::default() }
}

/// Runs a shell line in a sandbox as the image's user; it must succeed.
async fn sh(client: &Client, sandbox: &str, line: &str) -> String {
    let outcome = client.exec(sandbox, &["bash", "-c", line], vec![]).await.unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    assert_eq!(outcome.code, 0, "{line}\n{out}\n{error}");
    out.into_owned()
}

/// Runs a shell line in a sandbox as root; what it wrote, however it ended.
async fn root(client: &Client, sandbox: &str, line: &str) -> String {
    let start = pb::ExecStart {
        argv: ["bash", "-c", line].map(str::to_owned).to_vec(),
        user: "root".to_owned(),
        ..Default::default()
    };
    let outcome = client.exec_start(sandbox, start, vec![]).await.unwrap();
    String::from_utf8_lossy(&[outcome.stdout, outcome.stderr].concat()).into_owned()
}

/// Says what this machine cannot show, past the capture of passing tests.
fn not_shown(what: &str) {
    use std::io::Write as _;
    std::io::stderr().write_all(format!("NOT SHOWN: {what}\n").as_bytes()).unwrap();
}

/// Makes the image `inner` in a sandbox out of the sandbox's own files: no
/// registry is needed.
async fn make_inner_image(client: &Client, sandbox: &str) {
    let line = "tar -C / --one-file-system --exclude=./proc --exclude=./sys --exclude=./dev \
                --exclude=./run --exclude=./var/lib/docker --exclude=./usr/share \
                --exclude=./usr/bin/dockerd --exclude=./usr/bin/containerd* \
                --exclude=./usr/sbin/dockerd --exclude=./tmp -c . 2>/dev/null \
                | docker import - inner";
    let start = pb::ExecStart {
        argv: ["bash", "-c", line].map(str::to_owned).to_vec(),
        user: "root".to_owned(),
        ..Default::default()
    };
    let outcome = client.exec_start(sandbox, start, vec![]).await.unwrap();
    assert_eq!(outcome.code, 0, "{}", String::from_utf8_lossy(&outcome.stderr));
}
