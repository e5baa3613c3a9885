//! One tunnel looked at, and ended.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Response;
use wolfpack_proto::tunnel::v1::tunnel_service_client::TunnelServiceClient;
use wolfpack_proto::tunnel::v1::{
    CloseTunnelRequest, CloseTunnelResponse, GetTunnelRequest, ListTunnelsRequest, Tunnel,
};
use wolfpack_rpc::{RpcChannel, from_status};
use wolfpack_types::{Endpoint, Fault, ProjectId, Reason, SandboxId, WolfId};
use wolfpack_wolf_agent::config::TargetsConfig;

use crate::host_targets::wolf;
use crate::identity::attach;
use crate::support::{Fleet, SOON, echo, eventually, target};

/// The service for a user of a project.
struct Caller(TunnelServiceClient<RpcChannel>);

impl Caller {
    fn user(fleet: &Fleet, project: &ProjectId, rank: &str) -> Self {
        let key = secrecy::SecretString::from(format!("wp_{project}{rank}"));
        Self(TunnelServiceClient::new(fleet.service_channel("gateway").with_bearer(key)))
    }

    fn service(fleet: &Fleet, name: &str) -> Self {
        Self(TunnelServiceClient::new(fleet.service_channel(name)))
    }

    async fn get(&mut self, endpoint: &Endpoint) -> Result<Tunnel, Fault> {
        let request = GetTunnelRequest { endpoint: endpoint.to_string() };
        let answer = self.0.get_tunnel(request).await.map_err(|status| from_status(&status))?;
        Ok(answer.into_inner().tunnel.unwrap())
    }

    /// The session that ended.
    async fn close(&mut self, endpoint: &Endpoint, session: &str) -> Result<String, Reason> {
        self.ask_to_close(endpoint, session).await.map(|answer| answer.session_id)
    }

    async fn ask_to_close(
        &mut self,
        endpoint: &Endpoint,
        session: &str,
    ) -> Result<CloseTunnelResponse, Reason> {
        let request = CloseTunnelRequest {
            endpoint: endpoint.to_string(),
            session_id: session.to_owned(),
            reason: "the test says so".to_owned(),
        };
        let answer = self.0.close_tunnel(request).await;
        answer.map(Response::into_inner).map_err(|status| from_status(&status).reason)
    }
}

