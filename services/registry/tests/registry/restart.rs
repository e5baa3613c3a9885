//! What survives a restart.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wolfpack_proto::registry::v1::WhoAmIRequest;
use wolfpack_registry::{App, ca};
use wolfpack_rpc::{ClientTls, PeerConfig, RpcChannel};
use wolfpack_runtime::{Context, install_crypto_provider};
use wolfpack_store::testing::TestDatabase;

use crate::fleet::{Identity, config, issue};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_key_is_written_once_and_works_after_a_restart() {
    install_crypto_provider();
    for database in TestDatabase::all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("first-key");
        let authority =
            ca::CertificateAuthority::create_or_load(&folder.path().join("data/ca")).unwrap();
        let tls = issue(&authority, folder.path(), "registry");
        let mut written = None;
        for start in 0..2 {
            let mut config = config(folder.path(), &database, Some(tls.clone()));
            config.bootstrap_key_file = Some(file.clone());
            let context = Context::quiet("registry");
            let app = App::build(config, context.clone()).await.unwrap();
            assert!(app.bootstrap().await.unwrap().is_none());
            let key = std::fs::read_to_string(&file).unwrap().trim().to_owned();
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(*written.get_or_insert_with(|| key.clone()), key, "start {start}");
            let addresses = app.addresses();
            context.supervisor.spawn_essential("registry", app.run());
            let tls = ClientTls::roots_only(authority.root_pem().as_bytes()).unwrap();
            let peer = PeerConfig::at(format!("https://{}", addresses.grpc));
            let channel = RpcChannel::to_service(&peer, "registry", Some(&tls)).unwrap();
            let mut identity = Identity::new(channel.with_bearer(secrecy::SecretString::from(key)));
            let me = identity.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
            assert!(me.platform_admin);
            let metrics = scrape(addresses.metrics.unwrap()).await;
            assert!(metrics.contains("rpc_server"), "{metrics}");
            let report = context.supervisor.shutdown(Duration::from_secs(10)).await;
            assert!(report.aborted.is_empty(), "{:?}", report.aborted);
        }
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_first_pepper_it_does_not_start() {
    install_crypto_provider();
    for database in TestDatabase::all() {
        let folder = tempfile::tempdir().unwrap();
        let build =
            || App::build(config(folder.path(), &database, None), Context::quiet("registry"));
        drop(build().await.unwrap());
        std::fs::remove_file(folder.path().join("data/pepper")).unwrap();
        let error = build().await.err().unwrap();
        assert!(error.to_string().contains("pepper"), "{error}");
        database.close().await;
    }
}

async fn scrape(address: std::net::SocketAddr) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}
