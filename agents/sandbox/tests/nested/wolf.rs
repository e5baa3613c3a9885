//! A container that holds an engine with remapped users, and sandboxes on it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::machine::{IMAGE, Removed, Volume, agent, docker, docker_ok, name, text};

/// What takes longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);
/// As the wolf's image prepares its place, without its program: this suite is
/// about what is inside.
const PREPARE: &str = r#"
if [ -z "$INSIDE" ]; then INSIDE=1 exec unshare --cgroup --mount --propagation slave sh -c "$0"; fi
for mount in $(awk '{print $5}' /proc/self/mountinfo | grep -E '^/(proc|sys)/' | grep -v '^/sys/fs/cgroup' | sort -r); do
    umount "$mount" || true
done
mount -o remount,bind,rw /sys
for group in /sys/fs/cgroup/*; do
    [ -L "$group" ] || ! mountpoint -q "$group" || mount -o remount,bind,rw "$group" || true
done
useradd --system dockremap 2>/dev/null || true
echo dockremap:100000:65536 | tee /etc/subuid > /etc/subgid
exec dockerd --userns-remap=default --storage-driver overlay2 \
    --bip 10.231.0.1/24 --default-address-pool base=10.231.64.0/18,size=26
"#;

/// The wolf; all of it goes with this value.
pub(crate) struct Wolf {
    container: Removed,
    _data: Volume,
    boots: tempfile::TempDir,
}

impl Wolf {
    pub(crate) fn start() -> Self {
        let data = Volume(name("wolf-data"));
        let container = Removed(name("wolf"));
        let volume = format!("{}:/var/lib/docker", data.0);
        let binary = format!("{}:/agent:ro", agent().display());
        let boots = tempfile::Builder::new().prefix("wolfpack-boots-").tempdir().unwrap();
        let folder = format!("{}:/boots", boots.path().display());
        let mut args = vec!["run", "--detach", "--name", &container.0, "--user", "0:0"];
        for capability in ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"] {
            args.extend(["--cap-add", capability]);
        }
        args.extend([
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "apparmor=unconfined",
        ]);
        args.extend([
            "--device-cgroup-rule",
            "c *:* rmw",
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/tmp:exec",
        ]);
        args.extend(["--volume", &volume, "--volume", &binary, "--volume", &folder]);
        args.extend(["--entrypoint", "sh", IMAGE, "-c", PREPARE]);
        // sh -c gives its script as $0 of the inner one.
        args.push(PREPARE);
        docker_ok(&args);
        let wolf = Self { container, _data: data, boots };
        until("the wolf's engine answers", || wolf.run(&["docker", "info"]).status.success());
        wolf.copy_image();
        wolf
    }

    /// Runs a program in the wolf.
    pub(crate) fn run(&self, argv: &[&str]) -> Output {
        docker(&[&["exec", self.container.0.as_str()], argv].concat())
    }

    fn ok(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
        text(&output)
    }

    /// Pipes the image from this machine's engine into the wolf's.
    fn copy_image(&self) {
        let mut save =
            Command::new("docker").args(["save", IMAGE]).stdout(Stdio::piped()).spawn().unwrap();
        let loaded = Command::new("docker")
            .args(["exec", "--interactive", &self.container.0, "docker", "load", "--quiet"])
            .stdin(save.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(save.wait().unwrap().success() && loaded.status.success());
    }

    /// Starts a sandbox as a wolf's agent does with NESTED; `disk_bytes` bounds
    /// its engine's data, which is on no volume unless `volume`.
    pub(crate) fn sandbox(&self, name: &str, disk_bytes: Option<u64>, volume: bool) -> Sandbox<'_> {
        let config = json!({
            "sandbox": "sandbox-1", "project": "project-1", "execution": "boot-1",
            "argv": ["sleep", "infinity"], "user": "wolf", "env": {}, "cwd": "/home/wolf",
            "desktop": false, "broker": "https://wolfpack.internal:8444",
            "gateway": "https://wolfpack.internal:8443", "socket_uid": 0, "docker": "nested",
            "nested": { "depth": 2, "disk_bytes": disk_bytes, "avoid": ["172.21.0.0/16"] },
        });
        let folder = self.boots.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        let prepare = format!(
            "chmod 711 /boots; chown -R 100000:100000 /boots/{name} && docker network create net-{name}"
        );
        self.ok(&["sh", "-ec", &prepare]);
        let (network, data) = (format!("net-{name}"), format!("data-{name}:/var/lib/docker"));
        let boot = format!("/boots/{name}:/run/wolfpack");
        let binary = "/run/wolfpack/bin/wolfpack-sandbox-agent";
        let mut args = vec!["docker", "run", "--detach", "--name", name, "--user", "0:0"];
        args.extend(["--network", &network, "--add-host", "wolfpack.internal:10.231.64.1"]);
        args.extend(["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"]);
        for option in ["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"] {
            args.extend(["--security-opt", option]);
        }
        args.extend(["--memory", "1g", "--pids-limit", "512", "--volume", &boot]);
        args.extend(["--volume", "/agent:/run/wolfpack/bin/wolfpack-sandbox-agent:ro"]);
        if volume {
            args.extend(["--volume", &data]);
        }
        args.extend(["--entrypoint", binary, IMAGE]);
        self.ok(&args);
        let sandbox = Sandbox { wolf: self, name: name.to_owned(), boot: folder };
        until("the sandbox listens", || {
            sandbox.sh("root", "test -S /var/run/docker.sock").status.success()
        });
        sandbox
    }
}

/// A sandbox on the wolf; it goes with the wolf.
pub(crate) struct Sandbox<'w> {
    wolf: &'w Wolf,
    name: String,
    boot: PathBuf,
}

impl Sandbox<'_> {
    /// Runs a script as a user of the sandbox.
    pub(crate) fn sh(&self, user: &str, script: &str) -> Output {
        let flags = ["docker", "exec", "--user", user, &self.name, "sh", "-c", script];
        self.wolf.run(&flags)
    }

    /// As the image's user, and it must succeed; its stdout.
    pub(crate) fn ok(&self, script: &str) -> String {
        let output = self.sh("wolf", script);
        assert!(
            output.status.success(),
            "{script}: {}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        text(&output)
    }

    /// As the image's user, and it must fail; its stderr.
    pub(crate) fn refused(&self, script: &str) -> String {
        let output = self.sh("wolf", script);
        assert!(!output.status.success(), "{script}: {}", text(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// How many processes have this name.
    pub(crate) fn count(&self, program: &str) -> usize {
        text(&self.sh("root", &format!("pgrep --count --exact {program}"))).parse().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.boot.join("agent.log")).unwrap_or_default()
    }

    /// The agent's own socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.boot.join("agent.sock")
    }

    /// Makes the image `tiny` on the sandbox's engine, from the sandbox's own
    /// programs.
    pub(crate) fn make_tiny(&self) {
        self.ok("rm -rf /tmp/tiny && mkdir -p /tmp/tiny/tmp /tmp/tiny/etc && cd /tmp/tiny\n\
            for program in sh cat sleep getent dd sha256sum; do\n\
                file=$(command -v $program) && cp --parents -L $file .\n\
                for library in $(ldd $file | grep -o '/[^ )]*'); do cp --parents -L $library .; done\n\
            done\n\
            mkdir -p bin && cp -n usr/bin/* bin/; tar -c . | docker import - tiny");
    }

    /// How long a stop takes, of an engine that waits for longer than anybody.
    pub(crate) fn stop(&self) -> Duration {
        let began = Instant::now();
        self.wolf.ok(&["docker", "stop", "--time", "600", &self.name]);
        began.elapsed()
    }
}

pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < limit, "never: {what}");
        // A test of real processes has nothing to wait on but time.
        let (_keep, silent) = std::sync::mpsc::channel::<()>();
        let _ = silent.recv_timeout(PAUSE);
    }
}
