//! Five service processes and a wolf agent process, with mTLS between them, on
//! PostgreSQL or SQLite: as an operator would run them on one machine.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tonic::transport::Channel;
use wolfpack_proto::registry::v1 as registry;

use crate::client::{Client, timed};
use crate::fault_relay::FaultRelay;
use crate::process::{Process, binary, eventually, sandbox_agent};
use crate::test_database;

/// The services, in the order they are started.
pub const SERVICES: [&str; 5] =
    ["registry", "tunnel-broker", "scheduler", "sandbox-manager", "gateway"];

/// What a fleet is to be like.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The URL of a PostgreSQL server; absent for SQLite files.
    pub postgres: Option<String>,
    /// Where every process sends spans.
    pub otlp_endpoint: Option<String>,
    /// Where the agents in sandboxes send spans.
    pub sandbox_otlp_endpoint: Option<String>,
}

/// A fleet of processes; dropping it kills them.
#[derive(Debug)]
pub struct ProcessFleet {
    folder: PathBuf,
    options: Options,
    ports: BTreeMap<&'static str, SocketAddr>,
    processes: BTreeMap<&'static str, Process>,
    /// What stands between the sandboxes' own tunnels and the broker.
    pub sandbox_path: FaultRelay,
    key: String,
    schema: String,
}

impl ProcessFleet {
    /// Starts a fleet with its files in `folder`, and waits until its wolf is
    /// online.
    ///
    /// # Panics
    /// When a process ends or the wolf is not online within 60 s.
    pub async fn start(folder: &Path, options: Options) -> Self {
        let names = [
            "registry",
            "scheduler",
            "tunnel-broker",
            "sandbox-manager",
            "gateway",
            "http",
            "agents",
            "metrics",
        ];
        let ports: BTreeMap<_, _> = names.into_iter().zip(free_ports(names.len())).collect();
        let sandbox_path = FaultRelay::start(ports["agents"]).await;
        let schema = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let mut fleet = Self {
            folder: folder.to_owned(),
            options,
            ports,
            processes: BTreeMap::new(),
            sandbox_path,
            key: String::new(),
            schema,
        };
        fleet.issue_certificates().await;
        for service in SERVICES {
            fleet.start_service(service);
        }
        let key_file = folder.join("first.key");
        fleet.key = fleet
            .until("the first key is written", async || {
                Ok(std::fs::read_to_string(&key_file)?.trim().to_owned())
            })
            .await;
        let client = fleet.client().await;
        let token = fleet
            .until("a join token", async || {
                let request = registry::CreateJoinTokenRequest::default();
                Ok(client.identity().create_join_token(timed(request, 5)).await?.into_inner().token)
            })
            .await;
        std::fs::write(folder.join("join.token"), token).unwrap();
        fleet.start_wolf();
        fleet.wait_online().await;
        fleet
    }

    /// Asks again until the answer is there; fails at once when a process has ended.
    async fn until<T>(&mut self, what: &str, mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
        let processes = &mut self.processes;
        eventually(what, Duration::from_secs(60), async || {
            for (name, process) in processes.iter_mut() {
                if let Some(status) = process.ended() {
                    panic!("{what}: {name} ended with {status}:\n{}", process.log_tail());
                }
            }
            ask().await
        })
        .await
    }

    /// Waits until the one wolf is online.
    ///
    /// # Panics
    /// When it is not within 60 s.
    pub async fn wait_online(&mut self) {
        let client = self.client().await;
        self.until("the wolf is online", async || {
            let list = registry::ListWolvesRequest::default();
            let wolves = client.wolves().list_wolves(timed(list, 5)).await?.into_inner().wolves;
            let online = wolves.iter().any(|wolf| wolf.state() == registry::WolfState::Online);
            anyhow::ensure!(online, "{wolves:?}");
            Ok(())
        })
        .await;
    }

    /// A client with the first key, over the loopback port without TLS.
    ///
    /// # Panics
    /// When the address is none.
    #[allow(clippy::unused_async, reason = "as the other fleets")]
    pub async fn client(&self) -> Client {
        let channel =
            Channel::from_shared(format!("http://{}", self.ports["http"])).unwrap().connect_lazy();
        Client::new(channel, Some(&self.key))
    }

