//! Ports of the broker that lead to targets: from a plain socket to a plain
//! socket, with all that a tunnel does in between.

mod failures;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use wolfpack_proto::registry::v1::Wolf;
use wolfpack_proto::tunnel::v1 as wire;
use wolfpack_proto::tunnel::v1::exposure_service_client::ExposureServiceClient;
use wolfpack_rpc::auth::Standings;
use wolfpack_rpc::{RpcChannel, from_status};
use wolfpack_tunnel::AgentTunnel;
use wolfpack_tunnel::tcp::{TcpPolicy, TcpTargets, Words};
use wolfpack_tunnel_broker::domain::access::Owner;
use wolfpack_tunnel_broker::domain::exposure::{ExposureLimits, ExposureRules, ExposureSpec};
use wolfpack_types::{ApiKeyId, Endpoint, ExposureId, ProjectId, Reason, Role, SandboxId, WolfId};

use crate::support::{
    Fleet, SOON, Tcp, attached, echo, eventually, sink_then_send, talker, target,
};
use crate::support::{checksum, pattern};

/// A port of the broker's that leads to `port` of an endpoint.
pub(crate) async fn expose(
    fleet: &Fleet,
    endpoint: &Endpoint,
    limits: ExposureLimits,
) -> SocketAddr {
    // It follows once it runs.
    fleet.registry.followed().await;
    let spec = ExposureSpec {
        id: ExposureId::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        endpoint: endpoint.clone(),
        target: target("port"),
        limits,
        origin: None,
    };
    fleet.running.exposures.open(spec).unwrap().address
}

/// Lets the registry say whose a wolf is.
async fn belongs(fleet: &Fleet, wolf: &WolfId, owner: Owner) {
    fleet.registry.followed().await;
    let name = wolf.name();
    fleet.registry.upsert(Wolf { name, project: owner.name(), ..Wolf::default() });
    let endpoint = Endpoint::Wolf(wolf.clone());
    let heard = || fleet.running.broker.owner(&endpoint) == owner;
    eventually(heard, || format!("{endpoint} is not {owner:?}")).await;
}

