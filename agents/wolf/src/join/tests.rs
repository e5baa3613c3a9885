//! Joining and renewing against a registry of which every answer is scripted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rcgen::{CertificateParams, Issuer, KeyPair};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use wolfpack_proto::registry::v1::{
    JoinWolfRequest, JoinWolfResponse, RenewWolfCertificateRequest, RenewWolfCertificateResponse,
};
use wolfpack_rpc::{
    Allow, ByteBudget, ClientAuth, ListenConfig, PeerConfig, PolicyRow, Profile, RpcChannel,
    RpcKind, Server, TlsConfig, to_status,
};
use wolfpack_runtime::Context;
use wolfpack_types::{Fault, Reason, WolfId};

use super::*;

const WAIT: Duration = Duration::from_secs(20);
const JOIN: &str = "/wolfpack.registry.v1.IdentityService/JoinWolf";
const RENEW: &str = "/wolfpack.registry.v1.IdentityService/RenewWolfCertificate";
const POLICY: &[PolicyRow] = &[
    PolicyRow { method: JOIN, allow: Allow::ANYONE, kind: RpcKind::Unary },
    PolicyRow { method: RENEW, allow: Allow::ANYONE, kind: RpcKind::Unary },
];

/// Signs a request for so many days from 2026 on, as the registry would.
pub(super) fn issue(request: &[u8], days: u32) -> Issued {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = ca.self_signed(&key).unwrap();
    let der = rustls_pki_types::CertificateSigningRequestDer::from(request.to_vec());
    let mut asked = rcgen::CertificateSigningRequestParams::from_der(&der).unwrap();
    asked.params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    asked.params.not_after = asked.params.not_before + Duration::from_secs(86_400) * days;
    let leaf = asked.signed_by(&Issuer::from_params(&ca, &key)).unwrap();
    Issued { certificate_chain: leaf.pem(), trust_roots: root.pem() }
}

/// A gateway's TLS files, and the hash of their root.
fn gateway_tls(dir: &Path) -> (TlsConfig, [u8; 32]) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let file = |name: &str, content: String| {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let files = TlsConfig {
        certificate_file: file("chain.pem", format!("{}{}", leaf.pem(), root.pem())),
        key_file: file("key.pem", key.serialize_pem()),
        roots_file: file("roots.pem", root.pem()),
    };
    let hash = ring::digest::digest(&ring::digest::SHA256, root.der());
    (files, hash.as_ref().try_into().unwrap())
}

/// The registry: fails as scripted, then issues.
#[derive(Default)]
struct Registry {
    script: Mutex<VecDeque<Reason>>,
    tokens: Mutex<Vec<String>>,
    renewals: Mutex<usize>,
}

impl Registry {
    fn join(&self, request: JoinWolfRequest) -> Result<JoinWolfResponse, Status> {
        self.tokens.lock().push(request.token);
        if let Some(reason) = self.script.lock().pop_front() {
            return Err(to_status(Fault::new(reason, "scripted")));
        }
        let issued = issue(&request.certificate_request, 3);
        Ok(JoinWolfResponse {
            wolf: "wolves/w1".into(),
            certificate_chain: issued.certificate_chain,
            trust_roots: issued.trust_roots,
            agent_endpoint: ":8444".into(),
            expire_time: None,
        })
    }

    fn renew(
        &self,
        request: &RenewWolfCertificateRequest,
    ) -> Result<RenewWolfCertificateResponse, Status> {
        *self.renewals.lock() += 1;
        let issued = issue(&request.certificate_request, 10_000);
        Ok(RenewWolfCertificateResponse {
            certificate_chain: issued.certificate_chain,
            trust_roots: issued.trust_roots,
            expire_time: None,
        })
    }

    async fn serve(self: &Arc<Self>, context: &Context, tls: Option<TlsConfig>) -> SocketAddr {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listen = ListenConfig { address, tls, client_auth: ClientAuth::Off };
        let listener = listen.bind().await.unwrap();
        let address = listener.local_addr();
        let (joins, renews) = (self.clone(), self.clone());
        let join = tower::service_fn(move |request| {
            let registry = joins.clone();
            async move {
                let answer = tower::service_fn(move |request: Request<JoinWolfRequest>| {
                    std::future::ready(registry.join(request.into_inner()).map(Response::new))
                });
                let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
                Ok::<_, std::convert::Infallible>(grpc.unary(answer, request).await)
            }
        });
        let renew = tower::service_fn(move |request| {
            let registry = renews.clone();
            async move {
                let answer =
                    tower::service_fn(move |request: Request<RenewWolfCertificateRequest>| {
                        std::future::ready(registry.renew(request.get_ref()).map(Response::new))
                    });
                let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
                Ok::<_, std::convert::Infallible>(grpc.unary(answer, request).await)
            }
        });
        let server = Server::builder(context, POLICY, Arc::new(crate::runtime::NoBearers))
            .add_raw(JOIN, join)
            .add_raw(RENEW, renew)
            .listen(listener, Profile::internal())
            .build();
        context.supervisor.spawn_essential("registry", server.serve());
        address
    }
}

