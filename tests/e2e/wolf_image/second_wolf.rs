//! A wolf that is started by hand, as its operator would: of one project, with
//! its engine shared, on a network with a small MTU and a resolver of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wolfpack_dockerd::dns::{Forwarder, ForwarderConfig, Upstreams};
use wolfpack_proto::registry::v1 as registry;
use wolfpack_testkit::client::{Client, timed};
use wolfpack_testkit::dev_fleet::DevFleet;
use wolfpack_testkit::process::eventually;

use super::{STARTS, WolfContainer, docker, push};

/// What the resolver outside knows and nobody else does.
pub(super) const INSIDE_NAME: &str = "inside.corp.example";

/// A fleet with the second wolf; the first one is the machine's own engine,
/// which offers no Docker to sandboxes.
pub(super) struct SecondWolf {
    pub(super) fleet: DevFleet,
    pub(super) wolf: WolfContainer,
    pub(super) name: String,
    pub(super) gateway: String,
    tag: String,
    resolver: CancellationToken,
    _leftovers: Leftovers,
}

/// What a test that fails before [`SecondWolf::stop`] would leave on this
/// machine's engine. It goes after the fleet, whose drop ends the sandboxes'
/// way to be made again.
struct Leftovers(String);

impl Drop for Leftovers {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let tag = self.0.as_str();
        for arguments in [
            &["rm", "-f", "-v", tag][..],
            &["volume", "rm", &format!("{tag}-state"), &format!("{tag}-docker")],
            &["network", "rm", tag],
        ] {
            let _ = std::process::Command::new("docker").args(arguments).output();
        }
    }
}

impl SecondWolf {
    pub(super) async fn start(folder: &Path) -> Self {
        let _alone = STARTS.lock().await;
        let tag = format!("wolfpack-e2e-{}", std::process::id());
        let leftovers = Leftovers(tag.clone());
        let mtu = "com.docker.network.driver.mtu=1400";
        docker(&["network", "create", "--opt", mtu, &tag]).await;
        let format = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
        let gateway = docker(&["network", "inspect", "--format", format, &tag]).await;
        let gateway = gateway.trim().to_owned();
        let resolver = resolver(&gateway).await;

        let listen = format!("{gateway}:0");
        let arguments = ["--tls", &listen, "--agents", &listen, "--host", &gateway];
        let fleet = DevFleet::start_and(folder, &arguments).await;
        let client = fleet.client().await;
        let before = wolves(&client).await;
        let token = join_token(&client).await;
        let (_, port) = fleet.ready().server_tls.rsplit_once(':').unwrap();
        let server = format!("https://{gateway}:{port}");
        let image = std::env::var("WOLFPACK_WOLF_IMAGE")
            .unwrap_or_else(|_| "wolfpack/wolf:latest".to_owned());
        let arguments = [
            "run",
            "-d",
            "--name",
            &tag,
            "--network",
            &tag,
            "--dns",
            &gateway,
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
            "-v",
            &format!("{tag}-state:/var/lib/wolfpack-wolf"),
            "-v",
            &format!("{tag}-docker:/var/lib/docker"),
            "-e",
            &format!("WOLFPACK_WOLF__SERVER={server}"),
            "-e",
            &format!("WOLFPACK_WOLF__JOIN_TOKEN={token}"),
            "-e",
            "WOLFPACK_WOLF__DOCKER__SHARED=true",
            &image,
        ];
        let id = docker(&arguments).await.trim().to_owned();
        let name = eventually("the second wolf is online", Duration::from_secs(120), async || {
            wolves(&client)
                .await
                .into_iter()
                .find(|wolf| {
                    wolf.state() == registry::WolfState::Online
                        && before.iter().all(|known| known.name != wolf.name)
                })
                .map(|wolf| wolf.name)
                .ok_or_else(|| anyhow::anyhow!("it is not"))
        })
        .await;
        push(&fleet, &name).await;
        let wolf = WolfContainer { id };
        Self { fleet, wolf, name, gateway, tag, resolver, _leftovers: leftovers }
    }

    /// Takes everything down; what is left over fails the test.
    pub(super) async fn stop(self) {
        docker(&["rm", "-f", &self.tag]).await;
        docker(&["volume", "rm", &format!("{}-state", self.tag), &format!("{}-docker", self.tag)])
            .await;
        self.resolver.cancel();
        self.fleet.stop().await;
        docker(&["network", "rm", &self.tag]).await;
    }
}

async fn wolves(client: &Client) -> Vec<registry::Wolf> {
    let request = registry::ListWolvesRequest::default();
    client.wolves().list_wolves(timed(request, 10)).await.unwrap().into_inner().wolves
}

/// A token for a wolf of the caller's own project.
async fn join_token(client: &Client) -> String {
    let me = client.identity().who_am_i(timed(registry::WhoAmIRequest {}, 10)).await.unwrap();
    let project = me.into_inner().project;
    let request = registry::CreateJoinTokenRequest { project, ..Default::default() };
    client.identity().create_join_token(timed(request, 10)).await.unwrap().into_inner().token
}

/// A resolver that knows one name, and whose own resolvers answer nobody.
async fn resolver(address: &str) -> CancellationToken {
    let own: SocketAddr = format!("{address}:53").parse().unwrap();
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let config = ForwarderConfig {
        upstreams: Upstreams::Fixed(vec![nobody]),
        names: BTreeMap::from([(INSIDE_NAME.to_owned(), address.parse().unwrap())]),
    };
    let forwarder = Forwarder::bind(&[own], config).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(forwarder.serve(stop.clone()));
    stop
}
