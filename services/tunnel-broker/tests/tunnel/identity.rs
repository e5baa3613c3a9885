//! Who may be whom, and reach what.

use bytes::Bytes;
use futures::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::{HeartbeatRequest, RegisterWolfRequest, Wolf, WolfCapacity};
use wolfpack_proto::tunnel::v1::agent_tunnel_service_client::AgentTunnelServiceClient;
use wolfpack_proto::tunnel::v1::{
    AttachRequest, AttachResponse, CarryRequest, Hello, Park, attach_request, attach_response,
    carry_request,
};
use wolfpack_rpc::{RpcChannel, from_status};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig, Dialer};
use wolfpack_types::{Endpoint, ProjectId, Reason, SandboxId, WolfId};

use crate::support::{Fleet, SOON, attached, eventually, target};

/// A control stream by hand.
pub(crate) struct Hand {
    pub(crate) client: AgentTunnelServiceClient<RpcChannel>,
    _control: tokio::sync::mpsc::Sender<AttachRequest>,
    pub(crate) messages: tonic::Streaming<AttachResponse>,
    pub(crate) session: String,
}

pub(crate) async fn attach(channel: RpcChannel, endpoint: &str) -> Result<Hand, Reason> {
    let (control, queue) = tokio::sync::mpsc::channel(8);
    let hello = Hello {
        endpoint: endpoint.to_owned(),
        instance_id: "by-hand".to_owned(),
        targets: vec!["port".to_owned()],
        max_connections: 10,
        ..Hello::default()
    };
    control
        .try_send(AttachRequest { message: Some(attach_request::Message::Hello(hello)) })
        .unwrap();
    let mut client = AgentTunnelServiceClient::new(channel.without_deadline());
    let answer = client
        .attach(ReceiverStream::new(queue))
        .await
        .map_err(|status| from_status(&status).reason)?;
    let mut messages = answer.into_inner();
    let first = messages.message().await.map_err(|status| from_status(&status).reason)?;
    let Some(attach_response::Message::Welcome(welcome)) = first.and_then(|first| first.message)
    else {
        panic!("no welcome");
    };
    Ok(Hand { client, _control: control, messages, session: welcome.session_id })
}

impl Hand {
    /// Opens a Carry and waits for its end; the reason, or none while it is
    /// open.
    async fn carry(
        &mut self,
        session: &str,
        dial_id: &[u8],
    ) -> Result<tonic::Streaming<wolfpack_proto::tunnel::v1::CarryResponse>, Reason> {
        let park =
            Park { session_id: session.to_owned(), dial_id: Bytes::copy_from_slice(dial_id) };
        let park = CarryRequest { frame: Some(carry_request::Frame::Park(park)) };
        let frames = futures::stream::once(async { park }).chain(futures::stream::pending());
        let answer = self.client.carry(frames).await;
        answer.map(tonic::Response::into_inner).map_err(|status| from_status(&status).reason)
    }

