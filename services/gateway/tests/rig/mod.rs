//! A gateway as a whole, before services that are fakes.

mod ca;
mod sandboxes;
mod upstreams;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wolfpack_gateway::config::IngressConfig;
use wolfpack_gateway::health::HealthBoard;
use wolfpack_gateway::{Addresses, App, Config};
use wolfpack_rpc::client::{PeerConfig, RpcChannel};
use wolfpack_rpc::tls::ClientTls;
use wolfpack_runtime::{Context, Telemetry};

pub use ca::TestCa;
pub use sandboxes::{Sandboxes, link};
pub use upstreams::{KEY, OTHER_KEY, Seen, Upstreams};

pub struct Rig {
    pub ca: TestCa,
    pub upstreams: Upstreams,
    pub addresses: Addresses,
    pub health: HealthBoard,
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let ca = TestCa::new();
        let upstreams = Upstreams::start(&ca).await;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let peer = |name: &str| PeerConfig::at(format!("https://{}", upstreams.0[name].address));
        let ingress =
            IngressConfig { domains: vec!["localhost".to_owned()], ..IngressConfig::default() };
        let mut config = Config {
            ingress,
            listen: any,
            plaintext: Some(any),
            metrics: Some(any),
            tls: Some(ca.service("gateway")),
            registry: peer("registry"),
            scheduler: peer("scheduler"),
            tunnel_broker: peer("tunnel-broker"),
            sandbox_manager: peer("sandbox-manager"),
            health_interval: Duration::from_millis(100),
            screenshot_deadline: Duration::from_secs(2),
            drain: Duration::from_secs(2),
            ..Config::default()
        };
        change(&mut config);
        let gateway = Context::quiet("gateway");
        let extra = vec![Telemetry::disabled("elsewhere")];
        extra[0].meter().u64_counter("elsewhere_things").build().add(3, &[]);
        let app = App::build_with(config, gateway.clone(), extra).await.unwrap();
        let (addresses, health) = (app.addresses(), app.health());
        gateway.supervisor.spawn_essential("gateway", app.run());
        let rig = Self { ca, upstreams, addresses, health };
        rig.until("the gateway serves", || rig.health.is_serving()).await;
        rig
    }

    /// What is behind the broker.
    pub fn sandboxes(&self) -> &Sandboxes {
        &self.upstreams.0["tunnel-broker"].sandboxes
    }

    pub fn seen(&self, name: &str) -> &Seen {
        &self.upstreams.0[name].seen
    }

    /// Over TLS, as users come.
    pub fn channel(&self, key: Option<&str>) -> RpcChannel {
        let roots = std::fs::read(self.ca.roots()).unwrap();
        let tls = ClientTls::roots_only(&roots).unwrap();
        let url = format!("https://localhost:{}", self.addresses.listen.port());
        RpcChannel::to_gateway(&url, Some(&tls), key.map(|key| key.to_owned().into())).unwrap()
    }

    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..500 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never: {what}; services {:?}", self.health.upstreams());
    }

    /// One HTTP/1.1 request: status, headers in lower case, body.
    pub async fn http(
        &self,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, answer[end + 4..].to_vec())
    }

    pub fn plaintext(&self) -> SocketAddr {
        self.addresses.plaintext.unwrap()
    }
}