fn echoing(port: u16) -> TargetsConfig {
    TargetsConfig {
        wolf_api: std::path::PathBuf::new(),
        moonlight_web: String::new(),
        tcp: vec![port.to_string()],
        ..TargetsConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_is_shown_with_its_bytes_to_those_who_may_see_it() {
    let fleet = Fleet::with(|config| {
        config.limits.connections_per_tunnel = 77;
        config.limits.bytes_per_second = 1 << 30;
    })
    .await;
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let port = echo().await.port();
    let endpoint = wolf(&fleet, Some(&mine), &echoing(port)).await;
    let mut owner = Caller::user(&fleet, &mine, "");
    let tunnel = owner.get(&endpoint).await.unwrap();
    assert_eq!((tunnel.endpoint, tunnel.project), (endpoint.to_string(), mine.name()));
    assert_eq!(tunnel.targets, ["tcp:*"]);
    let limits = tunnel.limits.unwrap();
    assert_eq!((limits.max_connections, limits.bytes_per_second), (77, 1 << 30));
    assert_eq!((tunnel.bytes_up, tunnel.bytes_down), (0, 0));

    let to = target(&format!("tcp:{port}"));
    let mut stream = fleet.dialer().dial(&endpoint, &to, SOON).await.unwrap();
    stream.write_all(&[7; 10_000]).await.unwrap();
    stream.read_exact(&mut [0; 10_000]).await.unwrap();
    let open = owner.get(&endpoint).await.unwrap();
    assert!(open.bytes_up >= 10_000 && open.bytes_down >= 10_000, "{open:?}");
    assert_eq!(open.connections, 1);
    stream.shutdown().await.unwrap();
    stream.close().await.unwrap();
    fleet.counts([Some(1), None, Some(0), None]).await;
    let over = owner.get(&endpoint).await.unwrap();
    assert!(over.bytes_up >= open.bytes_up && over.bytes_down >= open.bytes_down, "{over:?}");

    let mut stranger = Caller::user(&fleet, &theirs, ".platform");
    assert_eq!(stranger.get(&endpoint).await.unwrap_err().reason, Reason::EndpointNotFound);
    let away = Endpoint::Wolf(WolfId::new());
    let (foreign, absent) = (stranger.get(&endpoint).await, owner.get(&away).await);
    let words = |answer: Result<Tunnel, Fault>, of: &Endpoint| {
        answer.unwrap_err().to_string().replace(&of.to_string(), "")
    };
    assert_eq!(words(foreign, &endpoint), words(absent, &away), "nobody can tell them apart");
    let odd = owner.0.get_tunnel(GetTunnelRequest { endpoint: "users/a".into() }).await;
    assert_eq!(from_status(&odd.unwrap_err()).reason, Reason::RequestInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_is_closed_by_its_owners_with_a_word_to_everybody_and_comes_back() {
    let fleet = Fleet::start().await;
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let port = echo().await.port();
    let endpoint = wolf(&fleet, Some(&mine), &echoing(port)).await;
    let shared = wolf(&fleet, None, &echoing(port)).await;
    let admin = || Caller::user(&fleet, &mine, ".admin");
    for (mut caller, endpoint, reason) in [
        (Caller::user(&fleet, &mine, ""), &endpoint, Reason::RoleTooLow),
        (Caller::user(&fleet, &theirs, ".platform"), &endpoint, Reason::EndpointNotFound),
        (admin(), &shared, Reason::CallerForbidden),
        (admin(), &Endpoint::Sandbox(SandboxId::new()), Reason::EndpointNotFound),
        // What it passes on without a key is nobody's.
        (Caller::service(&fleet, "gateway"), &endpoint, Reason::CredentialMissing),
    ] {
        assert_eq!(caller.close(endpoint, "").await, Err(reason), "{endpoint}");
    }

    let first = admin().get(&endpoint).await.unwrap().session_id;
    let to = target(&format!("tcp:{port}"));
    let mut stream = fleet.dialer().dial(&endpoint, &to, SOON).await.unwrap();
    let left = admin().ask_to_close(&endpoint, "another").await.unwrap();
    assert_eq!(left.session_id, "", "not that one");
    assert_eq!(left.attached_session_id, first, "and which one it is, is told");
    stream.write_all(b"x").await.unwrap();
    stream.read_exact(&mut [0]).await.expect("it goes on");
    let ended = admin().ask_to_close(&endpoint, &first).await.unwrap();
    assert_eq!((ended.session_id, ended.attached_session_id), (first.clone(), String::new()));
    let end = tokio::time::timeout(SOON, stream.read(&mut [0])).await.unwrap();
    let error = end.expect_err("not an end");
    assert!(error.to_string().contains("TUNNEL_CLOSED"), "{error}");
    // Once more is no error, and ends no newer one.
    assert_eq!(admin().close(&endpoint, &first).await, Ok(String::new()));
    let broker = &fleet.running.broker;
    eventually(|| broker.find(&endpoint).is_some(), || "its agent comes back".into()).await;
    let second = admin().get(&endpoint).await.unwrap().session_id;
    assert_ne!(second, first);
    assert_eq!(admin().close(&endpoint, &first).await, Ok(String::new()), "a late call");
    assert_eq!(admin().get(&endpoint).await.unwrap().session_id, second);
    fleet.dialer().dial(&endpoint, &to, SOON).await.expect("it serves again");

    let platform = Caller::user(&fleet, &theirs, ".platform").close(&shared, "").await;
    assert!(!platform.unwrap().is_empty());
    for service in ["registry", "scheduler", "sandbox-manager"] {
        let closed = Caller::service(&fleet, service).close(&endpoint, "another").await;
        assert_eq!(closed, Ok(String::new()), "{service}");
    }
    let mut odd = admin();
    let bad = CloseTunnelRequest {
        endpoint: endpoint.to_string(),
        reason: "two\nlines".into(),
        ..CloseTunnelRequest::default()
    };
    let status = odd.0.close_tunnel(bad).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::RequestInvalid);
    let all = odd.0.list_tunnels(ListTunnelsRequest::default()).await.unwrap().into_inner();
    assert!(all.tunnels.iter().any(|tunnel| tunnel.session_id == second), "it is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_told_that_its_tunnel_was_closed_and_why() {
    let fleet = Fleet::start().await;
    let id = WolfId::new();
    let channel = fleet.wolf_channel(&id, fleet.running.addresses.agents);
    let mut hand = attach(channel, &id.name()).await.unwrap();
    let endpoint = Endpoint::Wolf(id);
    let closed = Caller::service(&fleet, "registry").close(&endpoint, "").await;
    assert_eq!(closed.as_ref(), Ok(&hand.session));
    let fault = loop {
        match tokio::time::timeout(SOON, hand.messages.message()).await.expect("it is told") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a clean end says nothing"),
            Err(status) => break from_status(&status),
        }
    };
    assert_eq!(fault.reason, Reason::TunnelClosed);
    assert!(fault.message.contains("the test says so"), "{fault}");
}
