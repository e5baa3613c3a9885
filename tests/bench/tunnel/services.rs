//! The ways that people take: a gateway's HTTP ingress, and `wolfpack
//! port-forward`. Registry, broker, gateway and tool are the programs that are
//! shipped, with mTLS between them and the registry on SQLite.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::{IntrospectRequest, MintSandboxTokenRequest};
use wolfpack_rpc::{ClientTls, PeerConfig, RpcChannel, TlsConfig};
use wolfpack_types::{ExecutionId, SandboxId};

use super::peers::{Addresses, Http, Peer};
use crate::parts::agent::Agent;
use crate::processes::{free, logged, reachable, start_part};

const PATIENCE: Duration = Duration::from_secs(30);
/// What the agent serves, and as which ports.
const PORTS: [(&str, u16); 2] = [("http", 8080), ("iperf", 5201)];
const SERVICES: [&str; 4] = ["registry", "tunnel-broker", "gateway", "sandbox-manager"];

pub(super) const GATEWAY: &str = "wolfpack-gateway";
pub(super) const GATEWAY_TLS: &str = "wolfpack-gateway-tls";
const PORT_FORWARD: &str = "wolfpack-port-forward";

/// Settings of a program, by what follows its prefix in the environment.
type Settings = BTreeMap<String, String>;

struct Services {
    folder: PathBuf,
    at: BTreeMap<&'static str, SocketAddr>,
    processes: Vec<Child>,
    settings: BTreeMap<&'static str, Settings>,
}

/// Starts all of it; the peers are the gateway without and with TLS, and
/// `wolfpack port-forward`.
pub(super) async fn start(folder: &Path, targets: &Addresses) -> anyhow::Result<Vec<Peer>> {
    let ports = ["registry", "tunnel-broker", "agents", "gateway", "plaintext", "nobody"];
    let mut services = Services {
        folder: folder.join("services"),
        at: ports.into_iter().map(|name| (name, free())).collect(),
        processes: Vec::new(),
        settings: BTreeMap::new(),
    };
    std::fs::create_dir_all(&services.folder)?;
    services.issue_certificates().await?;
    for service in ["registry", "tunnel-broker", "gateway"] {
        services.start(service)?;
    }
    let key = services.first_key().await?;
    let sandbox = SandboxId::new();
    let token = services.token(&sandbox, &key).await?;
    services.start_agent(&sandbox, token, targets)?;

    let path = format!("/v1/sandboxes/{}/ports/{}/", sandbox.as_str(), PORTS[0].1);
    let headers = vec![format!("Authorization: Bearer {key}")];
    let plaintext = services.at["plaintext"];
    answers(plaintext, &path, &headers[0])
        .await
        .context("the gateway does not reach the target")?;
    let front = services.forward(&sandbox, &key).await?;
    let forwarded = front["http"];
    answers(forwarded, "/", "Accept: */*").await.context("port-forward reaches nothing")?;

    let configuration = json!({
        "environment": services.settings,
        "rate_limit": "the ingress has none: the 500 calls a second of the public listener are of rpcs, \
            and a forwarded connection is one of them, which is why new connections are not measured here",
        "path": path.replace(sandbox.as_str(), "ID"),
        "registry": "SQLite",
        "tls": "between all processes, and between agent and broker",
    });
    let peer = |name, measures, url, headers| Peer {
        http: Http { url, headers },
        ..Peer::empty(name, measures, configuration.clone())
    };
    let url = |scheme: &str, at: SocketAddr| format!("{scheme}://{at}{path}");
    let mut gateway = peer(GATEWAY, &["c64"], url("http", plaintext), headers.clone());
    gateway.processes = services.processes;
    let tls = peer(GATEWAY_TLS, &["c64"], url("https", services.at["gateway"]), headers);
    let measures = &["stream1_up", "stream1_down", "one_client", "c64"];
    let mut forward = peer(PORT_FORWARD, measures, format!("http://{forwarded}/"), Vec::new());
    forward.front = front;
    Ok(vec![gateway, tls, forward])
}

