//! The ways from a client to the targets that are compared: none, rathole, ssh,
//! and ours. Each is started anew for the whole run, and stopped at its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use wolfpack_rpc::{ClientTls, PeerConfig, RpcChannel};
use wolfpack_tunnel::Dialer;
use wolfpack_types::{Endpoint, SandboxId, Target};

use super::far::Far;
use crate::certificate::Ca;
use crate::identity::Mint;
use crate::parts::agent::{self, Agent};
use crate::parts::broker::{Broker, Exposed};
use crate::processes::{free, quiet, reachable, start_part};

/// The names of the targets.
pub(super) const TARGETS: [&str; 4] = ["http", "echo", "iperf", "grpc"];
/// What the agent serves itself, under a name that users may dial.
const GRPC: &str = "tcp:50051";

/// Addresses by target name.
pub(super) type Addresses = BTreeMap<String, SocketAddr>;

/// A way to the targets.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// Where each target is reached.
    pub(super) front: Addresses,
    /// How the web server is asked.
    pub(super) http: Http,
    /// What is measured of it.
    pub(super) measures: &'static [&'static str],
    /// How the gRPC service is called.
    pub(super) grpc: Option<RpcChannel>,
    /// What first bytes over a long way are measured with.
    pub(super) far: Option<Far>,
    /// What it was told, for the report.
    pub(super) configuration: Value,
    pub(super) processes: Vec<Child>,
}

/// What is measured of each way that has a port for each target.
const OF_PORTS: [&str; 8] = [
    "stream1_up",
    "stream1_down",
    "streams16",
    "one_client",
    "one_client_asleep",
    "c64",
    "conns16",
    "grpc64",
];

/// A request for the web server.
#[derive(Default)]
pub(super) struct Http {
    pub(super) url: String,
    pub(super) headers: Vec<String>,
}