fn token(hash: [u8; 32]) -> secrecy::SecretString {
    format!("wpj_1_s3cret_{}", data_encoding::HEXLOWER.encode(&hash)).into()
}

#[tokio::test]
async fn a_wolf_joins_once_where_its_token_says_and_nowhere_else() {
    wolfpack_runtime::install_crypto_provider();
    let context = Context::quiet("wolf");
    let dir = tempfile::tempdir().unwrap();
    let (tls, hash) = gateway_tls(dir.path());
    let registry = Arc::new(Registry::default());
    let server = format!("https://localhost:{}", registry.serve(&context, Some(tls)).await.port());
    let store = IdentityStore::open(dir.path()).unwrap();
    let stop = context.supervisor.token();

    // Another CA than the token's: it never learns the token, and never will.
    let mut other = hash;
    other[0] ^= 1;
    let (stranger, token) = (token(other), token(hash));
    let trying = join(&store, &server, &stranger, "a wolf", &stop);
    let refused = tokio::time::timeout(WAIT, trying).await.expect("it goes on").unwrap_err();
    let told = refused.to_string();
    assert!(told.contains("CA in the token") && !told.contains("s3cret"), "{told}");
    assert!(registry.tokens.lock().is_empty(), "the token was sent to a stranger");
    assert_eq!(store.current(), None);

    // A token that is refused is refused for good.
    registry.script.lock().push_back(Reason::JoinTokenInvalid);
    let refused = join(&store, &server, &token, "a wolf", &stop).await.unwrap_err();
    let told = refused.to_string();
    assert!(told.contains("JOIN_TOKEN_INVALID") && !told.contains("s3cret"), "{told}");
    assert_eq!(registry.tokens.lock().len(), 1);

    // A registry that is away is asked again, with the same key.
    registry.script.lock().extend([Reason::DependencyUnavailable, Reason::Overloaded]);
    let joining = join(&store, &server, &token, "a wolf", &stop);
    tokio::time::timeout(WAIT, joining).await.unwrap().unwrap();
    assert_eq!(registry.tokens.lock().len(), 4);
    let identity = store.current().unwrap();
    assert_eq!(identity.wolf, WolfId::parse("w1").unwrap());
    wolfpack_rpc::ClientTls::load(&store.tls_files()).unwrap();
    context.supervisor.shutdown(WAIT).await;
}

#[tokio::test]
async fn a_certificate_past_two_thirds_of_its_life_is_renewed() {
    wolfpack_runtime::install_crypto_provider();
    let context = Context::quiet("wolf");
    let dir = tempfile::tempdir().unwrap();
    let registry = Arc::new(Registry::default());
    let address = registry.serve(&context, None).await;
    let store = IdentityStore::open(dir.path()).unwrap();
    let issued = issue(&store.certificate_request().unwrap(), 3);
    store.joined(&WolfId::new(), ":8444", &issued).unwrap();
    let before = store.current().unwrap();
    assert!(before.renew_time() < SystemTime::now());

    let peer = PeerConfig::at(format!("http://{address}"));
    let broker =
        RpcChannel::for_tunnel(&peer, "tunnel-broker", None, &ByteBudget::default()).unwrap();
    let (renewing, stop) = (store.clone(), context.supervisor.token());
    context.supervisor.spawn("renewal", async move {
        keep_renewed(&renewing, &broker, &stop).await;
    });
    let begun = std::time::Instant::now();
    while store.current().unwrap().valid == before.valid {
        assert!(begun.elapsed() < WAIT, "it was not renewed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let after = store.current().unwrap();
    assert_eq!(after.wolf, before.wolf);
    assert!(after.renew_time() > SystemTime::now());
    wolfpack_rpc::ClientTls::load(&store.tls_files()).unwrap();
    let report = context.supervisor.shutdown(WAIT).await;
    assert_eq!(report, wolfpack_runtime::ShutdownReport::default());
    assert_eq!(*registry.renewals.lock(), 1, "a fresh certificate is left alone");
}
