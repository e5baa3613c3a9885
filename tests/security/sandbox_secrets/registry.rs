//! The account of a registry: a wolf pulls with it, and the sandbox whose image
//! came so has nothing of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use wolfpack_proto::registry::v1 as pb_registry;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::{Client, timed};
use wolfpack_testkit::dev_fleet::DevFleet;
use wolfpack_testkit::process::{Process, binary, eventually, sandbox_agent};

use super::{as_root, found, scan};

/// What the image is made of: it has a shell to look around with.
const BASE: &str = "debian:bookworm-slim";
const USER: &str = "robot";
const PASSWORD: &str = "PlantedRegistryPassword7f3a9c51";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn sha256(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

async fn docker(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("docker").args(arguments).stderr(Stdio::inherit()).output();
    let output = tokio::time::timeout(Duration::from_secs(120), output).await.unwrap().unwrap();
    assert!(output.status.success(), "docker {arguments:?}");
    output.stdout
}

/// A registry of one image, for those who have the account.
struct Registry {
    address: SocketAddr,
    /// The accounts that came with requests, as they came.
    accounts: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::AbortHandle,
}

/// What it serves: path, kind, body.
type Served = Vec<(String, &'static str, Vec<u8>)>;

impl Registry {
    async fn start() -> Self {
        let container = String::from_utf8(docker(&["create", BASE, "true"]).await).unwrap();
        let layer = docker(&["export", container.trim()]).await;
        docker(&["rm", container.trim()]).await;
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["sleep", "3600"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": config.len(), "digest": sha256(&config),
            },
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                "size": layer.len(), "digest": sha256(&layer),
            }],
        });
        let manifest = manifest.to_string().into_bytes();
        let octets = "application/octet-stream";
        let served: Served = vec![
            ("/v2/".to_owned(), "application/json", b"{}".to_vec()),
            ("/v2/private/manifests/1".to_owned(), MANIFEST, manifest.clone()),
            (format!("/v2/private/manifests/{}", sha256(&manifest)), MANIFEST, manifest),
            (format!("/v2/private/blobs/{}", sha256(&config)), octets, config),
            (format!("/v2/private/blobs/{}", sha256(&layer)), octets, layer),
        ];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accounts = Arc::new(Mutex::new(Vec::new()));
        let (seen, served) = (accounts.clone(), Arc::new(served));
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (served, seen) = (served.clone(), seen.clone());
                // Clients go away when they like, and try TLS first.
                tokio::spawn(async move {
                    let _ = answer(connection, &served, &seen).await;
                });
            }
        });
        Self { address, accounts, serving: serving.abort_handle() }
    }

    fn image(&self) -> String {
        format!("{}/private:1", self.address)
    }
}

async fn answer(
    mut connection: TcpStream,
    served: &Served,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (from, mut to) = connection.split();
    let mut lines = BufReader::new(from).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    let mut account = None;
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        if name.eq_ignore_ascii_case("authorization") {
            account = Some(value.to_owned());
        }
    }
    let (method, path) = first.split_once(' ').unwrap_or_default();
    let path = path.split(' ').next().unwrap_or_default();
    let right = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let allowed = account.as_deref() == Some(&right);
    seen.lock().unwrap().extend(account);
    let found = served.iter().find(|(at, _, _)| at == path);
    let none = Vec::new();
    let (head, body) = match found {
        _ if !allowed => {
            ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"".to_owned(), &none)
        }
        Some((_, kind, body)) => {
            let hash = sha256(body);
            (format!("200 OK\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {hash}"), body)
        }
        None => ("404 Not Found".to_owned(), &none),
    };
    let head = format!(
        "HTTP/1.1 {head}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    to.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        to.write_all(body).await?;
    }
    to.shutdown().await
}

