//! Who gets in, whom a client believes, and files that change under calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject as _;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_rpc::{ClientAuth, ClientTls, ListenConfig, PeerConfig, RpcChannel};
use wolfpack_types::{Reason, WolfId};

use crate::certificates::{Ca, Leaf, paths, replace};
use crate::world::{ANY, Wolves, World, eventually, get, reason, secret};

pub(crate) fn channel(world: &World, tls: &ClientTls) -> RpcChannel {
    let peer = PeerConfig::at(format!("https://{}", world.address));
    RpcChannel::to_service(&peer, "registry", Some(tls)).unwrap()
}

pub(crate) fn client(world: &World, tls: &ClientTls) -> WolfServiceClient<RpcChannel> {
    WolfServiceClient::new(channel(world, tls))
}

struct Fleet {
    folder: tempfile::TempDir,
    ca: Ca,
    world: World,
}

impl Fleet {
    async fn new(client_auth: ClientAuth) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let tls = ca.service(folder.path(), "registry");
        let listen = ListenConfig { address: ANY, tls: Some(tls), client_auth };
        let world = World::start(&listen, |_| {}, Wolves::default()).await;
        Self { folder, ca, world }
    }

    fn identity(&self, ca: &Ca, name: &str, leaf: &Leaf) -> ClientTls {
        ClientTls::load(&ca.write(&self.folder.path().join(name), leaf, &[&self.ca])).unwrap()
    }

    async fn refused(&self, what: &str, tls: &ClientTls, want: Reason) {
        let answer = client(&self.world, tls).get_wolf(get("wolves/ok")).await;
        assert_eq!(reason(answer), want, "{what}");
        assert_eq!(self.world.probe.ran(), 0, "{what}: a handler ran");
    }
}

#[tokio::test]
async fn services_and_wolves_get_in_by_their_certificates() {
    let fleet = Fleet::new(ClientAuth::Required).await;
    let scheduler = fleet.identity(&fleet.ca, "scheduler", &Leaf::service("scheduler"));
    let wolf =
        client(&fleet.world, &scheduler).get_wolf(get("wolves/ok")).await.unwrap().into_inner();
    assert_eq!(wolf.wolf.unwrap().display_name, "services/scheduler");
    let id = WolfId::new();
    let leaf = Leaf { uris: vec![wolfpack_types::spiffe::wolf(&id)], ..Leaf::service("wolf") };
    let tls = fleet.identity(&fleet.ca, "wolf", &leaf);
    let wolf = client(&fleet.world, &tls).get_wolf(get("wolves/ok")).await.unwrap().into_inner();
    assert_eq!(wolf.wolf.unwrap().display_name, format!("wolves/{id}"));
    fleet.world.stop().await;
}

#[tokio::test]
async fn everyone_else_is_refused_before_any_handler() {
    let fleet = Fleet::new(ClientAuth::Required).await;
    let closed = Reason::DependencyUnavailable;
    let other = Ca::new();
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now();
    let scheduler = || Leaf::service("scheduler");

    let none = ClientTls::roots_only(fleet.ca.pem().as_bytes()).unwrap();
    fleet.refused("no certificate", &none, closed).await;
    fleet.refused("another ca", &fleet.identity(&other, "a", &scheduler()), closed).await;
    let expired = Leaf { not_after: now - Duration::from_secs(60), ..scheduler() };
    fleet.refused("expired", &fleet.identity(&fleet.ca, "b", &expired), closed).await;
    let early = Leaf { not_before: now + hour, not_after: now + 2 * hour, ..scheduler() };
    fleet.refused("not yet valid", &fleet.identity(&fleet.ca, "c", &early), closed).await;
    let nameless =
        Leaf { uris: vec![], common_name: "spiffe://wolfpack/svc/scheduler".into(), ..scheduler() };
    fleet
        .refused(
            "name in the common name only",
            &fleet.identity(&fleet.ca, "d", &nameless),
            Reason::CertificateInvalid,
        )
        .await;
    let foreign = Leaf { uris: vec!["spiffe://elsewhere/svc/scheduler".into()], ..scheduler() };
    fleet
        .refused(
            "another trust domain",
            &fleet.identity(&fleet.ca, "e", &foreign),
            Reason::CertificateInvalid,
        )
        .await;
    // Plain HTTP/2 on the TLS port.
    let plain = PeerConfig::at(format!("http://{}", fleet.world.address));
    let plain = RpcChannel::to_service(&plain, "registry", None).unwrap();
    assert_eq!(reason(WolfServiceClient::new(plain).get_wolf(get("wolves/ok")).await), closed);
    assert_eq!(fleet.world.probe.ran(), 0);
    assert!(
        fleet.world.metric("rpc_server_connections_refused_total", &["handshake_failed"]) >= 4.0
    );
    fleet.world.stop().await;
}

