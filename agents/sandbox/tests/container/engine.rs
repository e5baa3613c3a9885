//! One container with the agent in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;
use wolfpack_proto::agent::v1::GetStatusRequest;

use super::harness::{Caller, PATIENCE};

pub(crate) const BASE: &str = "wolfpack/sandbox-base:latest";
pub(crate) const DESKTOP: &str = "wolfpack/sandbox-desktop:latest";

pub(crate) fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().expect("the docker command")
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether the engine and the images are there. Where they must be (CI) their
/// absence is a failure, elsewhere it is said.
pub(crate) fn engine() -> bool {
    let works = |args: &[&str]| {
        Command::new("docker").args(args).output().is_ok_and(|output| output.status.success())
    };
    if works(&["image", "inspect", BASE, DESKTOP]) {
        return true;
    }
    let words = "no docker engine with the sandbox images: run scripts/setup engine images";
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{words}");
    eprintln!("NOT RUN: {words}");
    false
}

/// The static binary: the one that `WOLFPACK_SANDBOX_AGENT` names, or a fresh
/// one.
fn agent() -> &'static Path {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    AGENT.get_or_init(|| {
        if let Some(path) = std::env::var_os("WOLFPACK_SANDBOX_AGENT") {
            return path.into();
        }
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/build-sandbox-agent");
        let built = Command::new(script).env_remove("CARGO_TARGET_DIR").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        text(&built).lines().last().unwrap().into()
    })
}

/// What a container is made of.
pub(crate) struct Plan {
    pub(crate) image: &'static str,
    pub(crate) argv: Vec<&'static str>,
    pub(crate) user: &'static str,
    pub(crate) cwd: &'static str,
    pub(crate) desktop: bool,
}

impl Plan {
    pub(crate) fn base(argv: &[&'static str]) -> Self {
        Self { image: BASE, argv: argv.to_vec(), user: "wolf", cwd: "/home/wolf", desktop: false }
    }

    pub(crate) fn desktop() -> Self {
        let argv = vec!["sleep", "infinity"];
        Self { image: DESKTOP, argv, user: "wolf", cwd: "/home/wolf", desktop: true }
    }
}

/// A running container; it goes with this value.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) caller: Caller,
}

impl std::ops::Deref for Container {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.id]);
    }
}

impl Container {
    /// Starts it as a wolf's agent does: all capabilities dropped but seven, no
    /// new privileges, the engine's own seccomp profile, limits, one mount.
    pub(crate) fn start(plan: &Plan) -> Self {
        let dir = tempfile::Builder::new().prefix("wolfpack-boot-").tempdir().unwrap();
        let image = docker(&["image", "inspect", "--format", "{{json .Config.Env}}", plan.image]);
        let env: Vec<String> = serde_json::from_str(&text(&image)).unwrap();
        let env: serde_json::Map<String, serde_json::Value> = env
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let config = json!({
            "sandbox": "sandbox-1", "project": "project-1", "execution": "boot-1",
            "argv": plan.argv, "user": plan.user, "env": env, "cwd": plan.cwd, "desktop": plan.desktop,
            // Nobody is there: the sandbox lives by its socket alone.
            "broker": "https://127.0.0.1:9", "gateway": "https://127.0.0.1:9", "socket_uid": 0,
        });
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let mount = format!("{}:/run/wolfpack", dir.path().display());
        let binary = format!("{}:/run/wolfpack/bin/wolfpack-sandbox-agent:ro", agent().display());
        let mut args = vec!["run", "--detach", "--user", "0:0", "--cap-drop", "ALL"];
        for capability in ["SETUID", "SETGID", "SETPCAP", "CHOWN", "KILL", "DAC_OVERRIDE", "FOWNER"]
        {
            args.extend(["--cap-add", capability]);
        }
        args.extend([
            "--security-opt",
            "no-new-privileges",
            "--memory",
            "1g",
            "--memory-swap",
            "1g",
        ]);
        args.extend([
            "--cpus",
            "1",
            "--pids-limit",
            "256",
            "--volume",
            &mount,
            "--volume",
            &binary,
        ]);
        args.extend(["--entrypoint", "/run/wolfpack/bin/wolfpack-sandbox-agent", plan.image]);
        let started = docker(&args);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let caller = Caller::at(dir.path().join("agent.sock"));
        Self { id: text(&started), dir, caller }
    }

    /// Waits until the agent says that the sandbox is ready; how long that took.
    pub(crate) async fn ready(&self) -> Duration {
        let began = Instant::now();
        let mut last = String::new();
        while began.elapsed() < PATIENCE {
            match self.client.clone().get_status(GetStatusRequest {}).await {
                Ok(status) if status.get_ref().ready => {
                    assert_eq!(status.get_ref().execution_id, "boot-1");
                    return began.elapsed();
                }
                Ok(status) => last = status.into_inner().message,
                Err(status) => last = status.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not ready: {last}\n{}\n{}", self.stderr(), self.agent_log());
    }

    /// Waits until the agent answers, whether or not the sandbox gets ready.
    pub(crate) async fn answers(&self) {
        let began = Instant::now();
        while let Err(status) = self.client.clone().get_status(GetStatusRequest {}).await {
            assert!(began.elapsed() < PATIENCE, "{status}\n{}", self.stderr());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for the container's end; its exit code.
    pub(crate) fn exit_code(&self) -> i32 {
        text(&docker(&["wait", &self.id])).parse().unwrap()
    }

    pub(crate) fn running(&self) -> bool {
        text(&docker(&["inspect", "--format", "{{.State.Running}}", &self.id])) == "true"
    }

    /// What the sandbox's programs wrote to stdout.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&docker(&["logs", &self.id]).stdout).into_owned()
    }

    /// What they, and on fatal errors the agent, wrote to stderr.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&docker(&["logs", &self.id]).stderr).into_owned()
    }

    pub(crate) fn agent_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    /// Processes in it, by the engine: `state command`.
    pub(crate) fn processes(&self) -> Vec<String> {
        let listed = text(&docker(&["top", &self.id, "-o", "pid,stat,comm"]));
        let process = |line: &str| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
        listed.lines().skip(1).map(process).collect()
    }
}
