//! The ways from a client to the targets that are compared: none, rathole, ssh,
//! and ours. Each is started anew for the whole run, and stopped at its end.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use wolfpack_types::SandboxId;

use super::identity::Mint;
use super::parts;

/// The names of the targets.
pub(super) const TARGETS: [&str; 3] = ["http", "echo", "iperf"];

/// Addresses by target name.
pub(super) type Addresses = BTreeMap<String, SocketAddr>;

/// A way to the targets.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// Where each target is reached.
    pub(super) front: Addresses,
    /// What it was told, for the report.
    pub(super) configuration: Value,
    pub(super) processes: Vec<Child>,
}

impl Peer {
    /// The way without a tunnel.
    pub(super) fn direct(targets: &Addresses) -> Self {
        Self {
            name: "direct",
            front: targets.clone(),
            configuration: Value::Null,
            processes: Vec::new(),
        }
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
        let peer = Self { name: "rathole", front, configuration, processes };
        peer.wait().await
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
        Self { name: "ssh", front, configuration, processes }.wait().await
    }

    /// A broker and an agent of ours, with a port of the broker for each target.
    pub(super) async fn ours(
        name: &'static str,
        folder: &Path,
        targets: &Addresses,
        tls: bool,
    ) -> anyhow::Result<Self> {
        let ours = Ours::start(name, folder, targets, tls).await?;
        let configuration = serde_json::to_value(&ours.broker_part)?;
        let agent = start_part("agent", &folder.join(name), &ours.agent_part)?;
        let peer =
            Self { name, front: ours.front, configuration, processes: vec![ours.broker, agent] };
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
    pub(super) broker: Child,
    pub(super) broker_part: parts::Broker,
    pub(super) agent_part: parts::Agent,
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
        let files = if tls { Some(super::certificate(&folder)?) } else { None };
        let broker_part = parts::Broker {
            agents: free(),
            internal: free(),
            tls: files.clone(),
            token_key: mint.public().to_owned(),
            exposures: front.clone(),
            endpoint: sandbox.name(),
            data_threads: 1,
            attaches_per_second: 500,
        };
        let broker = start_part("broker", &folder, &broker_part)?;
        reachable(broker_part.agents).await?;
        let agent_part = parts::Agent {
            broker: broker_part.agents,
            roots: files.map(|files| files.roots_file),
            endpoint: sandbox.name(),
            token: mint.token(&sandbox)?,
            targets: targets.clone(),
        };
        Ok(Self { front, broker, broker_part, agent_part })
    }
}

/// Starts this program as a part, with its configuration in a file.
pub(super) fn start_part(
    part: &str,
    folder: &Path,
    configuration: &impl serde::Serialize,
) -> anyhow::Result<Child> {
    let file: PathBuf = folder.join(format!("{part}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(configuration)?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("part").arg(part).arg(file).kill_on_drop(true);
    Ok(command.spawn()?)
}

pub(super) fn quiet(command: &mut Command) -> anyhow::Result<Child> {
    let program = command.as_std().get_program().to_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// An address of this machine that nobody listens on.
pub(super) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn fronts() -> Addresses {
    TARGETS.iter().map(|name| ((*name).to_owned(), free())).collect()
}

/// Waits until something listens there.
pub(super) async fn reachable(address: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("nothing listens on {address} after 10 s")
}