    async fn next_dial(&mut self) -> Bytes {
        loop {
            let message = self.messages.message().await.unwrap().unwrap().message;
            if let Some(attach_response::Message::Dial(dial)) = message {
                return dial.dial_id;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_attaches_only_as_itself() {
    let fleet = Fleet::start().await;
    let (a, b) = (WolfId::new(), WolfId::new());
    let agents = fleet.running.addresses.agents;
    assert!(attach(fleet.wolf_channel(&a, agents), &a.name()).await.is_ok());
    let other = attach(fleet.wolf_channel(&a, agents), &b.name()).await;
    assert_eq!(other.err(), Some(Reason::EndpointForbidden));
    let (sandbox, project) = (SandboxId::new(), ProjectId::new());
    let channel = fleet.sandbox_channel(&sandbox, &project);
    assert_eq!(attach(channel.clone(), &a.name()).await.err(), Some(Reason::EndpointForbidden));
    let other = attach(channel.clone(), &SandboxId::new().name()).await;
    assert_eq!(other.err(), Some(Reason::EndpointForbidden));
    assert!(attach(channel, &sandbox.name()).await.is_ok());
    // Neither without any credential nor as a service.
    let nobody = crate::support::channel(
        agents,
        &wolfpack_rpc::ClientTls::roots_only(fleet.ca.pem().as_bytes()).unwrap(),
    );
    assert_eq!(attach(nobody, &a.name()).await.err(), Some(Reason::CredentialMissing));
    let manager = fleet.ca.service(fleet.folder.path(), "sandbox-manager");
    let service =
        crate::support::channel(agents, &wolfpack_rpc::ClientTls::load(&manager).unwrap());
    assert_eq!(attach(service, &a.name()).await.err(), Some(Reason::CallerForbidden));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_replayed_and_foreign_dial_ids_are_refused() {
    let fleet = Fleet::start().await;
    let (a, b) = (WolfId::new(), WolfId::new());
    let agents = fleet.running.addresses.agents;
    let mut good = attach(fleet.wolf_channel(&a, agents), &a.name()).await.unwrap();
    let mut evil = attach(fleet.wolf_channel(&b, agents), &b.name()).await.unwrap();
    let (endpoint, dialer) = (Endpoint::Wolf(a.clone()), fleet.dialer());
    let dial = tokio::spawn(async move { dialer.dial(&endpoint, &target("port"), SOON).await });
    let id = good.next_dial().await;
    assert_eq!(id.len(), 16);

    let session = good.session.clone();
    assert_eq!(
        evil.carry(&session, &id).await.err(),
        Some(Reason::SessionUnknown),
        "another's session"
    );
    let own = evil.session.clone();
    assert_eq!(evil.carry(&own, &id).await.err(), Some(Reason::DialUnknown), "another's dial id");
    assert_eq!(evil.carry("nonsense", &id).await.err(), Some(Reason::SessionUnknown));
    assert_eq!(good.carry(&session, &[7; 16]).await.err(), Some(Reason::DialUnknown), "forged");
    assert_eq!(good.carry(&session, &id[..15]).await.err(), Some(Reason::DialUnknown), "cut");
    let mut carried = good.carry(&session, &id).await.expect("the right one");
    let open = carried.message().await.unwrap().unwrap();
    assert!(matches!(open.frame, Some(wolfpack_proto::tunnel::v1::carry_response::Frame::Open(_))));
    assert_eq!(good.carry(&session, &id).await.err(), Some(Reason::DialUnknown), "replayed");
    dial.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_that_is_taken_back_is_taken_back_from_the_agent() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut hand = attach(fleet.wolf_channel(&wolf, fleet.running.addresses.agents), &wolf.name())
        .await
        .unwrap();
    let (endpoint, dialer) = (Endpoint::Wolf(wolf), fleet.dialer());
    let dial = tokio::spawn(async move { dialer.dial(&endpoint, &target("port"), SOON).await });
    let id = hand.next_dial().await;
    dial.abort();
    let cancelled = loop {
        let message = hand.messages.message().await.unwrap().unwrap().message;
        if let Some(attach_response::Message::CancelDial(cancel)) = message {
            break cancel.dial_id;
        }
    };
    assert_eq!(cancelled, id);
    let session = hand.session.clone();
    assert_eq!(hand.carry(&session, &id).await.err(), Some(Reason::DialUnknown));
    fleet.counts([Some(1), Some(0), Some(0), Some(0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_handed_to_a_dying_stream_is_tried_on_another_unless_it_said_something() {
    for first in [Bytes::new(), Bytes::from_static(b"once")] {
        let fleet = Fleet::start().await;
        let wolf = WolfId::new();
        let channel = fleet.wolf_channel(&wolf, fleet.running.addresses.agents);
        let mut hand = attach(channel, &wolf.name()).await.unwrap();
        let session = hand.session.clone();
        // Parked first, so taken last.
        let mut answers = hand.carry(&session, b"").await.unwrap();
        let (frames, queue) = tokio::sync::mpsc::channel(1);
        let park = Park { session_id: session, dial_id: Bytes::new() };
        let park = CarryRequest { frame: Some(carry_request::Frame::Park(park)) };
        frames.try_send(park).unwrap();
        let mut dying = hand.client.carry(ReceiverStream::new(queue)).await.unwrap().into_inner();
        fleet.counts([Some(1), Some(2), None, None]).await;
        let (endpoint, dialer, said) = (Endpoint::Wolf(wolf), fleet.dialer(), first.clone());
        let dial =
            tokio::spawn(
                async move { dialer.dial_with(&endpoint, &target("port"), SOON, said).await },
            );
        assert!(dying.message().await.unwrap().is_some(), "it got the open");
        drop((dying, frames));
        let again = tokio::time::timeout(SOON, answers.message());
        if first.is_empty() {
            assert!(again.await.expect("tried again").unwrap().is_some());
            dial.abort();
        } else {
            // Its target may have heard them.
            let fault = tokio::time::timeout(SOON, dial).await.unwrap().unwrap().unwrap_err();
            assert_eq!(fault.reason, Reason::TunnelLost);
            fleet.counts([Some(1), Some(1), Some(0), Some(0)]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_that_waits_has_its_part_of_the_budget_as_its_caller_may_send_ahead() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let channel = fleet.wolf_channel(&wolf, fleet.running.addresses.agents);
    // It is asked for streams, and opens none.
    let _deaf = attach(channel, &wolf.name()).await.unwrap();
    let budget = &fleet.running.broker.budget;
    let before = budget.held();
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (endpoint, dialer) = (Endpoint::Wolf(wolf.clone()), fleet.dialer());
        dials.spawn(async move { dialer.dial(&endpoint, &target("port"), SOON).await });
    }
    let held = || format!("{} and {before} before", budget.held());
    eventually(|| budget.held() == before + 3, held).await;
    dials.shutdown().await;
    eventually(|| budget.held() == before, held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_reach_what_their_row_says() {
    let fleet = Fleet::start().await;
    fleet.registry.followed().await;
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let sandbox = SandboxId::new();
    let endpoint = Endpoint::Sandbox(sandbox.clone());
    let config = AgentTunnelConfig::new(endpoint.clone(), "test");
    let mut builder = AgentTunnel::builder(config, fleet.sandbox_channel(&sandbox, &mine));
    let mut agent_target = builder.listen("agent");
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;

    let as_user = |project: &ProjectId| {
        let key = secrecy::SecretString::from(format!("wp_{project}"));
        Dialer::new(fleet.service_channel("gateway").with_bearer(key))
    };
    let agent_of = target("agent");
    let reason =
        |result: Result<_, wolfpack_types::Fault>| result.map(drop).map_err(|fault| fault.reason);
    let short = std::time::Duration::from_secs(5);
    assert_eq!(
        reason(as_user(&mine).dial(&endpoint, &agent_of, short).await),
        Err(Reason::TargetForbidden),
        "one's own, which is not for users"
    );
    assert_eq!(
        reason(as_user(&theirs).dial(&endpoint, &agent_of, short).await),
        Err(Reason::EndpointNotFound)
    );
    let absent = Endpoint::Sandbox(SandboxId::new());
    assert_eq!(
        reason(as_user(&mine).dial(&absent, &agent_of, short).await),
        Err(Reason::EndpointNotFound)
    );
    let gateway = Dialer::new(fleet.service_channel("gateway"));
    assert_eq!(
        reason(gateway.dial(&endpoint, &agent_of, short).await),
        Err(Reason::CredentialMissing),
        "what the gateway passes on without a key is nobody's"
    );
    let scheduler = Dialer::new(fleet.service_channel("scheduler"));
    assert_eq!(
        reason(scheduler.dial(&endpoint, &agent_of, short).await),
        Err(Reason::CallerForbidden)
    );
    assert_eq!(reason(fleet.dialer().dial(&endpoint, &agent_of, short).await), Ok(()));
    assert!(agent_target.accept().await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_sandbox_loses_its_live_tunnel() {
    let fleet = Fleet::start().await;
    fleet.registry.followed().await;
    let (sandbox, project) = (SandboxId::new(), ProjectId::new());
    let hand = attach(fleet.sandbox_channel(&sandbox, &project), &sandbox.name()).await.unwrap();
    let mut messages = hand.messages;
    fleet.registry.revoke(&sandbox.name(), "another-boot");
    fleet.registry.revoke(&SandboxId::new().name(), "");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(fleet.running.broker.counts()[0], 1, "neither another boot nor another sandbox");
    fleet.registry.revoke(&sandbox.name(), "boot-1");
    let status =
        tokio::time::timeout(SOON, messages.message()).await.expect("ends at once").unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::SandboxTokenRevoked);
    fleet.counts([Some(0), None, None, None]).await;
}

/// The boot ends while its agent has authenticated and not yet said hello.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_that_is_revoked_before_its_hello_does_not_attach() {
    let fleet = Fleet::start().await;
    let (sandbox, project) = (SandboxId::new(), ProjectId::new());
    let channel = fleet.sandbox_channel(&sandbox, &project).without_deadline();
    let (control, queue) = tokio::sync::mpsc::channel::<AttachRequest>(8);
    let mut client = AgentTunnelServiceClient::new(channel);
    let answer = tokio::spawn(async move { client.attach(ReceiverStream::new(queue)).await });
    // Longer than authentication takes, shorter than the wait for a hello.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    fleet.running.standings.end_sandbox(&sandbox, None);
    let hello = Hello {
        endpoint: sandbox.name(),
        instance_id: "late".to_owned(),
        max_connections: 1,
        ..Hello::default()
    };
    let hello = AttachRequest { message: Some(attach_request::Message::Hello(hello)) };
    let _ = control.send(hello).await;
    let status = tokio::time::timeout(SOON, answer).await.unwrap().unwrap().unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::SandboxTokenRevoked);
    assert_eq!(fleet.running.broker.counts()[0], 0);
    drop(control);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_port_passes_a_wolfs_calls_on_in_its_name() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut client =
        WolfServiceClient::new(fleet.wolf_channel(&wolf, fleet.running.addresses.agents));
    let register = RegisterWolfRequest {
        capacity: Some(WolfCapacity::default()),
        instance_id: "one".to_owned(),
        ..RegisterWolfRequest::default()
    };
    let mut request = tonic::Request::new(register.clone());
    request.metadata_mut().insert("wolfpack-on-behalf-of", WolfId::new().name().parse().unwrap());
    let answer = client.register_wolf(request).await.unwrap().into_inner();
    assert_eq!(answer.wolf.unwrap().name, wolf.name(), "by certificate, whatever a header says");
    // The fake registry has no heartbeat: its own answer comes back.
    let beats = futures::stream::iter([HeartbeatRequest::default()]);
    let status = client.heartbeat(beats).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::RouteNotFound);

    let sandbox = fleet.sandbox_channel(&SandboxId::new(), &ProjectId::new());
    let status = WolfServiceClient::new(sandbox).register_wolf(register).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::CallerForbidden);
    let dialer = Dialer::new(fleet.wolf_channel(&wolf, fleet.running.addresses.agents));
    let fault = dialer.dial(&Endpoint::Wolf(wolf), &target("port"), SOON).await.unwrap_err();
    assert_eq!(fault.reason, Reason::CallerForbidden, "agents do not dial");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_of_wolves_come_from_the_registry() {
    let fleet = Fleet::start().await;
    fleet.registry.followed().await;
    let (wolf, project) = (WolfId::new(), ProjectId::new());
    fleet.registry.upsert(Wolf { name: wolf.name(), project: project.name(), ..Wolf::default() });
    let known =
        || fleet.running.broker.owner(&Endpoint::Wolf(wolf.clone())).name() == project.name();
    eventually(known, || "the owner is known".into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaches_and_pending_dials_are_bounded() {
    let fleet = Fleet::with(|config| {
        config.limits.attaches_per_second = 1;
        config.limits.pending_dials = 3;
    })
    .await;
    let agents = fleet.running.addresses.agents;
    let wolf = WolfId::new();
    let mut hand = attach(fleet.wolf_channel(&wolf, agents), &wolf.name()).await.unwrap();
    let other = WolfId::new();
    let refused = attach(fleet.wolf_channel(&other, agents), &other.name()).await;
    assert_eq!(refused.err(), Some(Reason::HandshakesLimited));
    // An agent that opens no streams holds up its own dials only.
    let (endpoint, dialer) = (Endpoint::Wolf(wolf), fleet.dialer());
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (dialer, endpoint) = (dialer.clone(), endpoint.clone());
        waiting.spawn(async move { dialer.dial(&endpoint, &target("port"), SOON).await.map(drop) });
        hand.next_dial().await;
    }
    let fault = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap_err();
    assert_eq!(fault.reason, Reason::DialsLimited);
    // When the agent goes, they wait for it to come back, and take nothing.
    drop(hand);
    fleet.counts([Some(0), Some(0), None, Some(3)]).await;
    waiting.shutdown().await;
    fleet.counts([Some(0), Some(0), Some(0), Some(0)]).await;
}
