//! A registry with its CA, a broker, and whoever calls it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::{
    CreateApiKeyRequest, CreateJoinTokenRequest, CreateProjectRequest, CreateUserRequest,
    GetWolfRequest, HeartbeatRequest, HeartbeatResponse, JoinWolfRequest, JoinWolfResponse,
    RegisterWolfRequest, Role, SetProjectMemberRequest, Wolf, WolfCapacity, WolfState,
};
use wolfpack_proto::types::v1::GpuDevice;
use wolfpack_registry::ca::{CertificateAuthority, write_private, write_public};
use wolfpack_registry::{App, Config};
use wolfpack_rpc::{ClientTls, PeerConfig, RpcChannel, TlsConfig, from_status};
use wolfpack_runtime::{Context, install_crypto_provider};
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::{ProjectId, Reason, UserId, WolfId};

use crate::broker::Broker;

pub(crate) type Wolves = WolfServiceClient<RpcChannel>;
pub(crate) type Identity = IdentityServiceClient<RpcChannel>;

/// See the module.
pub(crate) struct Fleet {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) database: TestDatabase,
    pub(crate) context: Context,
    pub(crate) ca: CertificateAuthority,
    pub(crate) broker: Broker,
    pub(crate) address: String,
    pub(crate) admin: Member,
    interval: Duration,
}

/// Where a replica listens.
pub(crate) struct RpcAddress(String);

/// A user with a key.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) user: UserId,
    pub(crate) project: ProjectId,
    pub(crate) key: String,
}

/// Heartbeats short enough for tests, long enough for a loaded machine.
pub(crate) const INTERVAL: Duration = Duration::from_millis(800);

/// Runs a test on each engine.
pub(crate) async fn each<F, Fut>(test: F)
where
    F: Fn(Fleet) -> Fut,
    Fut: Future<Output = Fleet>,
{
    each_beating(INTERVAL, test).await;
}

/// The same where wolves beat this often.
pub(crate) async fn each_beating<F, Fut>(interval: Duration, test: F)
where
    F: Fn(Fleet) -> Fut,
    Fut: Future<Output = Fleet>,
{
    for database in TestDatabase::all() {
        test(Fleet::start(database, interval).await).await.stop().await;
    }
}

pub(crate) fn reason(status: &Status) -> Reason {
    from_status(status).reason
}

/// Waits until something holds; level-triggered, so nothing can be missed.
pub(crate) async fn eventually<T, F, Fut>(what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "not in 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn config(folder: &Path, database: &TestDatabase, tls: Option<TlsConfig>) -> Config {
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls,
        metrics: Some("127.0.0.1:0".parse().unwrap()),
        database: database.config.clone(),
        data_dir: folder.join("data"),
        key_environment: "test".to_owned(),
        agent_endpoint: "broker.example:8444".to_owned(),
        ..Config::default()
    };
    config.heartbeat.interval = INTERVAL;
    config.heartbeat.sweep = Duration::from_millis(20);
    config.watch.poll = Duration::from_millis(20);
    config.watch.bookmark = Duration::from_millis(300);
    config
}

/// Writes the certificate of a service.
pub(crate) fn issue(ca: &CertificateAuthority, folder: &Path, name: &str) -> TlsConfig {
    let issued = ca.issue_service(name, &[], &["127.0.0.1".parse().unwrap()]).unwrap();
    files(folder, name, &issued.certificate_pem, &issued.key_pem, ca.root_pem())
}

fn files(folder: &Path, name: &str, certificate: &str, key: &str, roots: &str) -> TlsConfig {
    let at = |suffix: &str| -> PathBuf { folder.join(format!("{name}.{suffix}")) };
    write_public(&at("crt"), certificate.as_bytes()).unwrap();
    write_private(&at("key"), key.as_bytes()).unwrap();
    write_public(&at("roots"), roots.as_bytes()).unwrap();
    TlsConfig { certificate_file: at("crt"), key_file: at("key"), roots_file: at("roots") }
}

