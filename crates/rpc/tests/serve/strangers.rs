//! What a client learns of a server whose TLS is at fault.

use std::time::{Duration, SystemTime};

use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_rpc::client::{
    CERTIFICATE_EXPIRED, NAME_DIFFERS, NOT_TLS, SELF_SIGNED, TLS, UNKNOWN_ISSUER,
};
use wolfpack_rpc::{ClientAuth, ClientTls, ListenConfig, RpcChannel, TlsConfig, from_status};
use wolfpack_types::Reason;

use crate::certificates::{Ca, Leaf, paths, replace};
use crate::world::{ANY, Wolves, World, get};

/// What a client with these roots is told of the server at `world`.
async fn told(world: &World, roots: &str) -> Option<String> {
    let tls = ClientTls::roots_only(roots.as_bytes()).unwrap();
    let url = format!("https://localhost:{}", world.address.port());
    let channel = RpcChannel::to_gateway(&url, Some(&tls), None).unwrap();
    let status = WolfServiceClient::new(channel).get_wolf(get("wolves/ok")).await.unwrap_err();
    let fault = from_status(&status);
    assert_eq!(fault.reason, Reason::DependencyUnavailable, "{fault}");
    fault.metadata.get(TLS).cloned()
}

async fn serving(files: TlsConfig) -> World {
    let listen = ListenConfig { address: ANY, tls: Some(files), client_auth: ClientAuth::Off };
    World::start(&listen, |_| {}, Wolves::default()).await
}

/// A certificate that is its own issuer, as `openssl req -x509` makes it.
fn self_signed(folder: &std::path::Path) -> (TlsConfig, String) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let files = paths(folder);
    replace(&files.certificate_file, &pem);
    replace(&files.key_file, &key.serialize_pem());
    replace(&files.roots_file, &pem);
    (files, pem)
}

#[tokio::test]
async fn what_is_wrong_with_a_servers_tls_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (Ca::new(), Ca::new());
    let hour = Duration::from_secs(3600);
    let leaf = || Leaf { uris: vec![], ..Leaf::service("web") };
    let named = Leaf { names: vec!["other.example".into()], ..leaf() };
    let ended = Leaf {
        not_before: SystemTime::now() - 2 * hour,
        not_after: SystemTime::now() - hour,
        ..leaf()
    };
    let (own, own_pem) = self_signed(&folder.path().join("own"));
    let write = |name: &str, leaf: &Leaf| ca.write(&folder.path().join(name), leaf, &[&ca]);
    for (files, roots, expected) in [
        (write("good", &leaf()), other.pem(), UNKNOWN_ISSUER),
        (write("named", &named), ca.pem(), NAME_DIFFERS),
        (write("ended", &ended), ca.pem(), CERTIFICATE_EXPIRED),
        (own, own_pem, SELF_SIGNED),
    ] {
        let world = serving(files).await;
        assert_eq!(told(&world, &roots).await.as_deref(), Some(expected));
        world.stop().await;
    }
    let world = World::plain(|_| {}).await;
    assert_eq!(told(&world, &ca.pem()).await.as_deref(), Some(NOT_TLS));
    world.stop().await;
}
