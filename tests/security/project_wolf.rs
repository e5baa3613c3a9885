//! A wolf of the owner's project alone: its agent as a process, on this
//! machine's engine, which it shares with sandboxes; beside it something that
//! listens, and an archive of an image to load.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::AbortHandle;
use wolfpack_proto::registry::v1 as registry;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::types::v1::DockerMode;
use wolfpack_testkit::client::{Client, timed};
use wolfpack_testkit::dev_fleet::DevFleet;
use wolfpack_testkit::process::{Process, binary, eventually, sandbox_agent};

/// The image that has a Docker client.
const WITH_DOCKER: &str = "wolfpack/sandbox-docker:latest";

pub(crate) struct ProjectWolf {
    /// Its resource name.
    pub(crate) name: String,
    process: Process,
    tag: String,
    beside: AbortHandle,
}

impl ProjectWolf {
    /// Joins the wolf and waits until it is online.
    pub(crate) async fn start(
        folder: &Path,
        fleet: &DevFleet,
        owner: &Client,
        project: &str,
    ) -> Self {
        let tag = format!("wolfpack-s{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let request =
            registry::CreateJoinTokenRequest { project: project.to_owned(), ..Default::default() };
        let token = owner.identity().create_join_token(timed(request, 10)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let moonlight = listener.local_addr().unwrap().to_string();
        let mut command = Command::new(binary("wolfpack-wolf-agent"));
        let setting = |name: &str| format!("WOLFPACK_WOLF__{name}");
        command
            .env(setting("SERVER"), &fleet.ready().server_tls)
            .env(setting("JOIN_TOKEN"), token.into_inner().token)
            .env(setting("DATA_DIR"), folder.join("project-wolf"))
            .env(setting("SANDBOX_AGENT_BINARY"), sandbox_agent())
            .env(setting("DISPLAY_NAME"), &tag)
            .env(setting("NETWORK"), &tag)
            .env(setting("RELAY__GATEWAY_PORT"), "0")
            .env(setting("RELAY__BROKER_PORT"), "0")
            .env(setting("DOCKER__SHARED"), "true")
            .env(setting("TARGETS__MOONLIGHT_WEB"), moonlight);
        let mut process = Process::start("project-wolf", folder, &mut command);
        let beside = tokio::spawn(echo(listener)).abort_handle();
        let online =
            eventually("the project's wolf is online", Duration::from_secs(60), async || {
                if let Some(status) = process.ended() {
                    panic!("the project's wolf ended with {status}:\n{}", process.log_tail());
                }
                let list = registry::ListWolvesRequest::default();
                let wolves = owner.wolves().list_wolves(timed(list, 10)).await?.into_inner().wolves;
                wolves
                    .into_iter()
                    .find(|wolf| {
                        wolf.display_name == tag && wolf.state() == registry::WolfState::Online
                    })
                    .ok_or_else(|| anyhow::anyhow!("it is not"))
            })
            .await;
        Self { name: online.name, process, tag, beside }
    }

    /// A sandbox that shares the wolf's engine, has said something, and has
    /// started a container beside itself.
    pub(crate) async fn sharing_sandbox(&self, owner: &Client) -> pb::Sandbox {
        let command = ["sh", "-c", "echo here I am; exec sleep 3600"].map(str::to_owned).to_vec();
        let spec = pb::SandboxSpec {
            image: WITH_DOCKER.to_owned(),
            command,
            docker: DockerMode::Shared as i32,
            ..Default::default()
        };
        let sandbox = owner.run(spec).await.unwrap();
        assert_eq!(sandbox.status.clone().unwrap().wolf, self.name);
        let start = ["docker", "run", "-d", "--name", &self.tag, WITH_DOCKER, "sleep", "3600"];
        let started = owner.exec(&sandbox.name, &start, vec![]).await.unwrap();
        assert_eq!(started.code, 0, "{}", String::from_utf8_lossy(&started.stderr));
        sandbox
    }

    /// An image that the engine does not have, as an archive.
    pub(crate) async fn archive(&self) -> Archive {
        let image = format!("{}:1", self.tag);
        // Two blocks of zeros are a tar of nothing.
        docker(&["import", "-", &image], &[0; 1024]).await;
        let bytes = docker(&["save", &image], &[]).await;
        docker(&["image", "rm", &image], &[]).await;
        Archive { image, bytes }
    }

    /// Ends it; what is left over on the engine fails the test.
    pub(crate) async fn stop(mut self) {
        self.beside.abort();
        let status = self.process.stop(Duration::from_secs(60)).await;
        assert!(status.success(), "it ended with {status}:\n{}", self.process.log_tail());
        let filter = format!("name={}", self.tag);
        let reference = format!("reference={}", self.tag);
        for listing in [
            ["ps", "--all", "--quiet", "--filter", &filter],
            ["network", "ls", "--quiet", "--filter", &filter],
            ["images", "--all", "--quiet", "--filter", &reference],
        ] {
            let left = docker(&listing, &[]).await;
            assert!(left.is_empty(), "{listing:?}: {}", String::from_utf8_lossy(&left));
        }
    }
}

/// An image as `docker save` writes it.
pub(crate) struct Archive {
    /// Its name.
    pub(crate) image: String,
    bytes: Vec<u8>,
}

impl Archive {
    /// What requests may say of it.
    pub(crate) fn words(&self) -> [(&'static str, String); 4] {
        let hash = digest(&SHA256, &self.bytes);
        let hash = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        [
            ("{image}", self.image.clone()),
            ("{size}", self.bytes.len().to_string()),
            ("{sha256}", hash),
            ("{archive}", STANDARD.encode(&self.bytes)),
        ]
    }
}

/// Sends back what comes until that ends.
async fn echo(listener: TcpListener) {
    while let Ok((mut connection, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut from, mut to) = connection.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
}

/// Runs docker on this machine's engine; it must succeed.
async fn docker(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    let output = tokio::time::timeout(Duration::from_secs(120), child.wait_with_output());
    let output = output.await.unwrap_or_else(|_| panic!("docker {arguments:?} hangs")).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {error}");
    output.stdout
}
