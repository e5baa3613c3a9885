//! What is told about tunnels.

use wolfpack_proto::tunnel::v1::tunnel_service_client::TunnelServiceClient;
use wolfpack_proto::tunnel::v1::watch_tunnels_response::Event;
use wolfpack_proto::tunnel::v1::{ListTunnelsRequest, WatchTunnelsRequest};
use wolfpack_rpc::from_status;
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, Fault, ProjectId, Reason, SandboxId};

use crate::support::{Fleet, attached};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_and_watches_go_on_each_for_its_caller() {
    let fleet = Fleet::start().await;
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let mut names = Vec::new();
    for project in [&mine, &theirs, &mine, &mine] {
        let sandbox = SandboxId::new();
        let config = AgentTunnelConfig::new(Endpoint::Sandbox(sandbox.clone()), "9.9");
        let mut builder = AgentTunnel::builder(config, fleet.sandbox_channel(&sandbox, project));
        let _listener = builder.listen("agent");
        attached(&builder.start(&fleet.context.supervisor)).await;
        names.push((sandbox, project.clone()));
    }
    let key = |project: &ProjectId| secrecy::SecretString::from(format!("wp_{project}"));
    let mut service = TunnelServiceClient::new(fleet.service_channel("registry"));
    let mut user =
        TunnelServiceClient::new(fleet.service_channel("gateway").with_bearer(key(&mine)));

    let all = service.list_tunnels(ListTunnelsRequest::default()).await.unwrap().into_inner();
    assert_eq!((all.tunnels.len(), all.next_page_token.as_str()), (4, ""));
    let one = &all.tunnels[0];
    assert_eq!((one.execution_id.as_str(), one.agent_version.as_str()), ("boot-1", "9.9"));
    assert_eq!(one.targets, ["agent"]);

    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTunnelsRequest { page_size: 2, page_token };
        let page = user.list_tunnels(request).await.unwrap().into_inner();
        assert!(page.tunnels.len() <= 2);
        seen.extend(page.tunnels.into_iter().map(|tunnel| (tunnel.endpoint, tunnel.project)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.is_sorted() && seen.iter().all(|(_, project)| *project == mine.name()));
    let first = ListTunnelsRequest { page_size: 1, page_token: String::new() };
    let foreign = user.list_tunnels(first).await.unwrap().into_inner().next_page_token;
    let request = ListTunnelsRequest { page_size: 1, page_token: foreign };
    let status = service.list_tunnels(request).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::PageTokenInvalid, "a token of another caller");

    let mut events = user.watch_tunnels(WatchTunnelsRequest {}).await.unwrap().into_inner();
    for _ in 0..3 {
        let event = events.message().await.unwrap().unwrap();
        assert!(
            matches!(event.event, Some(Event::Attached(tunnel)) if tunnel.project == mine.name())
        );
    }
    let mark = events.message().await.unwrap().unwrap();
    assert!(matches!(mark.event, Some(Event::Bookmark(mark)) if mark.snapshot_complete));
    let broker = &fleet.running.broker;
    for (sandbox, _) in [&names[1], &names[2]] {
        let session = broker.find(&Endpoint::Sandbox(sandbox.clone())).unwrap();
        broker.detach(&session, &Fault::new(Reason::TunnelLost, "cut by the test"));
    }
    let event = events.message().await.unwrap().unwrap();
    assert!(event.revision > mark.revision);
    let Some(Event::Detached(tunnel)) = event.event else { panic!("not detached: {event:?}") };
    assert_eq!(
        tunnel.endpoint,
        names[2].0.name(),
        "the other project's event is not for this caller"
    );
}