impl Fleet {
    async fn start(database: TestDatabase, interval: Duration) -> Self {
        install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create_or_load(&folder.path().join("data/ca")).unwrap();
        let context = Context::quiet("registry");
        let tls = issue(&ca, folder.path(), "tunnel-broker");
        let (broker, broker_address) = Broker::start(&context, tls).await;
        let tls = issue(&ca, folder.path(), "registry");
        let mut config = config(folder.path(), &database, Some(tls));
        config.heartbeat.interval = interval;
        let mut app = App::build(config, context.clone()).await.unwrap();
        app.set_tunnel_broker(PeerConfig::at(broker_address));
        let first = app.bootstrap().await.unwrap().expect("the first start");
        assert!(app.bootstrap().await.unwrap().is_none(), "only once");
        let admin = Member {
            user: first.user,
            project: first.project,
            key: first.api_key.expose_secret().to_owned(),
        };
        let address = format!("https://{}", app.addresses().grpc);
        context.supervisor.spawn_essential("registry", app.run());
        Self { folder, database, context, ca, broker, address, admin, interval }
    }

    /// Another registry on the same database, CA and pepper.
    pub(crate) async fn replica(&self) -> RpcAddress {
        let tls = issue(&self.ca, self.folder.path(), "registry-2");
        let issued = self.ca.issue_service("registry", &[], &[]).unwrap();
        write_public(&tls.certificate_file, issued.certificate_pem.as_bytes()).unwrap();
        write_private(&tls.key_file, issued.key_pem.as_bytes()).unwrap();
        let mut config = config(self.folder.path(), &self.database, Some(tls));
        config.heartbeat.interval = self.interval;
        let app = App::build(config, self.context.clone()).await.unwrap();
        assert!(app.bootstrap().await.unwrap().is_none());
        let address = format!("https://{}", app.addresses().grpc);
        self.context.supervisor.spawn_essential("replica", app.run());
        RpcAddress(address)
    }

    /// The channel of a bearer to a replica.
    pub(crate) fn bearer_at(&self, replica: &RpcAddress, key: &str) -> RpcChannel {
        let tls = ClientTls::roots_only(self.ca.root_pem().as_bytes()).unwrap();
        let peer = PeerConfig::at(&replica.0);
        RpcChannel::to_service(&peer, "registry", Some(&tls))
            .unwrap()
            .with_bearer(secrecy::SecretString::from(key))
    }

    /// The channel of a wolf to a replica.
    pub(crate) fn wolf_at(&self, replica: &RpcAddress, wolf: &Joined) -> RpcChannel {
        let name = format!("wolf-{}", WolfId::new());
        let (chain, key) = (&wolf.answer.certificate_chain, wolf.key.serialize_pem());
        let tls = files(self.folder.path(), &name, chain, &key, self.ca.root_pem());
        let tls = ClientTls::load(&tls).unwrap();
        RpcChannel::to_service(&PeerConfig::at(&replica.0), "registry", Some(&tls)).unwrap()
    }

    pub(crate) async fn stop(self) {
        let report = self.context.supervisor.shutdown(Duration::from_secs(10)).await;
        assert!(report.aborted.is_empty(), "left behind: {:?}", report.aborted);
        self.database.close().await;
    }

    fn channel(&self, tls: &ClientTls) -> RpcChannel {
        RpcChannel::to_service(&PeerConfig::at(&self.address), "registry", Some(tls))
            .unwrap()
            .with_deadline(Duration::from_secs(30))
    }

    /// Nobody: no key, no certificate.
    pub(crate) fn nobody(&self) -> RpcChannel {
        self.channel(&ClientTls::roots_only(self.ca.root_pem().as_bytes()).unwrap())
    }

    /// Whoever has this bearer.
    pub(crate) fn bearer(&self, key: &str) -> RpcChannel {
        self.nobody().with_bearer(secrecy::SecretString::from(key))
    }

