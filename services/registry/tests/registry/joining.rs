//! How wolves get in.

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use wolfpack_proto::registry::v1::{CreateJoinTokenRequest, RenewWolfCertificateRequest, Role};
use wolfpack_rpc::{ClientTls, PeerConfig, RpcChannel};
use wolfpack_types::{Reason, WolfId, spiffe};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::fleet::{Identity, csr, each, join_with, reason};

fn names(chain: &str) -> Vec<String> {
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&der).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        other => format!("{other:?}"),
    };
    names.value.general_names.iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_works_once() {
    each(|fleet| async move {
        let token = fleet.join_token("").await;
        let nobody = fleet.nobody();
        let key = KeyPair::generate().unwrap();
        // A bad request does not use it up.
        let refused = join_with(&nobody, &token, b"not a request".to_vec()).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::CertificateRequestInvalid);
        let joined = join_with(&nobody, &token, csr(&key)).await.unwrap();
        assert_eq!(joined.agent_endpoint, "broker.example:8444");
        assert_eq!(joined.trust_roots, fleet.ca.root_pem());
        let id = WolfId::from_name(&joined.wolf).unwrap();
        assert_eq!(names(&joined.certificate_chain), [spiffe::wolf(&id)]);
        let again = join_with(&nobody, &token, csr(&key)).await.unwrap_err();
        assert_eq!(reason(&again), Reason::JoinTokenInvalid);
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_are_all_alike() {
    each(|fleet| async move {
        let token = fleet.join_token("").await;
        let parts: Vec<&str> = token.split('_').collect();
        let (id, secret, hash) = (parts[1], parts[2], parts[3]);
        let zeros = "0".repeat(64);
        let key = KeyPair::generate().unwrap();
        for wrong in [
            format!("wpj_{id}_{zeros}_{hash}"),
            format!("wpj_{id}_{secret}_{zeros}"),
            format!("wpj_{}_{secret}_{hash}", WolfId::new()),
            token[..token.len() - 1].to_owned(),
            "nonsense".to_owned(),
        ] {
            let refused = join_with(&fleet.nobody(), &wrong, csr(&key)).await.unwrap_err();
            assert_eq!(reason(&refused), Reason::JoinTokenInvalid, "{wrong}");
            // Nothing else is looked at first, least of all signed.
            let refused =
                join_with(&fleet.nobody(), &wrong, b"not a request".to_vec()).await.unwrap_err();
            assert_eq!(reason(&refused), Reason::JoinTokenInvalid, "{wrong}");
        }
        // None of it used the good one up.
        join_with(&fleet.nobody(), &token, csr(&key)).await.unwrap();
        let short = CreateJoinTokenRequest {
            ttl: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
            ..CreateJoinTokenRequest::default()
        };
        let short = fleet.identity().create_join_token(short).await.unwrap().into_inner().token;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        for request in [csr(&key), b"not a request".to_vec()] {
            let late = join_with(&fleet.nobody(), &short, request).await.unwrap_err();
            assert_eq!(reason(&late), Reason::JoinTokenInvalid);
        }
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wolf_that_knows_only_its_token_meets_the_right_ca_or_nobody() {
    each(|fleet| async move {
        let token = fleet.join_token("").await;
        let hash = token.rsplit('_').next().unwrap();
        let hash: [u8; 32] =
            data_encoding::HEXLOWER.decode(hash.as_bytes()).unwrap().try_into().unwrap();
        let meet = |hash| {
            let tls = ClientTls::pinned_ca(hash);
            RpcChannel::to_service(&PeerConfig::at(&fleet.address), "registry", Some(&tls)).unwrap()
        };
        let key = KeyPair::generate().unwrap();
        let wrong = join_with(&meet([7; 32]), &token, csr(&key)).await.unwrap_err();
        assert_eq!(wrong.code(), tonic::Code::Unavailable);
        join_with(&meet(hash), &token, csr(&key)).await.unwrap();
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_name_in_a_request_is_ignored_and_a_certificate_renews() {
    each(|fleet| async move {
        let wolf = fleet.join("").await;
        let key = KeyPair::generate().unwrap();
        let mut forged = CertificateParams::new(vec!["registry.example".to_owned()]).unwrap();
        let uri = spiffe::service("sandbox-manager").try_into().unwrap();
        forged.subject_alt_names.push(SanType::URI(uri));
        let forged = forged.serialize_request(&key).unwrap().der().to_vec();
        let token = fleet.join_token("").await;
        let joined = join_with(&fleet.nobody(), &token, forged.clone()).await.unwrap();
        let id = WolfId::from_name(&joined.wolf).unwrap();
        assert_eq!(names(&joined.certificate_chain), [spiffe::wolf(&id)]);

        let renew = RenewWolfCertificateRequest { certificate_request: forged.into() };
        let mut client = Identity::new(wolf.channel.clone());
        let renewed = client.renew_wolf_certificate(renew).await.unwrap().into_inner();
        assert_eq!(names(&renewed.certificate_chain), [spiffe::wolf(&wolf.id)]);
        let fresh = fleet.wolf(&renewed.certificate_chain, &key);
        let registration = crate::fleet::registration("i");
        crate::fleet::Wolves::new(fresh).register_wolf(registration).await.unwrap();
        // A key that is not the request's own.
        let (mine, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut stolen = csr(&mine);
        let at = stolen.windows(65).position(|part| part == mine.public_key_raw()).unwrap();
        stolen[at..at + 65].copy_from_slice(other.public_key_raw());
        let renew = RenewWolfCertificateRequest { certificate_request: stolen.into() };
        let refused = client.renew_wolf_certificate(renew).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::CertificateRequestInvalid);
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn project_admins_let_in_wolves_of_their_project_only() {
    each(|fleet| async move {
        let admin = fleet.member(Role::Admin).await;
        let developer = fleet.member_of(&admin.project, Role::Developer).await;
        let ask = |key: &str, project: String| {
            let mut identity = Identity::new(fleet.bearer(key));
            async move {
                let request = CreateJoinTokenRequest { project, ttl: None };
                identity.create_join_token(request).await.map_err(|status| reason(&status))
            }
        };
        assert!(ask(&admin.key, admin.project.name()).await.is_ok());
        let shared = ask(&admin.key, String::new()).await;
        assert_eq!(shared.err(), Some(Reason::RoleTooLow));
        let foreign = ask(&admin.key, fleet.admin.project.name()).await;
        assert_eq!(foreign.err(), Some(Reason::ProjectNotFound));
        let low = ask(&developer.key, developer.project.name()).await;
        assert_eq!(low.err(), Some(Reason::RoleTooLow));
        let nowhere = ask(&fleet.admin.key, "projects/nowhere".to_owned()).await;
        assert_eq!(nowhere.err(), Some(Reason::ProjectNotFound));
        fleet
    })
    .await;
}
