//! TCP ports as targets: whose they are at the broker, and what the agents let
//! be dialed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wolfpack_runtime::Supervisor;
use wolfpack_tunnel::tcp::{TcpPolicy, TcpTargets, Words};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig, Dialer};
use wolfpack_types::{Endpoint, ExecutionId, ProjectId, Reason, SandboxId, Target};
use wolfpack_wolf_agent::config::TargetsConfig;

use crate::host_targets::{user, wolf};
use crate::support::{Fleet, SOON, attached, echo, eventually, sink_then_send, target};
use crate::support::{checksum, pattern};

/// A sandbox that is attached and lets these ports be dialed.
async fn sandbox(
    fleet: &Fleet,
    id: &SandboxId,
    project: &ProjectId,
    ports: &[u16],
) -> (Endpoint, Supervisor) {
    let endpoint = Endpoint::Sandbox(id.clone());
    let config = AgentTunnelConfig::new(endpoint.clone(), "test");
    let mut builder = AgentTunnel::builder(config, fleet.sandbox_channel(id, project));
    let ports = ports.iter().map(|port| port.to_string().parse().unwrap()).collect();
    let policy = TcpPolicy { loopback: ports, ..TcpPolicy::default() };
    let words = Words { of: "sandbox", setting: "its policy" };
    builder.dial_family(Target::TCP, Arc::new(TcpTargets::new(policy, words, 64)));
    let tasks = fleet.context.supervisor.child();
    attached(&builder.start(&tasks)).await;
    (endpoint, tasks)
}

fn tcp(address: SocketAddr) -> Target {
    target(&format!("tcp:{}", address.port()))
}

