//! Against a real Docker engine: the bridge of sandboxes, and what they do not
//! reach from it.
//!
//! Runs where an engine answers on `/var/run/docker.sock` (or `DOCKER_HOST`, a
//! unix socket) that has `debian:bookworm-slim`, and says so where not; under
//! `CI=true` the engine must be there.

#![allow(clippy::expect_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use wolfpack_types::WolfId;
use wolfpack_wolf_agent::engine::{DockerEngine, Engine, EngineError, Network};
use wolfpack_wolf_agent::firewall::{self, Door};

const IMAGE: &str = "debian:bookworm-slim";

/// A network's name on a real engine; all of that name is gone at the end.
struct Host {
    engine: DockerEngine,
    labels: BTreeMap<String, String>,
    network: String,
    wolf: WolfId,
}

impl Host {
    /// `None`, and why is said, without an engine.
    async fn new() -> Option<Self> {
        let host =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "/var/run/docker.sock".to_owned());
        let engine =
            DockerEngine::new(&PathBuf::from(host.strip_prefix("unix://").unwrap_or(&host)));
        let found = engine.image(IMAGE).await;
        if !matches!(found, Ok(Some(_))) {
            let ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!ci, "no engine with {IMAGE}: {found:?}; run scripts/setup");
            eprintln!("not run: no engine with {IMAGE}: {found:?}; run scripts/setup to have it");
            return None;
        }
        let wolf = WolfId::new();
        let network = format!("wolfpack-test-{}", &wolf.as_str()[14..]);
        let labels = BTreeMap::from([("wolfpack.wolf".to_owned(), wolf.to_string())]);
        Some(Self { engine, labels, network, wolf })
    }

    fn door(&self) -> Door {
        Door::new(&self.wolf, [8443])
    }

    async fn ensure(&self) -> Result<Network, EngineError> {
        self.engine.ensure_network(&self.network, &self.labels).await
    }

    /// The rules of this network, with their counters.
    fn rules(&self) -> Vec<String> {
        let comment = format!("wolfpack:{}", self.network);
        let found = run("iptables", "-w 5 -v -n -x -L DOCKER-USER").unwrap_or_default();
        found.lines().filter(|line| line.contains(&comment)).map(str::to_owned).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = run("docker", &format!("network rm {}", self.network));
        let comment = format!("wolfpack:{}", self.network);
        let rules = run("iptables", "-w 5 -S DOCKER-USER").unwrap_or_default();
        for rule in rules.lines().filter(|rule| rule.contains(&comment)) {
            let rule = rule.replace('"', "").replacen("-A", "-D", 1);
            let _ = run("iptables", &format!("-w 5 {rule}"));
        }
    }
}

/// A machine behind this host that listens on nothing: at a link-local
/// address, as a cloud's metadata is, and at another.
struct Behind {
    name: String,
}

impl Behind {
    const METADATA: &str = "169.254.77.254";
    const OTHER: &str = "198.51.100.254";

    /// Why not, without leave to make one.
    fn new() -> Result<Self, String> {
        let name = format!("wptest{}", std::process::id());
        run("ip", &format!("netns add {name}"))?;
        // From here on what was made is taken away again.
        let behind = Self { name };
        let name = &behind.name;
        run("ip", &format!("link add {name}a type veth peer name {name}b netns {name}"))?;
        for address in ["169.254.77.1/24", "198.51.100.1/24"] {
            run("ip", &format!("address add {address} dev {name}a"))?;
        }
        for address in [Self::METADATA, Self::OTHER] {
            run("ip", &format!("-n {name} address add {address}/24 dev {name}b"))?;
        }
        run("ip", &format!("link set {name}a up"))?;
        run("ip", &format!("-n {name} link set {name}b up"))?;
        run("ip", &format!("-n {name} route add default via 198.51.100.1"))?;
        Ok(behind)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let _ = run("ip", &format!("link del {}a", self.name));
        let _ = run("ip", &format!("netns del {}", self.name));
    }
}

fn run(program: &str, arguments: &str) -> Result<String, String> {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Whether a machine that listens on nothing answers that to a container.
fn answers(network: &str, address: &str, port: u16) -> bool {
    let connect = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
    let output = Command::new("docker")
        .args(["run", "--rm", "--network", network, IMAGE, "bash", "-c", &connect])
        .output()
        .expect("docker");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let silent = output.status.code() == Some(124);
    assert!(silent || said.contains("Connection refused"), "{:?}: {said}", output.status);
    !silent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandboxes_do_not_reach_the_metadata_of_a_cloud() {
    let Some(host) = Host::new().await else { return };
    let behind = match run("iptables", "-w 5 -S DOCKER-USER").and_then(|_| Behind::new()) {
        Ok(behind) => behind,
        Err(missing) => {
            eprintln!("not run: it takes root, iptables and ip: {missing}");
            return;
        }
    };
    let network = host.ensure().await.expect("a network");
    assert!(answers(&host.network, Behind::METADATA, 80), "it is reached when nothing is done");

    // At a start, at the next, and after the bridge was made anew.
    firewall::guard(&network, &host.door()).await.expect("guarded");
    firewall::guard(&network, &host.door()).await.expect("guarded");
    assert_eq!(host.rules().len(), 6, "{:?}", host.rules());
    host.engine.remove_network(&host.network).await.expect("removed");
    let network = host.ensure().await.expect("a network");
    firewall::guard(&network, &host.door()).await.expect("guarded");
    let rules = host.rules();
    assert_eq!(rules.len(), 6, "{rules:?}");
    assert!(rules.iter().all(|rule| rule.contains(&network.bridge)), "{rules:?}");

    assert!(!answers(&host.network, Behind::METADATA, 80), "it is reached");
    let packets = |rule: &String| rule.split_whitespace().next()?.parse::<u64>().ok();
    let dropped: u64 = host.rules().iter().filter_map(packets).sum();
    assert!(dropped > 0, "{:?}", host.rules());
    assert!(answers(&host.network, Behind::METADATA, 53), "a resolver there is not reached");
    assert!(answers(&host.network, Behind::OTHER, 80), "another machine is not reached");

    host.engine.remove_network(&host.network).await.expect("removed");
    firewall::lift(&host.network, &host.door()).await.expect("lifted");
    firewall::lift(&host.network, &host.door()).await.expect("it is lifted");
    assert_eq!(host.rules(), Vec::<String>::new());
    assert_eq!(firewall::count(&host.wolf, &host.network).await.expect("counted"), 0);
    drop(behind);
}

#[tokio::test]
async fn a_network_of_somebody_else_is_not_taken() {
    let Some(host) = Host::new().await else { return };
    let name = &host.network;
    run("docker", &format!("network create {name}")).expect("a network");
    let refused = host.ensure().await;
    assert!(matches!(refused, Err(EngineError::Unfit { .. })), "{refused:?}");
    run("docker", &format!("network rm {name}")).expect("removed");

    let label = format!("wolfpack.wolf={}", host.labels["wolfpack.wolf"]);
    run("docker", &format!("network create --label {label} {name}")).expect("a network");
    let refused = host.ensure().await.expect_err("it is less apart").to_string();
    assert!(refused.contains("reach one another"), "{refused}");
    run("docker", &format!("network rm {name}")).expect("removed");

    let made = host.ensure().await.expect("made");
    assert_eq!(host.ensure().await.expect("found again"), made);
}
