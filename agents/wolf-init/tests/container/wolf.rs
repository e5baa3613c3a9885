//! One wolf container: started as the README says, and gone with its volumes
//! when the test is over.

use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::process::Command;
use wolfpack_dockerd::status::InitStatus;

use crate::image::INNER;

/// Nothing takes longer, or it hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The rights that a wolf gets: the whole list.
pub(crate) const RIGHTS: [&str; 18] = [
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--cap-add",
    "SYS_PTRACE",
    "--cap-add",
    "DAC_READ_SEARCH",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--device-cgroup-rule",
    "c *:* rmw",
    "--tmpfs",
    "/run",
    "--tmpfs",
    "/tmp:exec",
];

/// A program that only waits, in the agent's place.
pub(crate) const STAND_IN: [&str; 4] = [
    "-e",
    "WOLFPACK_INIT__AGENT__PROGRAM=/usr/bin/sleep",
    "-e",
    "WOLFPACK_INIT__AGENT__ARGUMENTS=[\"infinity\"]",
];

pub(crate) struct Wolf {
    pub(crate) name: String,
    image: &'static str,
}

impl Wolf {
    /// A name and two volumes; nothing runs yet.
    pub(crate) fn new(image: &'static str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("wolfpack-init-test-{}-{number}", std::process::id()), image }
    }

    /// One that runs, with a stand-in for the agent.
    pub(crate) async fn running(image: &'static str) -> Self {
        let wolf = Self::new(image);
        wolf.run(&STAND_IN).await;
        wolf.healthy().await;
        wolf
    }

    /// The two volumes.
    pub(crate) fn volumes(&self) -> [String; 4] {
        let name = &self.name;
        [
            "-v".to_owned(),
            format!("{name}-docker:/var/lib/docker"),
            "-v".to_owned(),
            format!("{name}-state:/var/lib/wolfpack-wolf"),
        ]
    }

    /// Starts it with its rights and its volumes.
    pub(crate) async fn run(&self, more: &[&str]) {
        let volumes = self.volumes();
        let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
        self.run_bare(&[&RIGHTS[..], &volumes, more].concat()).await;
    }

    /// Starts it with nothing but what is said.
    pub(crate) async fn run_bare(&self, arguments: &[&str]) {
        let begin = ["run", "-d", "--name", &self.name];
        docker(&[&begin[..], arguments, &[self.image]].concat()).await;
    }

    /// Removes the container; its volumes stay.
    pub(crate) async fn remove(&self) {
        docker(&["rm", "-f", &self.name]).await;
    }

    /// Runs a program in it.
    pub(crate) async fn exec(&self, arguments: &[&str]) -> String {
        docker(&[&["exec", &self.name][..], arguments].concat()).await
    }

    /// A shell in it.
    pub(crate) async fn sh(&self, script: &str) -> String {
        self.exec(&["sh", "-c", script]).await
    }

    /// Its own engine.
    pub(crate) async fn inner(&self, arguments: &[&str]) -> String {
        self.exec(&[&["docker"][..], arguments].concat()).await
    }

    /// Hands its engine the image for what runs in it.
    pub(crate) async fn load(&self) {
        let script = format!("docker save {INNER} | docker exec -i {} docker load", self.name);
        let loaded = Command::new("sh").args(["-c", &script]).output().await.unwrap();
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    }

    pub(crate) async fn status(&self) -> InitStatus {
        let text = self.exec(&["wolfpack-wolf-init", "status"]).await;
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the status is as it should be.
    pub(crate) async fn until(
        &self,
        what: &str,
        holds: impl Fn(&InitStatus) -> bool,
    ) -> InitStatus {
        let began = Instant::now();
        loop {
            let text = output(&["exec", &self.name, "wolfpack-wolf-init", "status"]).await;
            let status = serde_json::from_slice(&text.stdout).ok();
            if let Some(status) = status.filter(&holds) {
                return status;
            }
            let late = began.elapsed() > PATIENCE;
            assert!(!late, "never {what}; its log: {}", self.logs().await);
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) async fn healthy(&self) -> InitStatus {
        self.until("healthy", InitStatus::healthy).await
    }

    /// All it wrote.
    pub(crate) async fn logs(&self) -> String {
        let output = output(&["logs", &self.name]).await;
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits for its end; the exit code.
    pub(crate) async fn ended(&self) -> i32 {
        let wait = tokio::time::timeout(PATIENCE, docker(&["wait", &self.name])).await;
        wait.expect("it ends").trim().parse().unwrap()
    }
}

impl Drop for Wolf {
    fn drop(&mut self) {
        let quiet = |arguments: &[&str]| {
            let _ = std::process::Command::new("docker").args(arguments).output();
        };
        // With -v also the volumes that the image itself asks for.
        quiet(&["rm", "-f", "-v", &self.name]);
        quiet(&["volume", "rm", &format!("{}-docker", self.name)]);
        quiet(&["volume", "rm", &format!("{}-state", self.name)]);
    }
}

/// What docker writes; it must end well.
pub(crate) async fn docker(arguments: &[&str]) -> String {
    let output = output(arguments).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) async fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output()).await.expect("docker answers").unwrap()
}