#[tokio::test]
async fn a_certificate_may_be_optional_but_never_wrong() {
    let fleet = Fleet::new(ClientAuth::Optional).await;
    let none = ClientTls::roots_only(fleet.ca.pem().as_bytes()).unwrap();
    fleet.refused("nobody", &none, Reason::CredentialMissing).await;
    let other = Ca::new();
    let wrong = fleet.identity(&other, "wrong", &Leaf::service("scheduler"));
    fleet.refused("another ca", &wrong, Reason::DependencyUnavailable).await;
    let keyed = channel(&fleet.world, &none).with_bearer(secret("wp_developer"));
    assert!(WolfServiceClient::new(keyed).get_wolf(get("wolves/ok")).await.is_ok());
    fleet.world.stop().await;
}

#[tokio::test]
async fn a_client_believes_only_the_service_it_means() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let listen = ListenConfig {
        address: ANY,
        tls: Some(ca.service(folder.path(), "gateway")),
        client_auth: ClientAuth::Optional,
    };
    let world = World::start(&listen, |_| {}, Wolves::default()).await;
    let roots = ClientTls::roots_only(ca.pem().as_bytes()).unwrap();
    // Our CA, but another service: the registry is not the gateway.
    assert_eq!(
        reason(client(&world, &roots).get_wolf(get("wolves/ok")).await),
        Reason::DependencyUnavailable
    );
    let foreign = ClientTls::roots_only(Ca::new().pem().as_bytes()).unwrap();
    let url = format!("https://{}", world.address);
    let ask = async |url: &str, tls: &ClientTls| {
        let channel = RpcChannel::to_gateway(url, Some(tls), Some(secret("wp_developer"))).unwrap();
        WolfServiceClient::new(channel).get_wolf(get("wolves/ok")).await
    };
    assert!(ask(&url, &roots).await.is_ok(), "by the address in its certificate");
    assert!(ask(&url, &foreign).await.is_err());
    assert!(
        ask(&url, &ClientTls::pinned_ca(ca.sha256())).await.is_ok(),
        "by the hash of the root it sends"
    );
    assert!(ask(&url, &ClientTls::pinned_ca([7; 32])).await.is_err());
    assert_eq!(world.probe.ran(), 2);
    world.stop().await;
}