/// A wolf with the account, as a process on this machine's engine.
async fn wolf(
    folder: &Path,
    fleet: &DevFleet,
    client: &Client,
    registry: &Registry,
) -> (Process, String) {
    let tag = format!("wolfpack-s{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let me = timed(pb_registry::WhoAmIRequest {}, 10);
    let project = client.identity().who_am_i(me).await.unwrap().into_inner().project;
    let request = pb_registry::CreateJoinTokenRequest { project, ..Default::default() };
    let token = client.identity().create_join_token(timed(request, 10)).await.unwrap();
    let password = folder.join("registry.password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let config = folder.join("wolf.toml");
    let written = format!(
        "display_name = {tag:?}\nnetwork = {tag:?}\n\n[labels]\naccount = {tag:?}\n\n\
         [relay]\ngateway_port = 0\nbroker_port = 0\n\n\
         [[registries]]\nhost = \"{}\"\nusername = {USER:?}\npassword_file = {password:?}\n",
        registry.address
    );
    std::fs::write(&config, written).unwrap();
    let mut command = Command::new(binary("wolfpack-wolf-agent"));
    command
        .arg("--config")
        .arg(config)
        .env("WOLFPACK_WOLF__SERVER", &fleet.ready().server_tls)
        .env("WOLFPACK_WOLF__JOIN_TOKEN", token.into_inner().token)
        .env("WOLFPACK_WOLF__DATA_DIR", folder.join("account-wolf"))
        .env("WOLFPACK_WOLF__SANDBOX_AGENT_BINARY", sandbox_agent());
    let mut process = Process::start("account-wolf", folder, &mut command);
    eventually("the wolf is online", Duration::from_secs(60), async || {
        if let Some(status) = process.ended() {
            panic!("the wolf ended with {status}:\n{}", process.log_tail());
        }
        let list = timed(pb_registry::ListWolvesRequest::default(), 10);
        let wolves = client.wolves().list_wolves(list).await?.into_inner().wolves;
        let online = |wolf: &pb_registry::Wolf| {
            wolf.display_name == tag && wolf.state() == pb_registry::WolfState::Online
        };
        wolves.iter().any(online).then_some(()).ok_or_else(|| anyhow::anyhow!("it is not"))
    })
    .await;
    (process, tag)
}

/// The middle of what base64 makes of a secret, wherever in a text it begins.
fn encoded(secret: &str) -> Vec<String> {
    let begun = |before: usize| STANDARD.encode(format!("{}{secret}", "x".repeat(before)));
    let whole = |text: String| text[4..text.len() - 4].to_owned();
    (0..3).map(|before| whole(begun(before))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_of_a_registry_reaches_no_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = DevFleet::start(folder.path(), &[]).await;
    let client = fleet.client().await;
    let registry = Registry::start().await;
    let (mut wolf, tag) = wolf(folder.path(), &fleet, &client, &registry).await;
    let spec = |image: String| pb::SandboxSpec {
        image,
        wolf_selector: [("account".to_owned(), tag.clone())].into(),
        ..Default::default()
    };
    let sandbox = client.run(spec(registry.image())).await.unwrap();
    let name = sandbox.name.as_str();
    // The control: the account was used for this very sandbox.
    let right = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    assert!(registry.accounts.lock().unwrap().contains(&right), "it was pulled without it");

    let needles: Vec<String> = std::iter::once(PASSWORD.to_owned())
        .chain([STANDARD.encode(format!("{USER}:{PASSWORD}"))])
        .chain(encoded(PASSWORD))
        .chain([folder.path().join("registry.password").display().to_string()])
        .collect();
    for needle in &needles {
        // The control: the scan finds what is there, in a file, where its boot
        // is kept, and in what a process has been given.
        let plant = format!(
            "echo '{needle}' > /tmp/control; echo '{needle}' > /run/wolfpack/control; \
             SECRET='{needle}' setsid sleep 60 >/dev/null 2>&1 </dev/null & sleep 0.3"
        );
        as_root(&client, name, &plant).await;
        let seen = found(&as_root(&client, name, &scan(needle)).await);
        assert!(seen.files.contains(&"/tmp/control".to_owned()), "{seen:?}");
        assert!(seen.files.contains(&"/run/wolfpack/control".to_owned()), "{seen:?}");
        assert!(!seen.processes.is_empty(), "{seen:?}");
        let clear = "rm /tmp/control /run/wolfpack/control; for p in /proc/[0-9]*; do \
                     grep -aq SECRET= $p/environ 2>/dev/null && kill -9 ${p#/proc/}; done";
        as_root(&client, name, clear).await;
        let seen = found(&as_root(&client, name, &scan(needle)).await);
        assert!(seen.files.is_empty() && seen.processes.is_empty(), "{needle}: {seen:?}");
    }
    let env = client.exec(name, &["env"], vec![]).await.unwrap();
    let env = String::from_utf8_lossy(&env.stdout).into_owned();
    assert!(env.contains("PATH=") && !needles.iter().any(|it| env.contains(it)), "{env}");

    // Nor is it in what is said of a pull that fails, or in what the engine shows.
    let missing = format!("{}/private:missing", registry.address);
    let failed = client.create(spec(missing)).await.unwrap();
    let failed = client.wait(&failed.name, pb::SandboxState::Failed).await.unwrap();
    let container = String::from_utf8(
        docker(&["ps", "--all", "--quiet", "--filter", &format!("ancestor={}", registry.image())])
            .await,
    )
    .unwrap();
    let shown = docker(&["inspect", container.trim()]).await;
    let said = format!("{failed:?}{}", String::from_utf8_lossy(&shown));
    assert!(said.contains("IMAGE_PULL_FAILED") || said.contains("IMAGE_NOT_FOUND"), "{said}");
    assert!(!needles.iter().any(|needle| said.contains(needle)), "{said}");

    client.delete(&failed.name).await.unwrap();
    client.delete(name).await.unwrap();
    let status = wolf.stop(Duration::from_secs(60)).await;
    assert!(status.success(), "the wolf ended with {status}:\n{}", wolf.log_tail());
    docker(&["image", "rm", &registry.image()]).await;
    registry.serving.abort();
    fleet.stop().await;
}
