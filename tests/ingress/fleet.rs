//! Registry, broker and gateway, as they are in production but for their ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_registry::ca::{CertificateAuthority, write_private, write_public};
use wolfpack_rpc::{ClientTls, PeerConfig, RemoteAuthority, RpcChannel, TlsConfig};
use wolfpack_runtime::Context;
use wolfpack_store::DatabaseConfig;
use wolfpack_types::{ProjectId, UserId};
use {
    wolfpack_gateway as gateway, wolfpack_registry as registry, wolfpack_tunnel_broker as broker,
};

use crate::authority::WithTestLinks;
use crate::links::TestKey;

/// Long enough for anything that happens at all.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How long the gateway waits for a sandbox that is away.
pub(crate) const DIAL: Duration = Duration::from_secs(2);
/// Its every subdomain is a port of a sandbox.
pub(crate) const DOMAIN: &str = "box.test";

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The services that run; they stop when it is dropped.
pub(crate) struct Fleet {
    folder: TempDir,
    authority: CertificateAuthority,
    contexts: Vec<Context>,
    /// The gateway without TLS.
    pub(crate) http: SocketAddr,
    /// The broker's port for agents.
    agents: SocketAddr,
    registry: PeerConfig,
    /// The first user's key, and who that is.
    pub(crate) key: String,
    pub(crate) user: UserId,
    pub(crate) project: ProjectId,
    /// Signs links that the registry would not make.
    pub(crate) test_key: TestKey,
    /// Of the sandboxes' agents.
    pub(crate) context: Context,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for context in self.contexts.iter().chain([&self.context]) {
            context.supervisor.token().cancel();
        }
    }
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut gateway::Config)) -> Self {
        wolfpack_runtime::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        let authority = CertificateAuthority::create_or_load(&ca).unwrap();
        let mut contexts = Vec::new();
        let mut context = |name| {
            contexts.push(Context::quiet(name));
            contexts.last().unwrap().clone()
        };
        let tls = |name| issue(&authority, folder.path(), name);

        let config = registry::Config {
            listen: ANY,
            tls: Some(tls("registry")),
            database: DatabaseConfig::sqlite(&folder.path().join("registry.db")),
            ca_dir: Some(ca.clone()),
            data_dir: folder.path().to_owned(),
            ..registry::Config::default()
        };
        let registry_context = context("registry");
        let app = registry::App::build(config, registry_context.clone()).await.unwrap();
        let first = app.bootstrap().await.unwrap().expect("it is new");
        let registry = peer(app.addresses().grpc);
        registry_context.supervisor.spawn_essential("registry", app.run());

        let config = broker::Config {
            listen: ANY,
            agents: ANY,
            tls: Some(tls("tunnel-broker")),
            registry: registry.clone(),
            drain: Duration::from_millis(200),
            ..broker::Config::default()
        };
        let broker_context = context("tunnel-broker");
        let own = ClientTls::load(config.tls.as_ref().unwrap()).unwrap();
        let channel = RpcChannel::to_service(&registry, "registry", Some(&own)).unwrap();
        let test_key = TestKey::new();
        let remote = RemoteAuthority::new(channel.clone(), &broker_context);
        let all = Arc::new(WithTestLinks::new(remote, test_key.public()));
        let app = broker::App::with_authority(config, broker_context.clone(), channel, all);
        let app = app.await.unwrap();
        let addresses = app.addresses();
        broker_context.supervisor.spawn_essential("tunnel-broker", app.run());

        let mut config = gateway::Config {
            listen: ANY,
            plaintext: Some(ANY),
            tls: Some(tls("gateway")),
            registry: registry.clone(),
            tunnel_broker: peer(addresses.internal),
            // Nothing of these is needed, and nobody is there.
            scheduler: PeerConfig::at("https://127.0.0.1:9"),
            sandbox_manager: PeerConfig::at("https://127.0.0.1:9"),
            drain: Duration::from_millis(200),
            ..gateway::Config::default()
        };
        config.ingress.domains = vec![DOMAIN.to_owned()];
        config.ingress.dial_timeout = DIAL;
        change(&mut config);
        let gateway_context = context("gateway");
        let app = gateway::App::build(config, gateway_context.clone()).await.unwrap();
        let http = app.addresses().plaintext.unwrap();
        gateway_context.supervisor.spawn_essential("gateway", app.run());

        Self {
            agents: addresses.agents,
            key: first.api_key.expose_secret().to_owned(),
            user: first.user,
            project: first.project,
            context: Context::quiet("sandboxes"),
            folder,
            authority,
            contexts,
            http,
            registry,
            test_key,
        }
    }

    /// The registry, as its identity service answers the sandbox-manager.
    pub(crate) fn identities(&self) -> IdentityServiceClient<RpcChannel> {
        let files = issue(&self.authority, self.folder.path(), "sandbox-manager");
        let tls = ClientTls::load(&files).unwrap();
        let channel = RpcChannel::to_service(&self.registry, "registry", Some(&tls)).unwrap();
        IdentityServiceClient::new(channel)
    }

    /// The broker, as an agent in a sandbox reaches it.
    pub(crate) fn agent_channel(&self, token: String) -> RpcChannel {
        let tls = ClientTls::roots_only(self.authority.root_pem().as_bytes()).unwrap();
        let channel = RpcChannel::to_service(&peer(self.agents), "tunnel-broker", Some(&tls));
        channel.unwrap().with_bearer(secrecy::SecretString::from(token))
    }
}

fn peer(at: SocketAddr) -> PeerConfig {
    PeerConfig::at(format!("https://{at}"))
}

fn issue(authority: &CertificateAuthority, folder: &Path, service: &str) -> TlsConfig {
    let files = TlsConfig {
        certificate_file: folder.join(format!("{service}.crt")),
        key_file: folder.join(format!("{service}.key")),
        roots_file: folder.join("roots.crt"),
    };
    let issued = authority
        .issue_service(service, &["localhost".to_owned()], &[Ipv4Addr::LOCALHOST.into()])
        .unwrap();
    write_private(&files.key_file, issued.key_pem.as_bytes()).unwrap();
    write_public(&files.certificate_file, issued.certificate_pem.as_bytes()).unwrap();
    write_public(&files.roots_file, authority.root_pem().as_bytes()).unwrap();
    files
}