impl Services {
    async fn issue_certificates(&self) -> anyhow::Result<()> {
        for service in SERVICES {
            let mut issue = Command::new(binary("wolfpack-registry")?);
            issue.arg("issue").arg("--ca").arg(self.folder.join("ca"));
            issue.args(["--service", service, "--ip", "127.0.0.1", "--out"]);
            let output = issue.arg(self.folder.join("tls")).output().await?;
            let said = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success(), "issue {service}: {said}");
        }
        Ok(())
    }

    fn tls(&self, service: &str) -> TlsConfig {
        let file = |name: String| self.folder.join("tls").join(name);
        TlsConfig {
            certificate_file: file(format!("{service}.crt")),
            key_file: file(format!("{service}.key")),
            roots_file: file("ca.crt".to_owned()),
        }
    }

    fn url(&self, service: &str) -> String {
        format!("https://{}", self.at[service])
    }

    /// What differs from the defaults.
    fn settings(&self, service: &str) -> Settings {
        let tls = self.tls(service);
        let path = |path: &Path| path.display().to_string();
        let in_folder = |name: &str| path(&self.folder.join(name));
        let mut all = vec![
            ("LISTEN", self.at[service].to_string()),
            ("TELEMETRY__FILTER", "warn".to_owned()),
            ("TLS__CERTIFICATE_FILE", path(&tls.certificate_file)),
            ("TLS__KEY_FILE", path(&tls.key_file)),
            ("TLS__ROOTS_FILE", path(&tls.roots_file)),
        ];
        match service {
            "registry" => all.extend([
                ("DATABASE__URL", format!("sqlite://{}?mode=rwc", in_folder("registry.db"))),
                ("DATA_DIR", in_folder("registry")),
                ("CA_DIR", in_folder("ca")),
                ("BOOTSTRAP_KEY_FILE", in_folder("first.key")),
                ("AGENT_ENDPOINT", self.at["agents"].to_string()),
                ("TUNNEL_BROKER__ADDRESS", self.url("tunnel-broker")),
                // Longer than any run: the agent of the benchmark refreshes nothing.
                ("SANDBOX_TOKENS__LIFE", "24h".to_owned()),
            ]),
            "tunnel-broker" => all.extend([
                ("AGENTS", self.at["agents"].to_string()),
                ("REGISTRY__ADDRESS", self.url("registry")),
                ("DATA_THREADS", "1".to_owned()),
            ]),
            _ => all.extend([
                ("PLAINTEXT", self.at["plaintext"].to_string()),
                ("REGISTRY__ADDRESS", self.url("registry")),
                ("TUNNEL_BROKER__ADDRESS", self.url("tunnel-broker")),
                // Not needed on the way of a byte.
                ("SCHEDULER__ADDRESS", self.url("nobody")),
                ("SANDBOX_MANAGER__ADDRESS", self.url("nobody")),
            ]),
        }
        all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn start(&mut self, service: &'static str) -> anyhow::Result<()> {
        let settings = self.settings(service);
        let mut command = Command::new(binary(&format!("wolfpack-{service}"))?);
        let prefix = format!("WOLFPACK_{}__", service.replace('-', "_").to_uppercase());
        for (key, value) in &settings {
            command.env(format!("{prefix}{key}"), value);
        }
        let log = self.folder.join(format!("{service}.log"));
        self.processes.push(logged(&mut command, &log)?);
        self.settings.insert(service, settings);
        Ok(())
    }

    /// The key that the registry writes when it begins.
    async fn first_key(&self) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            match std::fs::read_to_string(self.folder.join("first.key")) {
                Ok(key) if !key.trim().is_empty() => return Ok(key.trim().to_owned()),
                _ if begun.elapsed() > PATIENCE => {
                    let log = std::fs::read_to_string(self.folder.join("registry.log"));
                    anyhow::bail!("the registry writes no key: {}", log.unwrap_or_default())
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// A token of a sandbox of the key's project, as the sandbox-manager gets one.
    async fn token(&self, sandbox: &SandboxId, key: &str) -> anyhow::Result<String> {
        reachable(self.at["registry"]).await?;
        wolfpack_runtime::install_crypto_provider();
        let tls = ClientTls::load(&self.tls("sandbox-manager"))?;
        let peer = PeerConfig::at(self.url("registry"));
        let channel = RpcChannel::to_service(&peer, "registry", Some(&tls))?;
        let mut identity = IdentityServiceClient::new(channel);
        let asked = IntrospectRequest { key: key.to_owned() };
        let project = identity.introspect(asked).await?.into_inner().project;
        let asked = MintSandboxTokenRequest {
            sandbox: sandbox.name(),
            project,
            execution_id: ExecutionId::new().as_str().to_owned(),
        };
        Ok(identity.mint_sandbox_token(asked).await?.into_inner().token)
    }

    fn start_agent(
        &mut self,
        sandbox: &SandboxId,
        token: String,
        targets: &Addresses,
    ) -> anyhow::Result<()> {
        let part = Agent {
            broker: self.at["agents"],
            roots: Some(self.tls("gateway").roots_file),
            endpoint: sandbox.name(),
            token,
            targets: PORTS.map(|(name, port)| (format!("tcp:{port}"), targets[name])).into(),
            grpc: None,
            data_thread: true,
        };
        self.processes.push(start_part("agent", &self.folder, &part)?);
        Ok(())
    }

    /// Starts `wolfpack port-forward`; gives where its forwards listen.
    async fn forward(&mut self, sandbox: &SandboxId, key: &str) -> anyhow::Result<Addresses> {
        let front: Addresses = PORTS.iter().map(|(name, _)| ((*name).to_owned(), free())).collect();
        let mut command = Command::new(binary("wolfpack")?);
        command.env("WOLFPACK_API_KEY", key).env("XDG_CONFIG_HOME", self.folder.join("config"));
        command.args(["--server", &format!("http://{}", self.at["plaintext"]), "port-forward"]);
        command.arg(sandbox.name());
        for (name, port) in PORTS {
            command.arg(format!("{}:{port}", front[name].port()));
        }
        let log = self.folder.join("port-forward.log");
        self.processes.push(logged(&mut command, &log)?);
        let listens = reachable(front["http"]).await;
        listens.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok(front)
    }
}

/// A program of ours: in the folder that `WOLFPACK_BINARIES` names, else beside this one.
fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let file = match std::env::var_os("WOLFPACK_BINARIES") {
        Some(folder) => PathBuf::from(folder).join(name),
        None => std::env::current_exe()?.with_file_name(name),
    };
    anyhow::ensure!(file.exists(), "{} is not there; build it", file.display());
    Ok(file)
}

/// Waits until a request is answered with 200.
async fn answers(at: SocketAddr, path: &str, header: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let asked = tokio::time::timeout(PATIENCE, status(at, path, header)).await;
        let found = asked.context("no answer")?.unwrap_or_else(|error| error.to_string());
        if found.contains(" 200 ") {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "{found}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn status(at: SocketAddr, path: &str, header: &str) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\n{header}\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let read = socket.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}