    pub(crate) fn service(&self, name: &str) -> RpcChannel {
        let tls = issue(&self.ca, self.folder.path(), &format!("client-{name}"));
        let issued = self.ca.issue_service(name, &[], &[]).unwrap();
        write_public(&tls.certificate_file, issued.certificate_pem.as_bytes()).unwrap();
        write_private(&tls.key_file, issued.key_pem.as_bytes()).unwrap();
        self.channel(&ClientTls::load(&tls).unwrap())
    }

    /// A wolf that has this certificate chain.
    pub(crate) fn wolf(&self, chain: &str, key: &KeyPair) -> RpcChannel {
        let name = format!("wolf-{}", WolfId::new());
        let key = key.serialize_pem();
        let tls = files(self.folder.path(), &name, chain, &key, self.ca.root_pem());
        self.channel(&ClientTls::load(&tls).unwrap())
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::new(self.bearer(&self.admin.key))
    }

    pub(crate) fn wolves(&self) -> Wolves {
        Wolves::new(self.bearer(&self.admin.key))
    }

    pub(crate) async fn join_token(&self, project: &str) -> String {
        let request = CreateJoinTokenRequest { project: project.to_owned(), ttl: None };
        self.identity().create_join_token(request).await.unwrap().into_inner().token
    }

    pub(crate) async fn join(&self, project: &str) -> Joined {
        let token = self.join_token(project).await;
        let key = KeyPair::generate().unwrap();
        let joined = join_with(&self.nobody(), &token, csr(&key)).await.unwrap();
        let id = WolfId::from_name(&joined.wolf).unwrap();
        let channel = self.wolf(&joined.certificate_chain, &key);
        Joined { id, channel, key, answer: joined, interval: self.interval }
    }

    pub(crate) async fn state(&self, wolf: &WolfId) -> WolfState {
        self.get(wolf).await.state()
    }

    pub(crate) async fn get(&self, wolf: &WolfId) -> Wolf {
        let request = GetWolfRequest { name: wolf.name() };
        self.wolves().get_wolf(request).await.unwrap().into_inner().wolf.unwrap()
    }

    pub(crate) async fn reaches(&self, wolf: &WolfId, wanted: WolfState) {
        eventually(wanted.as_str_name(), || async {
            (self.state(wolf).await == wanted).then_some(())
        })
        .await;
    }

    /// A fresh project with a fresh user in it.
    pub(crate) async fn member(&self, role: Role) -> Member {
        let project = self.project("another").await;
        self.member_of(&project, role).await
    }

    pub(crate) async fn project(&self, name: &str) -> ProjectId {
        let request = CreateProjectRequest { request_id: uuid(), display_name: name.to_owned() };
        let made = self.identity().create_project(request).await.unwrap().into_inner();
        ProjectId::from_name(&made.project.unwrap().name).unwrap()
    }

    pub(crate) async fn member_of(&self, project: &ProjectId, role: Role) -> Member {
        let mut identity = self.identity();
        let request = CreateUserRequest {
            request_id: uuid(),
            display_name: "someone".to_owned(),
            platform_admin: false,
        };
        let user = identity.create_user(request).await.unwrap().into_inner().user.unwrap().name;
        let set = SetProjectMemberRequest {
            project: project.name(),
            user: user.clone(),
            role: role.into(),
        };
        identity.set_project_member(set).await.unwrap();
        let request = CreateApiKeyRequest {
            user: user.clone(),
            project: project.name(),
            role: role.into(),
            ..CreateApiKeyRequest::default()
        };
        let key = identity.create_api_key(request).await.unwrap().into_inner().key;
        Member { user: UserId::from_name(&user).unwrap(), project: project.clone(), key }
    }
}

/// A wolf that has joined.
pub(crate) struct Joined {
    pub(crate) id: WolfId,
    pub(crate) channel: RpcChannel,
    pub(crate) key: KeyPair,
    pub(crate) answer: JoinWolfResponse,
    interval: Duration,
}

impl Joined {
    pub(crate) fn client(&self) -> Wolves {
        Wolves::new(self.channel.clone())
    }