async fn refused(dialer: &Dialer, endpoint: &Endpoint, target: &Target) -> Reason {
    dialer.dial(endpoint, target, SOON).await.unwrap_err().reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn developers_reach_ports_of_their_sandboxes_byte_for_byte_and_nobody_else_does() {
    let fleet = Fleet::start().await;
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let (listens, denied) = (sink_then_send(300_000).await, echo().await);
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let id = SandboxId::new();
    let (endpoint, _tasks) = sandbox(&fleet, &id, &mine, &[listens.port(), free.port()]).await;
    let developer = user(&fleet, &mine, "");

    let mut stream = developer.dial(&endpoint, &tcp(listens), SOON).await.unwrap();
    let up = pattern(200_000);
    stream.write_all(&up).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read_u64().await.unwrap(), up.len() as u64, "our end passed, alone");
    assert_eq!(stream.read_u64().await.unwrap(), checksum(&up));
    let mut down = Vec::new();
    stream.read_to_end(&mut down).await.unwrap();
    assert!(down == pattern(300_000));
    stream.close().await.unwrap();

    // The agent has the final say, and says what to do.
    let fault = developer.dial(&endpoint, &tcp(denied), SOON).await.unwrap_err();
    assert_eq!(fault.reason, Reason::TargetForbidden);
    assert!(fault.message.contains("allow it in its policy"), "{fault}");
    let fault = developer.dial(&endpoint, &tcp(free), SOON).await.unwrap_err();
    assert_eq!(fault.reason, Reason::TargetUnreachable);
    assert!(fault.message.contains("nothing listens"), "{fault}");
    // So does the broker: not even the agent's own service, nor nonsense.
    assert_eq!(refused(&developer, &endpoint, &target("agent")).await, Reason::TargetForbidden);
    for name in ["tcp:0", "tcp:x", "tcp"] {
        let fault = developer.dial(&endpoint, &target(name), SOON).await.unwrap_err();
        assert_eq!(fault.reason, Reason::RequestInvalid, "{name}");
        assert!(fault.message.contains("such as tcp:8080"), "{fault}");
    }
    // Allowed, and not offered by this agent.
    let reason = refused(&developer, &endpoint, &target("desktop")).await;
    assert_eq!(reason, Reason::TargetForbidden);
    for (project, rank) in [(&theirs, ".admin"), (&theirs, ".platform")] {
        let stranger = user(&fleet, project, rank);
        let reason = refused(&stranger, &endpoint, &tcp(listens)).await;
        assert_eq!(reason, Reason::EndpointNotFound, "{rank}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_passes_both_ways_and_is_never_an_end() {
    let fleet = Fleet::start().await;
    let project = ProjectId::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (endpoint, _tasks) = sandbox(&fleet, &SandboxId::new(), &project, &[address.port()]).await;
    let developer = user(&fleet, &project, "");

    // The target resets in the middle of something.
    let mut stream = developer.dial(&endpoint, &tcp(address), SOON).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    far.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    stream.read_exact(&mut half).await.unwrap();
    far.set_zero_linger().unwrap();
    drop(far);
    let end = tokio::time::timeout(SOON, stream.read(&mut half)).await.unwrap();
    let error = end.expect_err("not an end");
    assert!(error.to_string().contains("CONNECTION_RESET"), "{error}");

    // The caller gives up in the middle of something.
    let mut stream = developer.dial(&endpoint, &tcp(address), SOON).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    stream.write_all(b"half").await.unwrap();
    far.read_exact(&mut half).await.unwrap();
    drop(stream);
    let end = tokio::time::timeout(SOON, far.read(&mut half)).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_a_wolf_are_its_admins_and_none_until_they_are_allowed() {
    let fleet = Fleet::start().await;
    let (project, other) = (ProjectId::new(), ProjectId::new());
    let (here, mapped) = (echo().await, echo().await);
    let quiet = TargetsConfig {
        wolf_api: std::path::PathBuf::new(),
        moonlight_web: String::new(),
        ..TargetsConfig::default()
    };
    let closed = wolf(&fleet, Some(&project), &quiet).await;
    let rows = vec![here.port().to_string(), format!("9=127.0.0.1:{}", mapped.port())];
    let open = wolf(&fleet, Some(&project), &TargetsConfig { tcp: rows, ..quiet.clone() }).await;
    // A name that leads to the wolf itself without saying so: one that every
    // machine has, by its other spelling.
    let rows = vec![format!("9=ip6-localhost:{}", mapped.port()), "10=169.254.169.254:80".into()];
    let sly = wolf(&fleet, Some(&project), &TargetsConfig { tcp: rows, ..quiet }).await;

    let admin = user(&fleet, &project, ".admin");
    for target in [tcp(here), target("tcp:9")] {
        let mut stream = admin.dial(&open, &target, SOON).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"hello", "{target}");
        let fault = admin.dial(&closed, &target, SOON).await.unwrap_err();
        assert_eq!(fault.reason, Reason::TargetForbidden, "{target}");
        assert!(fault.message.contains("targets.tcp in the wolf's configuration"), "{fault}");
    }
    assert_eq!(refused(&admin, &open, &tcp(mapped)).await, Reason::TargetForbidden);
    let fault = admin.dial(&sly, &target("tcp:10"), SOON).await.unwrap_err();
    assert_eq!(fault.reason, Reason::TargetForbidden);
    assert!(fault.message.contains("link-local"), "{fault}");
    // Where the machine does not know that name it has no address.
    let reason = refused(&admin, &sly, &target("tcp:9")).await;
    assert!([Reason::TargetForbidden, Reason::TargetUnreachable].contains(&reason), "{reason}");

    for (project, rank, reason) in [
        (&project, "", Reason::TargetForbidden),
        (&other, ".admin", Reason::EndpointNotFound),
        (&other, ".platform", Reason::EndpointNotFound),
    ] {
        let dialer = user(&fleet, project, rank);
        assert_eq!(refused(&dialer, &open, &tcp(here)).await, reason, "{rank}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_is_away_is_waited_for_by_its_owner_until_it_is_gone_for_good() {
    let fleet = Fleet::start().await;
    fleet.registry.followed().await;
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let (id, here) = (SandboxId::new(), echo().await);
    let (owner, stranger) = (user(&fleet, &mine, ""), user(&fleet, &theirs, ".admin"));
    let never = Endpoint::Sandbox(SandboxId::new());
    assert_eq!(refused(&owner, &never, &tcp(here)).await, Reason::EndpointNotFound);

    let (endpoint, tasks) = sandbox(&fleet, &id, &mine, &[here.port()]).await;
    tasks.shutdown(SOON).await;
    fleet.counts([Some(0), None, None, None]).await;
    assert_eq!(refused(&stranger, &endpoint, &tcp(here)).await, Reason::EndpointNotFound);
    let late = owner.dial(&endpoint, &tcp(here), Duration::from_millis(50)).await;
    assert_eq!(late.unwrap_err().reason, Reason::DialTimeout, "it was waited for");
    let (waiting, to, dialed) = (owner.clone(), endpoint.clone(), tcp(here));
    let waits = tokio::spawn(async move { waiting.dial(&to, &dialed, SOON).await.map(drop) });
    fleet.counts([Some(0), None, None, Some(1)]).await;
    // The end of a boot is not that of the sandbox.
    fleet.registry.revoke(&id.name(), ExecutionId::new().as_str());
    let (_, tasks) = sandbox(&fleet, &id, &mine, &[here.port()]).await;
    waits.await.unwrap().expect("it came back");

    tasks.shutdown(SOON).await;
    fleet.counts([Some(0), None, None, None]).await;
    fleet.registry.revoke(&id.name(), "");
    let broker = &fleet.running.broker;
    let unknown = wolfpack_tunnel_broker::domain::access::Owner::Unknown;
    eventually(|| broker.owner(&endpoint) == unknown, || "it is forgotten".into()).await;
    assert_eq!(refused(&owner, &endpoint, &tcp(here)).await, Reason::EndpointNotFound);
}