/// Leaf, then roots with an overlap, then roots without the old one: no call
/// fails on the way, and at the end the old CA is out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_roots_change_under_calls() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Ca::new(), Ca::new());
    let server_folder = folder.path().join("server");
    let client_folder = folder.path().join("client");
    let server_files = old.write(&server_folder, &Leaf::service("registry"), &[&old]);
    let client_files = old.write(&client_folder, &Leaf::service("scheduler"), &[&old]);
    let world =
        World::start(&ListenConfig::mutual(ANY, server_files.clone()), |_| {}, Wolves::default())
            .await;
    let tls = ClientTls::load(&client_files).unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(std::sync::Mutex::new(Vec::new()));
    // One caller stays on its connection, the other makes one for each call.
    let steady = client(&world, &tls);
    let calls = {
        let (stop, made, failed, tls, url) = (
            stop.clone(),
            made.clone(),
            failed.clone(),
            tls.clone(),
            format!("https://{}", world.address),
        );
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let fresh =
                    RpcChannel::to_service(&PeerConfig::at(url.clone()), "registry", Some(&tls))
                        .unwrap();
                for mut client in [steady.clone(), WolfServiceClient::new(fresh)] {
                    if let Err(status) = client.get_wolf(get("wolves/ok")).await {
                        failed.lock().unwrap().push(status.to_string());
                    }
                    made.fetch_add(1, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    // Some rounds of both callers that began after this did.
    let called = async || {
        let before = made.load(Ordering::SeqCst);
        eventually(|| made.load(Ordering::SeqCst), |made| *made >= before + 6).await;
    };
    // The server looks every 5 s by itself; the client is hurried. It may take the leaf of a
    // change and its roots in two looks, so it is asked what it has.
    let probe = |name: &str, leaf: &Ca, root: &Ca| {
        let files = leaf.write(&folder.path().join(name), &Leaf::service("scheduler"), &[root]);
        ClientTls::load(&files).unwrap()
    };
    let until = async |tls: &ClientTls, lets_in: bool| {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while client(&world, tls).get_wolf(get("wolves/ok")).await.is_ok() != lets_in {
            assert!(tokio::time::Instant::now() < end, "the server took no other files");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Roots first, everywhere; then leaves; then the old root goes.
    old.write(&server_folder, &Leaf::service("registry"), &[&old, &new]);
    old.write(&client_folder, &Leaf::service("scheduler"), &[&old, &new]);
    tls.reload().unwrap();
    until(&probe("of-the-new-root", &new, &old), true).await;
    called().await;
    new.write(&server_folder, &Leaf::service("registry"), &[&old, &new]);
    new.write(&client_folder, &Leaf::service("scheduler"), &[&old, &new]);
    until(&probe("to-the-new-root", &new, &new), true).await;
    tls.reload().unwrap();
    called().await;
    new.write(&server_folder, &Leaf::service("registry"), &[&new]);
    new.write(&client_folder, &Leaf::service("scheduler"), &[&new]);
    let late = probe("late", &old, &new);
    until(&late, false).await;
    tls.reload().unwrap();
    called().await;
    stop.store(true, Ordering::SeqCst);
    calls.await.unwrap();
    assert_eq!(*failed.lock().unwrap(), Vec::<String>::new(), "of {made:?} calls");
    assert!(world.metric("tls_reloads_total", &["taken"]) >= 3.0);

    // A broken file changes nothing but the counter.
    replace(&paths(&server_folder).certificate_file, "not pem");
    eventually(|| world.metric("tls_reloads_total", &["failed"]), |seen| *seen >= 1.0).await;
    assert!(
        client(&world, &tls).get_wolf(get("wolves/ok")).await.is_ok(),
        "the old one stays in use"
    );
    assert!(world.metric("tls_certificate_remaining", &[]) > 3000.0);
    world.stop().await;
}

#[tokio::test]
async fn a_connection_takes_no_new_streams_after_its_certificate() {
    let fleet = Fleet::new(ClientAuth::Required).await;
    let folder = fleet.folder.path().join("short");
    let ends = SystemTime::now() + Duration::from_secs(3);
    let files = fleet.ca.write(
        &folder,
        &Leaf { not_after: ends, ..Leaf::service("scheduler") },
        &[&fleet.ca],
    );
    let tls = ClientTls::load(&files).unwrap();
    let mut client = client(&fleet.world, &tls);
    assert!(client.get_wolf(get("wolves/ok")).await.is_ok());
    tokio::time::sleep(Duration::from_millis(4500)).await;
    assert!(
        client.get_wolf(get("wolves/ok")).await.is_err(),
        "the same channel, the certificate ended"
    );
    fleet.ca.write(&folder, &Leaf::service("scheduler"), &[&fleet.ca]);
    tls.reload().unwrap();
    assert!(client.get_wolf(get("wolves/ok")).await.is_ok(), "with a fresh one it goes on");
    fleet.world.stop().await;
}

#[tokio::test]
async fn files_that_do_not_fit_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let files = ca.service(folder.path(), "registry");
    let other = ca.service(folder.path(), "gateway");
    let mut mixed = files.clone();
    mixed.key_file.clone_from(&other.key_file);
    assert!(ListenConfig::mutual(ANY, mixed.clone()).bind().await.is_err());
    assert!(ClientTls::load(&mixed).is_err());
    let mut missing = files.clone();
    missing.roots_file = folder.path().join("nowhere");
    let error = ListenConfig::mutual(ANY, missing).bind().await.err().unwrap().to_string();
    assert!(error.contains("nowhere"), "{error}");
    let asks = ListenConfig { address: ANY, tls: None, client_auth: ClientAuth::Required };
    assert!(asks.bind().await.is_err());
    assert!(ClientTls::roots_only(b"").is_err());
    assert!(rustls_pki_types::CertificateDer::from_pem_slice(ca.pem().as_bytes()).is_ok());
}
