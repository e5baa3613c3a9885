//! The machine's Docker engine, and the static binary, for suites that need
//! more of it than one hardened container.

#![allow(dead_code, reason = "each suite uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const IMAGE: &str = "wolfpack/sandbox-docker:latest";

pub(crate) fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().expect("the docker command")
}

/// As [`docker`], and it must succeed; its stdout.
pub(crate) fn docker_ok(args: &[&str]) -> String {
    let output = docker(args);
    assert!(
        output.status.success(),
        "docker {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text(&output)
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether the engine and the image are there. Where they must be (CI) their
/// absence is a failure, elsewhere it is said.
pub(crate) fn engine() -> bool {
    let there = Command::new("docker").args(["image", "inspect", IMAGE]).output();
    if there.is_ok_and(|output| output.status.success()) {
        return true;
    }
    let words = "no docker engine with wolfpack/sandbox-docker: run scripts/setup engine images";
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{words}");
    eprintln!("NOT RUN: {words}");
    false
}

/// The static binary: the one that `WOLFPACK_SANDBOX_AGENT` names, or a fresh
/// one.
pub(crate) fn agent() -> &'static Path {
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

/// A name that nothing else on this machine has.
pub(crate) fn name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("wolfpack-test-{what}-{}-{number}", std::process::id())
}

/// A container that goes with this value, with its anonymous volumes.
pub(crate) struct Removed(pub(crate) String);

impl Drop for Removed {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.0]);
    }
}

/// A volume that goes with this value, after the container that uses it.
pub(crate) struct Volume(pub(crate) String);

impl Drop for Volume {
    fn drop(&mut self) {
        docker(&["volume", "rm", "--force", &self.0]);
    }
}

/// A network that goes with this value, after the containers in it.
pub(crate) struct Network(pub(crate) String);

impl Drop for Network {
    fn drop(&mut self) {
        docker(&["network", "rm", &self.0]);
    }
}