impl Peer {
    /// A way of which this is measured, and that leads nowhere yet.
    pub(super) fn empty(
        name: &'static str,
        measures: &'static [&'static str],
        configuration: Value,
    ) -> Self {
        let (http, processes) = (Http::default(), Vec::new());
        let front = Addresses::new();
        Self { name, front, http, measures, grpc: None, far: None, configuration, processes }
    }

    /// A way whose every front is a port of its own.
    fn of_ports(
        name: &'static str,
        front: Addresses,
        configuration: Value,
        processes: Vec<Child>,
    ) -> anyhow::Result<Self> {
        let url = format!("http://{}/", front["http"]);
        let grpc = PeerConfig::at(format!("http://{}", front["grpc"]));
        Ok(Self {
            front,
            http: Http { url, headers: Vec::new() },
            grpc: Some(RpcChannel::to_service(&grpc, "grpc", None)?),
            processes,
            ..Self::empty(name, &OF_PORTS, configuration)
        })
    }

    /// The way without a tunnel.
    pub(super) fn direct(targets: &Addresses) -> anyhow::Result<Self> {
        Self::of_ports("direct", targets.clone(), Value::Null, Vec::new())
    }

    /// rathole over plain TCP, with its defaults.
    pub(super) async fn rathole(
        program: &Path,
        folder: &Path,
        targets: &Addresses,
    ) -> anyhow::Result<Self> {
        let (front, control) = (fronts(), free());
        let mut server =
            format!("[server]\nbind_addr = \"{control}\"\ndefault_token = \"bench\"\n");
        let mut client =
            format!("[client]\nremote_addr = \"{control}\"\ndefault_token = \"bench\"\n");
        for (name, target) in targets {
            server += &format!("[server.services.{name}]\nbind_addr = \"{}\"\n", front[name]);
            client += &format!("[client.services.{name}]\nlocal_addr = \"{target}\"\n");
        }
        let (server_file, client_file) =
            (folder.join("rathole-server.toml"), folder.join("rathole-client.toml"));
        std::fs::write(&server_file, &server)?;
        std::fs::write(&client_file, &client)?;
        let start = |role: &str, file: &Path| {
            quiet(Command::new(program).arg(role).arg(file).env("RUST_LOG", "error"))
        };
        let processes = vec![start("--server", &server_file)?, start("--client", &client_file)?];
        let configuration = json!({ "server": server, "client": client });
        Self::of_ports("rathole", front, configuration, processes)?.wait().await
    }

    /// `ssh -R` to a server of its own, with the defaults of both.
    pub(super) async fn ssh(folder: &Path, targets: &Addresses) -> anyhow::Result<Self> {
        let (front, port) = (fronts(), free().port());
        let folder = folder.join("ssh");
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all("/run/sshd")?;
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key))
                .status()
                .await?;
            anyhow::ensure!(made.success(), "ssh-keygen failed");
        }
        let allowed = folder.join("allowed");
        std::fs::copy(folder.join("user.pub"), &allowed)?;
        std::fs::set_permissions(&allowed, std::fs::Permissions::from_mode(0o600))?;
        let configuration = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {allowed}\n\
             PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n",
            host = folder.join("host").display(),
            allowed = allowed.display(),
        );
        let file = folder.join("sshd_config");
        std::fs::write(&file, &configuration)?;
        let server = quiet(Command::new("/usr/sbin/sshd").arg("-D").arg("-f").arg(&file))?;
        reachable(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        let mut client = Command::new("ssh");
        client.args(["-N", "-p", &port.to_string(), "-o", "StrictHostKeyChecking=no"]);
        client.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes", "-i"]);
        client.arg(folder.join("user"));
        for (name, target) in targets {
            client.args(["-R", &format!("127.0.0.1:{}:{target}", front[name].port())]);
        }
        client.arg("127.0.0.1");
        let processes = vec![server, quiet(&mut client)?];
        let configuration = json!({ "sshd_config": configuration, "client": "ssh -N -R" });
        Self::of_ports("ssh", front, configuration, processes)?.wait().await
    }

    /// A broker and an agent of ours, with a port of the broker for each target.
    pub(super) async fn ours(
        name: &'static str,
        folder: &Path,
        targets: &Addresses,
        tls: bool,
    ) -> anyhow::Result<Self> {
        let ours = Ours::start(name, folder, targets, tls).await?;
        let mut configuration = serde_json::to_value(&ours.broker_part)?;
        // Keys of this run.
        if let Some(fields) = configuration.as_object_mut() {
            fields.remove("known");
        }
        let agent = start_part("agent", &folder.join(name), &ours.agent_part)?;
        let processes = vec![ours.broker, agent];
        let mut peer = Self::of_ports(name, ours.front, configuration, processes)?;
        peer.grpc = Some(ours.grpc);
        peer.wait().await
    }

    /// Waits until every target answers on its front.
    async fn wait(self) -> anyhow::Result<Self> {
        // Not iperf's: it takes whoever connects for a client, and one at a time.
        for front in ["http", "echo"].map(|name| self.front[name]) {
            reachable(front).await.with_context(|| format!("{} does not start", self.name))?;
        }
        let echo = self.front["echo"];
        for _ in 0..200 {
            let answered =
                tokio::task::spawn_blocking(move || super::clients::first_byte(echo)).await?;
            if answered.is_ok() {
                return Ok(self);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("{} does not reach its target", self.name)
    }
}

/// A broker of ours that runs, and what its agent is to be told.
pub(super) struct Ours {
    pub(super) front: Addresses,
    /// Calls the agent's own service as a user, through the broker's Dial.
    pub(super) grpc: RpcChannel,
    pub(super) broker: Child,
    pub(super) broker_part: Broker,
    pub(super) agent_part: Agent,
}

impl Ours {
    pub(super) async fn start(
        name: &str,
        folder: &Path,
        targets: &Addresses,
        tls: bool,
    ) -> anyhow::Result<Self> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let (front, mint, sandbox) = (fronts(), Mint::new()?, SandboxId::new());
        let ca = if tls { Some(Ca::new()?) } else { None };
        let issue = |name: &str| ca.as_ref().map(|ca| ca.service(&folder, name)).transpose();
        let (files, caller) = (issue("tunnel-broker")?, issue("gateway")?);
        let exposed = |(target, listen): (&String, &SocketAddr)| Exposed {
            listen: *listen,
            endpoint: sandbox.name(),
            target: target.clone(),
        };
        let broker_part = Broker {
            agents: free(),
            internal: free(),
            metrics: free(),
            tls: files.clone(),
            known: mint.known()?,
            exposures: front.iter().map(exposed).collect(),
            data_threads: 1,
            attaches_per_second: 500,
            stream_window: None,
        };
        let broker = start_part("broker", &folder, &broker_part)?;
        reachable(broker_part.agents).await?;
        let agent_part = Agent {
            broker: broker_part.agents,
            roots: files.map(|files| files.roots_file),
            endpoint: sandbox.name(),
            token: mint.token(&sandbox)?,
            targets: targets.clone(),
            grpc: Some(GRPC.to_owned()),
            data_thread: true,
        };
        let caller = caller.as_ref().map(ClientTls::load).transpose()?;
        let dialer = Dialer::new(agent::channel(broker_part.internal, caller.as_ref())?)
            .with_bearer(SecretString::from(broker_part.known.api_key.clone()));
        let grpc = dialer.channel(Endpoint::Sandbox(sandbox), Target::parse(GRPC)?);
        Ok(Self { front, grpc, broker, broker_part, agent_part })
    }
}

fn fronts() -> Addresses {
    TARGETS.iter().map(|name| ((*name).to_owned(), free())).collect()
}
