//! `wolfpack dev` as a process of the test's own, on free ports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use crate::client::Client;
use crate::process::{Process, binary, eventually, sandbox_agent};

/// What `wolfpack dev --ready-file` writes.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// The plain loopback address of the gateway, `http://…`.
    pub server: String,
    /// The TLS address of the gateway, `https://…`.
    pub server_tls: String,
    /// The first key.
    pub api_key: String,
    /// The CA's certificate, a file.
    pub ca: PathBuf,
    /// The wolf's resource name.
    pub wolf: String,
    /// The network of the wolf's container, or the bridge of its sandboxes when
    /// it uses this machine's engine.
    pub network: String,
    /// The wolf's container, when it is one.
    pub wolf_container: Option<String>,
}

/// What the fleet's wolf is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wolf {
    Engine,
    Image,
}

/// A fleet in one process.
#[derive(Debug)]
pub struct DevFleet {
    folder: PathBuf,
    process: Process,
    ready: Ready,
    _leftovers: Leftovers,
}

/// What a fleet that was killed with its failing test leaves on the engine,
/// found by its network; one that is stopped in order takes it away itself.
#[derive(Debug)]
struct Leftovers(String);

impl Drop for Leftovers {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let docker = |arguments: &[&str]| {
            let output = std::process::Command::new("docker").args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let each = |list: &[&str], remove: &[&str]| {
            for id in docker(list).unwrap_or_default().lines() {
                let _ = docker(&[remove, &[id]].concat());
            }
        };
        let network = &self.0;
        let filter = format!("network={network}");
        each(&["ps", "-aq", "--filter", &filter], &["rm", "-f", "-v"]);
        let filter = format!("name={network}-");
        each(&["volume", "ls", "-q", "--filter", &filter], &["volume", "rm"]);
        let _ = docker(&["network", "rm", network]);
    }
}

impl DevFleet {
    /// Starts a fleet whose wolf is this machine's engine, with its data in
    /// `folder`, and waits until it is ready; the same folder gives the same
    /// fleet again.
    ///
    /// # Panics
    /// When it is not ready within 60 s.
    pub async fn start(folder: &Path, extra: &[(&str, &str)]) -> Self {
        Self::start_with(folder, extra, Wolf::Engine, &[]).await
    }

    /// As [`Self::start`], with more arguments of `wolfpack dev`.
    ///
    /// # Panics
    /// When it is not ready within 60 s.
    pub async fn start_and(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, &[], Wolf::Engine, arguments).await
    }

    /// As [`Self::start`], with a wolf that is a container of the wolf image
    /// (`WOLFPACK_WOLF_IMAGE`, by default `wolfpack/wolf:latest`) and holds
    /// `wolfpack/sandbox-base`. Stopping it removes the wolf.
    ///
    /// # Panics
    /// When it is not ready within 120 s.
    pub async fn start_with_wolf_image(folder: &Path, extra: &[(&str, &str)]) -> Self {
        Self::start_with(folder, extra, Wolf::Image, &[]).await
    }

    /// As [`Self::start_with_wolf_image`], with more arguments of `wolfpack dev`.
    ///
    /// # Panics
    /// When it is not ready within 120 s.
    pub async fn start_with_wolf_image_and(
        folder: &Path,
        extra: &[(&str, &str)],
        arguments: &[&str],
    ) -> Self {
        Self::start_with(folder, extra, Wolf::Image, arguments).await
    }

    async fn start_with(
        folder: &Path,
        extra: &[(&str, &str)],
        wolf: Wolf,
        arguments: &[&str],
    ) -> Self {
        let ready_file = folder.join("ready.json");
        let _ = std::fs::remove_file(&ready_file);
        let mut command = Command::new(binary("wolfpack"));
        command
            .args(["dev", "--ephemeral", "--data"])
            .arg(folder.join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .args(arguments)
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .envs(extra.iter().copied());
        let limit = match wolf {
            Wolf::Engine => {
                command.args(["--wolf", "engine", "--sandbox-agent"]).arg(sandbox_agent());
                Duration::from_secs(60)
            }
            Wolf::Image => {
                let image = std::env::var("WOLFPACK_WOLF_IMAGE");
                let image = image.unwrap_or_else(|_| "wolfpack/wolf:latest".to_owned());
                command.args(["--wolf", "image", "--wolf-image", &image]);
                command.args(["--seed", "wolfpack/sandbox-base:latest"]);
                Duration::from_secs(120)
            }
        };
        let mut process = Process::start("dev", folder, &mut command);
        let ready: Ready = eventually("wolfpack dev is ready", limit, async || {
            if let Some(status) = process.ended() {
                panic!("wolfpack dev ended with {status}:\n{}", process.log_tail());
            }
            Ok(serde_json::from_slice(&std::fs::read(&ready_file)?)?)
        })
        .await;
        let leftovers = Leftovers(ready.network.clone());
        Self { folder: folder.to_owned(), process, ready, _leftovers: leftovers }
    }

    /// Where it is and how to get in.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The wolf's container, when it is one.
    #[must_use]
    pub fn wolf_container(&self) -> Option<String> {
        self.ready.wolf_container.clone()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A client with the first key.
    ///
    /// # Panics
    /// When the gateway does not answer.
    pub async fn client(&self) -> Client {
        Client::plain(&self.ready.server, Some(&self.ready.api_key)).await.unwrap()
    }

    /// Ends it as Ctrl-C would; its sandboxes live on, unless the wolf is a
    /// container.
    ///
    /// # Panics
    /// When it takes longer than 60 s or does not end with success.
    pub async fn stop_keeping_sandboxes(&mut self) {
        let status = self.process.stop(Duration::from_secs(60)).await;
        assert!(status.success(), "wolfpack dev ended with {status}:\n{}", self.process.log_tail());
    }

    /// Ends it as Ctrl-C would, and checks that nothing of it is left on the
    /// engine.
    ///
    /// # Panics
    /// As `stop_keeping_sandboxes`, or when a container or the network is left.
    pub async fn stop(mut self) {
        self.stop_keeping_sandboxes().await;
        let filter = format!("network={}", self.ready.network);
        let left =
            Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().await.unwrap();
        assert!(
            left.stdout.is_empty(),
            "containers are left: {}",
            String::from_utf8_lossy(&left.stdout)
        );
        let network = ["network", "inspect", &self.ready.network];
        let found = Command::new("docker").args(network).output().await.unwrap();
        assert!(!found.status.success(), "the network {} is left", self.ready.network);
        let filter = format!("name={}-", self.ready.network);
        let volumes = ["volume", "ls", "-q", "--filter", &filter];
        let left = Command::new("docker").args(volumes).output().await.unwrap();
        assert!(
            left.stdout.is_empty(),
            "volumes are left: {}",
            String::from_utf8_lossy(&left.stdout)
        );
    }
}