async fn exposed(tcp: SocketAddr) -> (Fleet, SocketAddr) {
    let fleet = Fleet::start().await;
    let endpoint = fleet.wolf_to(tcp).await;
    let address = expose(&fleet, &endpoint, ExposureLimits::default()).await;
    (fleet, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_close_is_exact_both_ways() {
    let (fleet, address) = exposed(sink_then_send(2 << 20).await).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let up = pattern(1 << 20);
    socket.write_all(&up).await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(socket.read_u64().await.unwrap(), up.len() as u64);
    assert_eq!(socket.read_u64().await.unwrap(), checksum(&up));
    let mut down = Vec::new();
    socket.read_to_end(&mut down).await.unwrap();
    assert!(down == pattern(2 << 20));
    drop(socket);
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

/// A port of the broker's that leads to `tcp`, dialed as agents of ours dial.
pub(crate) async fn exposed_by_ours(fleet: &Fleet, tcp: SocketAddr) -> (SocketAddr, AgentTunnel) {
    let wolf = WolfId::new();
    let loopback = [tcp.port()].iter().map(|port| port.to_string().parse().unwrap()).collect();
    let policy = TcpPolicy { loopback, ..TcpPolicy::default() };
    let words = Words { of: "wolf", setting: "targets.tcp" };
    let mut builder = fleet.wolf(&wolf);
    builder.dial_family("tcp", std::sync::Arc::new(TcpTargets::new(policy, words, 8)));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    fleet.registry.followed().await;
    let spec = ExposureSpec {
        id: ExposureId::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        endpoint: Endpoint::Wolf(wolf),
        target: target(&format!("tcp:{}", tcp.port())),
        limits: ExposureLimits::default(),
        origin: None,
    };
    (fleet.running.exposures.open(spec).unwrap().address, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_ours_lets_its_ports_be_exposed() {
    let fleet = Fleet::start().await;
    let (address, _) = exposed_by_ours(&fleet, echo().await).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'x');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_break_of_one_socket_is_a_break_of_the_other() {
    let fleet = Fleet::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, _) = exposed_by_ours(&fleet, listener.local_addr().unwrap()).await;
    for targets in [true, false] {
        let client = TcpStream::connect(address).await.unwrap();
        let (reached, _) = listener.accept().await.unwrap();
        let (mut breaks, mut hears) = if targets { (reached, client) } else { (client, reached) };
        breaks.write_all(b"half").await.unwrap();
        hears.read_exact(&mut [0; 4]).await.unwrap();
        breaks.set_zero_linger().unwrap();
        drop(breaks);
        let end = tokio::time::timeout(SOON, hears.read(&mut [0; 1])).await.expect("it hears");
        let kind = end.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::ConnectionReset), "by the target: {targets}");
    }
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_came_before_the_target_was_reached_are_not_lost() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let address = expose(&fleet, &Endpoint::Wolf(wolf.clone()), ExposureLimits::default()).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    // More than travels with a dial; the wolf comes only now.
    let sent = pattern(100_000);
    let (mut reader, mut writer) = socket.split();
    let all = sent.clone();
    let (_, back) = tokio::join!(
        async move {
            writer.write_all(&all).await.unwrap();
            writer.shutdown().await.unwrap();
        },
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut builder = fleet.wolf(&wolf);
            builder.dial_target("port", std::sync::Arc::new(Tcp(echo().await)));
            attached(&builder.start(&fleet.context.supervisor)).await;
            let mut back = Vec::new();
            reader.read_to_end(&mut back).await.unwrap();
            back
        }
    );
    assert!(back == sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_break_on_either_side_is_a_reset_and_never_an_end() {
    let (fleet, address) = exposed(talker().await).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut chunk = vec![0; 64 * 1024];
    socket.read_exact(&mut chunk).await.unwrap();
    // The wolf goes away in the middle.
    let endpoint = fleet.running.broker.list(None, 1, |_| true).remove(0).endpoint;
    let session = fleet.running.broker.find(&Endpoint::parse(&endpoint).unwrap()).unwrap();
    session.close(&wolfpack_types::Fault::new(Reason::TunnelLost, "the test cuts it"));
    let ended = loop {
        match socket.read(&mut chunk).await {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error.kind()),
        }
    };
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    // A client that goes in the middle leaves nothing behind.
    attached_again(&fleet).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.read_exact(&mut chunk).await.unwrap();
    drop(socket);
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

async fn attached_again(fleet: &Fleet) {
    fleet.counts([Some(1), None, None, None]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_a_bound_is_reset_and_the_rest_is_served() {
    let fleet = Fleet::start().await;
    let endpoint = fleet.wolf_to(echo().await).await;
    let limits = ExposureLimits { max_connections: 2, ..ExposureLimits::default() };
    let address = expose(&fleet, &endpoint, limits).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'x');
        held.push(socket);
    }
    let refused = async {
        let mut third = TcpStream::connect(address).await?;
        third.read_u8().await
    };
    let refused = tokio::time::timeout(SOON, refused).await.expect("at once");
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionReset);
    held.pop();
    fleet.counts([Some(1), None, Some(1), Some(0)]).await;
    let again = || async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(b"y").await?;
        socket.read_u8().await
    };
    // The place is given back a moment after the connection is over.
    let end = tokio::time::Instant::now() + SOON;
    while again().await.is_err() {
        assert!(tokio::time::Instant::now() < end, "the place is not given back");
    }
}

/// The rules of a broker that gives out any free port of this machine.
fn rules() -> ExposureRules {
    let any = ExposureRules::any_port_of([127, 0, 0, 1].into());
    ExposureRules { max: 3, max_per_project: 2, ..any }
}

/// Calls as a user of a project, who is an admin of the platform, too.
fn client(fleet: &Fleet, project: &ProjectId, rank: &str) -> ExposureServiceClient<RpcChannel> {
    let key = secrecy::SecretString::from(format!("wp_{project}{rank}"));
    ExposureServiceClient::new(fleet.service_channel("gateway").with_bearer(key))
}

fn ask(endpoint: &Endpoint) -> wire::CreateExposureRequest {
    wire::CreateExposureRequest {
        endpoint: endpoint.to_string(),
        target: "wolf-api".to_owned(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_given_out_by_rpc_shown_to_their_project_and_taken_back() {
    let fleet = Fleet::with(|config| config.exposures.on_request = Some(rules())).await;
    let (own, other) = (ProjectId::new(), ProjectId::new());
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("wolf-api", std::sync::Arc::new(Tcp(echo().await)));
    attached(&builder.start(&fleet.context.supervisor)).await;
    belongs(&fleet, &wolf, Owner::Project(own.clone())).await;
    let endpoint = Endpoint::Wolf(wolf.clone());

    let mut mine = client(&fleet, &own, ".admin");
    let request = wire::CreateExposureRequest { request_id: "once".into(), ..ask(&endpoint) };
    let made = mine.create_exposure(request.clone()).await.unwrap().into_inner().exposure.unwrap();
    let again = mine.create_exposure(request.clone()).await.unwrap().into_inner().exposure.unwrap();
    assert_eq!(made.name, again.name, "the same request");
    let tasks = || fleet.running.context.supervisor.running();
    let before = tasks();
    for _ in 0..200 {
        mine.create_exposure(request.clone()).await.unwrap();
    }
    eventually(|| tasks() < before + 50, || "nothing is left of asking again".to_owned()).await;
    let reused = wire::CreateExposureRequest { target: "moonlight-web".into(), ..request };
    let fault = from_status(&mine.create_exposure(reused).await.unwrap_err());
    assert_eq!(fault.reason, Reason::RequestIdReused);

    let mut socket = TcpStream::connect(&made.listen_address).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'x');

    // Others neither see nor end it, nor get one of their own to this wolf.
    let mut theirs = client(&fleet, &other, ".admin");
    let name = wire::GetExposureRequest { name: made.name.clone() };
    let fault = from_status(&theirs.get_exposure(name.clone()).await.unwrap_err());
    assert_eq!(fault.reason, Reason::ExposureNotFound);
    let gone = wire::DeleteExposureRequest { name: made.name.clone() };
    let fault = from_status(&theirs.delete_exposure(gone.clone()).await.unwrap_err());
    assert_eq!(fault.reason, Reason::ExposureNotFound);
    let fault = from_status(&theirs.create_exposure(ask(&endpoint)).await.unwrap_err());
    assert_eq!(fault.reason, Reason::EndpointNotFound);
    let listed = theirs.list_exposures(wire::ListExposuresRequest::default()).await.unwrap();
    assert!(listed.into_inner().exposures.is_empty());
    let fault =
        from_status(&client(&fleet, &own, "").create_exposure(ask(&endpoint)).await.unwrap_err());
    assert_eq!(fault.reason, Reason::TargetForbidden, "what a developer may not dial");

    // A project has its share.
    mine.create_exposure(ask(&endpoint)).await.unwrap();
    let fault = from_status(&mine.create_exposure(ask(&endpoint)).await.unwrap_err());
    assert_eq!(fault.reason, Reason::ExposuresLimited);
    let page = wire::ListExposuresRequest { page_size: 1, ..Default::default() };
    let first = mine.list_exposures(page.clone()).await.unwrap().into_inner();
    let rest = wire::ListExposuresRequest { page_token: first.next_page_token, ..page };
    let second = mine.list_exposures(rest).await.unwrap().into_inner();
    assert_eq!((first.exposures.len(), second.exposures.len()), (1, 1));
    assert_eq!(second.next_page_token, "");

    // Deleted, it takes its connections with it.
    mine.delete_exposure(gone.clone()).await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(TcpStream::connect(&made.listen_address).await.is_err(), "nobody listens");
    let status = mine.delete_exposure(gone).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    // A wolf that belongs to another lets nobody in.
    let left = second.exposures.into_iter().chain(first.exposures);
    let left = left.into_iter().find(|exposure| exposure.name != made.name).unwrap();
    belongs(&fleet, &wolf, Owner::Project(other)).await;
    let refused = async {
        let mut socket = TcpStream::connect(&left.listen_address).await?;
        socket.read_u8().await
    };
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_ends_with_its_time_and_all_let_nobody_in_while_the_broker_drains() {
    let fleet = Fleet::with(|config| {
        config.exposures.on_request = Some(rules());
        config.drain = Duration::from_secs(10);
    })
    .await;
    let (project, wolf, tcp) = (ProjectId::new(), WolfId::new(), echo().await);
    let mut builder = fleet.wolf(&wolf);
    for target in ["port", "wolf-api"] {
        builder.dial_target(target, std::sync::Arc::new(Tcp(tcp)));
    }
    attached(&builder.start(&fleet.context.supervisor)).await;
    belongs(&fleet, &wolf, Owner::Project(project.clone())).await;
    let endpoint = Endpoint::Wolf(wolf);
    let mut mine = client(&fleet, &project, ".admin");
    let short = wire::CreateExposureRequest {
        lifetime: Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 }),
        ..ask(&endpoint)
    };
    mine.create_exposure(short).await.unwrap();
    eventually(|| fleet.running.exposures.is_empty(), || "its time is over".to_owned()).await;

    let address = expose(&fleet, &endpoint, ExposureLimits::default()).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'x');
    fleet.running.context.supervisor.token().cancel();
    let end = tokio::time::Instant::now() + SOON;
    while TcpStream::connect(address).await.is_ok() {
        assert!(tokio::time::Instant::now() < end, "it still listens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What runs goes on.
    socket.write_all(b"y").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'y');
    socket.shutdown().await.unwrap();
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_told_to_gives_out_nothing() {
    let fleet = Fleet::start().await;
    let (project, sandbox) = (ProjectId::new(), SandboxId::new());
    let mut mine = client(&fleet, &project, ".platform");
    let wolf = WolfId::new();
    belongs(&fleet, &wolf, Owner::Shared).await;
    let fault = from_status(&mine.create_exposure(ask(&Endpoint::Wolf(wolf))).await.unwrap_err());
    assert_eq!(fault.reason, Reason::ExposuresDisabled);
    // What is not theirs is not told apart from what is not there.
    let unknown = ask(&Endpoint::Sandbox(sandbox));
    let fault = from_status(&mine.create_exposure(unknown).await.unwrap_err());
    assert_eq!(fault.reason, Reason::EndpointNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attached_agent_does_not_offer_is_refused_and_one_that_is_away_is_not_asked() {
    let fleet = Fleet::with(|config| config.exposures.on_request = Some(rules())).await;
    let (project, wolf) = (ProjectId::new(), WolfId::new());
    belongs(&fleet, &wolf, Owner::Project(project.clone())).await;
    let mut mine = client(&fleet, &project, ".admin");
    let ssh = wire::CreateExposureRequest {
        target: "tcp:22".to_owned(),
        request_id: "once".to_owned(),
        ..ask(&Endpoint::Wolf(wolf.clone()))
    };
    for target in ["tcp:0", "tcp", "tcp:http", "TCP:22", ""] {
        let odd = wire::CreateExposureRequest { target: target.to_owned(), ..ssh.clone() };
        let fault = from_status(&mine.create_exposure(odd).await.unwrap_err());
        assert_eq!(fault.reason, Reason::RequestInvalid, "{target}");
        assert!(fault.message.contains("such as tcp:8080"), "{fault}");
    }
    mine.create_exposure(ssh.clone()).await.expect("it is away, and may offer it");

    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("wolf-api", std::sync::Arc::new(Tcp(echo().await)));
    attached(&builder.start(&fleet.context.supervisor)).await;
    let fresh = wire::CreateExposureRequest { request_id: String::new(), ..ssh.clone() };
    let fault = from_status(&mine.create_exposure(fresh).await.unwrap_err());
    assert_eq!(fault.reason, Reason::TargetForbidden);
    assert!(fault.message.contains("targets.tcp in the wolf's configuration"), "{fault}");
    assert_eq!(fleet.running.exposures.len(), 1);
    mine.create_exposure(ssh).await.expect("the same request gives what it gave");
    mine.create_exposure(ask(&Endpoint::Wolf(wolf))).await.expect("what it does offer");
}

/// Revoked, of a lower role than it was, or over by its own time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_ends_with_the_key_that_made_it() {
    type End = fn(&Standings, &ApiKeyId);
    let id = ApiKeyId::parse("key").unwrap();
    let lowered: End = |standings, key| standings.change_role(key, Role::Viewer);
    let ends: [(&str, End); 3] =
        [(".admin", Standings::end_key), (".admin", lowered), (".brief", |_, _| {})];
    for (key, end) in ends {
        let fleet = Fleet::with(|config| config.exposures.on_request = Some(rules())).await;
        let (project, wolf) = (ProjectId::new(), WolfId::new());
        belongs(&fleet, &wolf, Owner::Project(project.clone())).await;
        let wanted = ask(&Endpoint::Wolf(wolf));
        client(&fleet, &project, key).create_exposure(wanted).await.unwrap();
        assert_eq!(fleet.running.exposures.len(), 1);
        end(&fleet.running.standings, &id);
        eventually(|| fleet.running.exposures.is_empty(), || format!("its key {key} is void"))
            .await;
    }
}