    pub(crate) async fn register(&self, instance: &str) -> Result<Wolf, Status> {
        let answer = self.client().register_wolf(registration(instance)).await?.into_inner();
        let told = Duration::try_from(answer.heartbeat_interval.unwrap()).unwrap();
        assert_eq!(told, self.interval);
        Ok(answer.wolf.unwrap())
    }

    pub(crate) async fn heart(&self, instance: &str) -> Heart {
        Heart { interval: self.interval, ..Heart::of(&self.channel, instance).await }
    }
}

pub(crate) fn registration(instance: &str) -> RegisterWolfRequest {
    RegisterWolfRequest {
        capacity: Some(WolfCapacity {
            desktop_slots: 2,
            gpus: vec![GpuDevice { id: "GPU-0".to_owned(), ..GpuDevice::default() }],
            ..WolfCapacity::default()
        }),
        agent_version: "1.2.3".to_owned(),
        instance_id: instance.to_owned(),
        labels: [("region".to_owned(), "here".to_owned())].into(),
        ..RegisterWolfRequest::default()
    }
}

/// An open heartbeat stream.
pub(crate) struct Heart {
    instance: String,
    interval: Duration,
    sequence: u64,
    beats: mpsc::Sender<HeartbeatRequest>,
    answers: Streaming<HeartbeatResponse>,
}

impl Heart {
    pub(crate) async fn of(channel: &RpcChannel, instance: &str) -> Self {
        let (beats, queue) = mpsc::channel(8);
        let mut client = Wolves::new(channel.without_deadline());
        let answers = client.heartbeat(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Self { instance: instance.to_owned(), interval: INTERVAL, sequence: 0, beats, answers }
    }

    pub(crate) async fn beat(&mut self, engine_fault: &str) -> Result<WolfState, Status> {
        self.sequence += 1;
        let beat = HeartbeatRequest {
            instance_id: self.instance.clone(),
            sequence: self.sequence,
            running_sandboxes: Some(0),
            engine_fault: engine_fault.to_owned(),
            ..HeartbeatRequest::default()
        };
        self.send(beat).await
    }

    /// Sends a beat that is this stream's next, and returns its answer.
    pub(crate) async fn tell(&mut self, beat: HeartbeatRequest) -> Result<WolfState, Status> {
        self.sequence += 1;
        let (instance_id, sequence) = (self.instance.clone(), self.sequence);
        self.send(HeartbeatRequest { instance_id, sequence, ..beat }).await
    }

    async fn send(&mut self, beat: HeartbeatRequest) -> Result<WolfState, Status> {
        // A stream that has ended says why in its answer.
        let _ = self.beats.send(beat).await;
        let answer = self.answer().await?;
        assert_eq!(answer.sequence, self.sequence);
        assert_eq!(Duration::try_from(answer.interval.unwrap()).unwrap(), self.interval);
        Ok(answer.state())
    }

    pub(crate) async fn answer(&mut self) -> Result<HeartbeatResponse, Status> {
        let answer = tokio::time::timeout(Duration::from_secs(10), self.answers.message());
        Ok(answer.await.expect("an answer comes")?.expect("the stream is open"))
    }

    /// Beats until dropped.
    pub(crate) fn keep(mut self) -> tokio::task::JoinHandle<Status> {
        tokio::spawn(async move {
            loop {
                if let Err(status) = self.beat("").await {
                    return status;
                }
                tokio::time::sleep(self.interval / 8).await;
            }
        })
    }
}

pub(crate) fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

pub(crate) async fn join_with(
    channel: &RpcChannel,
    token: &str,
    csr: Vec<u8>,
) -> Result<JoinWolfResponse, Status> {
    let request = JoinWolfRequest {
        token: token.to_owned(),
        certificate_request: csr.into(),
        display_name: "a wolf".to_owned(),
    };
    Ok(Identity::new(channel.clone()).join_wolf(request).await?.into_inner())
}

pub(crate) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}