    /// What the sandbox-manager tells Prometheus.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn manager_metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.ports["metrics"]);
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--max-time", "10", &url])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{url} does not answer");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A process by the name of its service, or `wolf`.
    ///
    /// # Panics
    /// When it was not started.
    pub fn process(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(name).unwrap()
    }

    /// Starts a service again after it was killed.
    pub fn start_service(&mut self, name: &'static str) {
        let file = self.folder.join(format!("{name}.toml"));
        std::fs::write(&file, to_toml(&self.service_config(name))).unwrap();
        let mut command = Command::new(binary(&format!("wolfpack-{name}")));
        command.arg("--config").arg(file);
        self.processes.insert(name, Process::start(name, &self.folder, &mut command));
    }

    /// Starts the wolf agent, again after it was killed.
    pub fn start_wolf(&mut self) {
        let file = self.folder.join("wolf.toml");
        let config = self.wolf_config();
        std::fs::write(&file, to_toml(&config)).unwrap();
        let mut command = Command::new(binary("wolfpack-wolf-agent"));
        command.arg("--config").arg(file);
        self.processes.insert("wolf", Process::start("wolf", &self.folder, &mut command));
    }

    async fn issue_certificates(&self) {
        for service in SERVICES {
            let mut issue = Command::new(binary("wolfpack-registry"));
            issue.arg("issue").arg("--ca").arg(self.folder.join("ca")).args(["--service", service]);
            issue.args(["--dns", "localhost", "--dns", "wolfpack.internal", "--ip", "127.0.0.1"]);
            issue.arg("--out").arg(self.folder.join("tls"));
            let output = issue.output().await.unwrap();
            assert!(
                output.status.success(),
                "issue {service}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    fn tls(&self, service: &str) -> Value {
        let folder = self.folder.join("tls");
        json!({
            "certificate_file": folder.join(format!("{service}.crt")),
            "key_file": folder.join(format!("{service}.key")),
            "roots_file": folder.join("ca.crt"),
        })
    }

    fn peer(&self, service: &str) -> Value {
        json!({ "address": format!("https://{}", self.ports[service]) })
    }

    fn telemetry(&self) -> Value {
        let mut telemetry = json!({ "filter": "info" });
        if let Some(endpoint) = &self.options.otlp_endpoint {
            telemetry["otlp_endpoint"] = json!(endpoint);
        }
        telemetry
    }

    fn database(&self, service: &str) -> Value {
        match &self.options.postgres {
            Some(server) => {
                let schema = format!("{}_{}", self.schema, service.replace('-', "_"));
                json!({ "url": server, "schema": schema, "max_connections": 8 })
            }
            None => json!({ "url": test_database::sqlite(&self.folder, service) }),
        }
    }

    fn service_config(&self, service: &str) -> Value {
        let mut config = json!({
            "tls": self.tls(service),
            "telemetry": self.telemetry(),
        });
        match service {
            "registry" => {
                config["listen"] = json!(self.ports[service]);
                config["database"] = self.database(service);
                config["data_dir"] = json!(self.folder.join("registry"));
                config["ca_dir"] = json!(self.folder.join("ca"));
                config["agent_endpoint"] = json!(self.ports["agents"]);
                config["tunnel_broker"] = self.peer("tunnel-broker");
                config["bootstrap_key_file"] = json!(self.folder.join("first.key"));
            }
            "scheduler" => {
                config["listen"] = json!(self.ports[service]);
                config["database"] = self.database(service);
                config["registry"] = self.peer("registry");
            }
            "sandbox-manager" => {
                config["listen"] = json!(self.ports[service]);
                config["database"] = self.database(service);
                config["metrics"] = json!(self.ports["metrics"]);
                for peer in ["registry", "scheduler", "tunnel-broker"] {
                    config[peer.replace('-', "_")] = self.peer(peer);
                }
            }
            "tunnel-broker" => {
                config["listen"] = json!(self.ports[service]);
                config["agents"] = json!(self.ports["agents"]);
                // The manager's channels to agents are connections too; they end when it does.
                config["drain"] = json!("10s");
                config["registry"] = self.peer("registry");
            }
            "gateway" => {
                config["listen"] = json!(self.ports[service]);
                config["plaintext"] = json!(self.ports["http"]);
                for peer in ["registry", "scheduler", "tunnel-broker", "sandbox-manager"] {
                    config[peer.replace('-', "_")] = self.peer(peer);
                }
            }
            other => unreachable!("{other} is no service"),
        }
        config
    }

    fn wolf_config(&self) -> Value {
        let mut config = json!({
            "server": format!("https://{}", self.ports["gateway"]),
            "join_token_file": self.folder.join("join.token"),
            "data_dir": self.folder.join("wolf"),
            "sandbox_agent_binary": sandbox_agent(),
            "display_name": "test",
            "network": format!("wolfpack-{}", self.schema),
            "relay": {
                "gateway_port": 0,
                "broker_port": 0,
                "broker": self.sandbox_path.address(),
            },
            "telemetry": self.telemetry(),
        });
        if let Some(endpoint) = &self.options.sandbox_otlp_endpoint {
            config["sandbox_otlp_endpoint"] = json!(endpoint);
        }
        config
    }

    /// Stops every process in order, the wolf first, and checks that nothing of
    /// it is left on the engine.
    ///
    /// # Panics
    /// When one does not drain within 60 s or does not end with success, or the
    /// wolf's network is left (as it is while a container is on it).
    pub async fn stop(mut self) {
        for name in ["wolf", "gateway", "sandbox-manager", "scheduler", "tunnel-broker", "registry"]
        {
            let Some(mut process) = self.processes.remove(name) else { continue };
            let status = process.stop(Duration::from_secs(60)).await;
            assert!(status.success(), "{name} ended with {status}:\n{}", process.log_tail());
        }
        let network = format!("wolfpack-{}", self.schema);
        let found =
            Command::new("docker").args(["network", "inspect", &network]).output().await.unwrap();
        assert!(!found.status.success(), "the network {network} is left");
    }
}

fn free_ports(count: usize) -> Vec<SocketAddr> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

fn to_toml(config: &Value) -> String {
    toml::to_string(config).unwrap()
}
