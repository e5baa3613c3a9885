//! Network namespaces that go when they are dropped.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::inside::{self, Seen, Task};

/// What does not happen within this does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Several of one test, named by it.
pub(crate) struct Namespaces {
    prefix: String,
    names: Vec<String>,
}

impl Namespaces {
    /// Makes them. Without root or iproute2 the test says so, and fails where
    /// everything must be run.
    pub(crate) fn make(names: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut made =
            Self { prefix: format!("wpt{}-{count}-", std::process::id()), names: Vec::new() };
        for name in names {
            let full = made.full(name);
            if let Err(why) = run("ip", &["netns", "add", &full]) {
                let words = format!(
                    "network namespaces cannot be made ({why}): run as root, with iproute2 and CAP_SYS_ADMIN"
                );
                assert!(std::env::var_os("CI").is_none(), "{words}");
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    format!("NOT RUN: {words}\n").as_bytes(),
                );
                return None;
            }
            made.names.push(full);
            made.ip(name, "link set lo up");
        }
        Some(made)
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// `ip` inside one.
    pub(crate) fn ip(&self, space: &str, arguments: &str) {
        let space = self.full(space);
        let mut all = vec!["-n", &space];
        all.extend(arguments.split_whitespace());
        run("ip", &all).unwrap_or_else(|why| panic!("ip -n {space} {arguments}: {why}"));
    }

    /// A cable between two, up at both ends.
    pub(crate) fn link(&self, a: &str, a_end: &str, b: &str, b_end: &str, mtu: Option<u32>) {
        let other = self.full(b);
        self.ip(a, &format!("link add {a_end} type veth peer name {b_end} netns {other}"));
        for (space, end) in [(a, a_end), (b, b_end)] {
            if let Some(mtu) = mtu {
                self.ip(space, &format!("link set {end} mtu {mtu}"));
            }
            self.ip(space, &format!("link set {end} up"));
        }
    }

    pub(crate) fn address(&self, space: &str, device: &str, address: &str) {
        self.ip(space, &format!("addr add {address} dev {device}"));
    }

    /// Lets packets through.
    pub(crate) fn forward(&self, space: &str) {
        let full = self.full(space);
        let script = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run("ip", &["netns", "exec", &full, "sh", "-c", script]).unwrap();
    }

    /// What a task sees inside one.
    pub(crate) fn inside(&self, space: &str, task: &Task) -> Seen {
        let output = self.command(space, task).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        inside::answer(&said).unwrap_or_else(|| {
            panic!("{task:?} in {space}: {said}\n{}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// A task that goes on until it is dropped; it is ready when this returns.
    pub(crate) fn background(&self, space: &str, task: &Task) -> Running {
        let ready = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::remove_file(&ready).unwrap();
        let mut command = self.command(space, task);
        command.env(inside::READY, &ready).stdout(Stdio::null());
        let mut running = Running(command.spawn().unwrap());
        let begun = Instant::now();
        while !ready.exists() {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{task:?} in {space} ended: {ended:?}");
            assert!(begun.elapsed() < PATIENCE, "{task:?} in {space} is not ready");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        running
    }

    /// This very test, inside.
    fn command(&self, space: &str, task: &Task) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.full(space)]);
        command.arg(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "--nocapture",
            "a_plan_keeps_clear_of_real_routes_and_packets_go_both_ways",
        ]);
        command.env(inside::TASK, serde_json::to_string(task).unwrap()).stdin(Stdio::null());
        command
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(why) = run("ip", &["netns", "del", name]) {
                let words = format!("the namespace {name} stays: {why}\n");
                let _ = std::io::Write::write_all(&mut std::io::stderr(), words.as_bytes());
            }
        }
    }
}

/// A task that goes on until this is dropped.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
