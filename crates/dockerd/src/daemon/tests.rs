//! dockerd played by a shell script: what it is given, and each way it fails.
//! The engine itself runs in the tests of the wolf image.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use wolfpack_runtime::Context;

use super::*;
use crate::plan::NetworkPlan;

struct Place {
    dir: tempfile::TempDir,
    tasks: Supervisor,
}

impl Place {
    fn new(script: &str) -> (Self, EngineOptions) {
        let place =
            Self { dir: tempfile::tempdir().unwrap(), tasks: Context::quiet("test").supervisor };
        let program = place.path("dockerd");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let plan: NetworkPlan = serde_json::from_value(json!({
            "bridge": "172.20.0.1/24", "pools": [], "mtu": 1500, "depth": 1, "reasons": [],
        }))
        .unwrap();
        let options = EngineOptions::new(&program, &place.path("data"), &place.path("run"), plan);
        (place, options)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn refused(&self, options: EngineOptions, within: Duration) -> DaemonError {
        Daemon::start(options, within, &self.tasks).await.expect_err("it cannot be ready")
    }
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_it_said_is_told_when_it_ends_at_once() {
    let (place, options) =
        Place::new("echo \"args $*\"; echo 'failed to start daemon: no luck' >&2; exit 3");
    let log = options.log.file.clone();
    let config = options.config_file.clone();
    let error = place.refused(options, LONG).await;
    assert!(
        matches!(&error, DaemonError::Ended { status, .. } if status == "exit code 3"),
        "{error}"
    );
    assert!(error.to_string().contains("no luck"), "{error}");
    assert!(error.last_lines()[0].starts_with("args --config-file "));
    assert!(std::fs::read_to_string(log).unwrap().contains("no luck"), "the log is kept");
    let config: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    assert_eq!(config["bip"], "172.20.0.1/24");
}

#[tokio::test]
async fn one_that_never_answers_is_ended_even_when_it_does_not_want_to() {
    let (place, options) =
        Place::new("echo $$ >\"$(dirname $0)/pid\"; trap '' TERM; while :; do sleep 0.1; done");
    let pid = place.path("pid");
    let error = place.refused(options, Duration::from_millis(600)).await;
    assert!(matches!(error, DaemonError::NotReady { .. }), "{error}");
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(!PathBuf::from(format!("/proc/{}", pid.trim())).exists(), "it still runs");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let (place, mut options) = Place::new("");
    options.program = place.path("none");
    let error = place.refused(options, LONG).await;
    assert!(matches!(error, DaemonError::Program { .. }), "{error}");
    assert!(error.to_string().contains("none"), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let (place, mut options) = Place::new("");
    options.data_root = PathBuf::from("/proc/none/docker");
    let error = place.refused(options, LONG).await;
    assert!(matches!(error, DaemonError::Place { .. }), "{error}");
    assert!(error.to_string().contains("/proc/none/docker"), "{error}");
}

#[tokio::test]
async fn pid_files_of_others_go_and_a_running_one_stays() {
    let (place, options) = Place::new("exit 1");
    std::fs::create_dir_all(options.exec_root.join("containerd")).unwrap();
    let containerd = leftovers::containerd_pid_file(&options);
    // This test runs, and is neither.
    for file in [&options.pid_file, &containerd] {
        std::fs::write(file, std::process::id().to_string()).unwrap();
    }
    place.refused(options.clone(), LONG).await;
    assert!(!options.pid_file.exists() && !containerd.exists());

    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let mine = EngineOptions { program: place.path(name.trim()), ..options };
    std::fs::write(&mine.pid_file, std::process::id().to_string()).unwrap();
    let error = place.refused(mine.clone(), LONG).await;
    assert!(matches!(error, DaemonError::Running(_)), "{error}");
    assert!(mine.pid_file.exists());
}
