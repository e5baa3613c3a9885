//! Watches, logs, the way to the agent, policy.

use super::*;

async fn next_change(
    watch: &mut (impl futures::Stream<Item = Result<WatchSandboxesResponse, Status>> + Unpin),
) -> Event {
    let next = tokio::time::timeout(WAIT, watch.next()).await.expect("no change came");
    next.unwrap().unwrap().event.unwrap()
}

#[tokio::test]
async fn a_watch_sees_every_end_whatever_becomes_of_events() {
    let host = Host::new();
    let wolf = host.start().await;
    for sandbox in ["s1", "s2", "s3"] {
        wolf.create(host.request(sandbox, "e1")).await.1.unwrap();
    }
    let watch = wolf.runtime.watch_sandboxes(Request::new(WatchSandboxesRequest {})).await;
    let mut watch = watch.unwrap().into_inner();
    let mut snapshot = BTreeSet::new();
    loop {
        match next_change(&mut watch).await {
            Event::Container(seen) => snapshot.insert(seen.sandbox),
            Event::Bookmark(mark) => {
                assert!(mark.snapshot_complete);
                break;
            }
        };
    }
    assert_eq!(snapshot.len(), 3);
    let mut end_of = async |sandbox: &str| loop {
        if let Event::Container(seen) = next_change(&mut watch).await
            && seen.sandbox == format!("sandboxes/{sandbox}")
            && seen.state() != ContainerState::Running
        {
            return seen;
        }
    };
    host.fake.exit(&host.container("s1").unwrap().id, 7, false);
    assert_eq!(end_of("s1").await.exit_code, Some(7));
    // The stream breaks, and the end falls into the gap.
    host.fake.lose_events(true);
    host.fake.exit(&host.container("s2").unwrap().id, 8, false);
    host.fake.break_events();
    assert_eq!(end_of("s2").await.exit_code, Some(8));
    // Nothing is told at all: the next look finds it.
    host.fake.destroy(&host.container("s3").unwrap().id);
    wolf.list().await;
    assert_eq!(end_of("s3").await.state(), ContainerState::Removed);
    assert_eq!(
        wolf.lifecycle.holding(),
        2,
        "what exited holds until it is removed, what is gone does not"
    );
    wolf.stop().await;
}

#[tokio::test]
async fn logs_keep_their_streams_apart_and_end_with_the_container() {
    let host = Host::new();
    let wolf = host.start().await;
    let read = async |follow: bool| {
        let request = StreamLogsRequest { sandbox: "sandboxes/s1".into(), follow, tail_lines: 0 };
        let stream = wolf.runtime.stream_logs(Request::new(request)).await?.into_inner();
        let pieces: Vec<_> = tokio::time::timeout(WAIT, stream.collect()).await.expect("no end");
        pieces.into_iter().collect::<Result<Vec<StreamLogsResponse>, Status>>()
    };
    assert_eq!(from_status(&read(false).await.unwrap_err()).reason, Reason::SandboxNotFound);
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    let id = host.container("s1").unwrap().id;
    host.fake.log(&id, false, "out\n");
    host.fake.log(&id, true, "err\n");
    let text = |pieces: &[StreamLogsResponse]| -> Vec<(bool, Vec<u8>)> {
        pieces.iter().map(|piece| (piece.stderr, piece.data.to_vec())).collect()
    };
    let both = vec![(false, b"out\n".to_vec()), (true, b"err\n".to_vec())];
    assert_eq!(text(&read(false).await.unwrap()), both);

    host.fake.script(Call::Logs, Fault::BreaksOff);
    assert_eq!(from_status(&read(false).await.unwrap_err()).reason, Reason::EngineFailed);

    // An engine that never ends the stream does not hold the end up.
    host.fake.script(Call::Logs, Fault::Hangs);
    let (pieces, ()) = tokio::join!(read(true), async {
        until("the log is read", || host.fake.calls(Call::Logs) == 3).await;
        host.fake.exit(&id, 0, false);
    });
    assert_eq!(text(&pieces.unwrap()), both);
    wolf.stop().await;
}

#[tokio::test]
async fn only_the_manager_reaches_a_sandbox_and_only_one_that_runs_here() {
    let host = Host::new();
    let wolf = host.start().await;
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    let dialer = AgentDialer { observer: wolf.lifecycle.observer().clone(), root: host.root() };
    let peer = |caller: &str| TunnelPeer {
        caller: caller.into(),
        connection_id: "c".into(),
        traceparent: String::new(),
        target: String::new(),
    };
    let dial = async |sandbox: &str, caller: &str| {
        let target = TunnelTarget::parse(&format!("sandbox-agent:{sandbox}")).unwrap();
        dialer.dial(&target, &peer(caller)).await.map(|_| ()).map_err(|fault| fault.reason)
    };
    let manager = "services/sandbox-manager";
    assert_eq!(dial("s1", manager).await, Err(Reason::TargetUnreachable), "no socket yet");
    let _socket = tokio::net::UnixListener::bind(host.root().join("s1/agent.sock")).unwrap();
    assert_eq!(dial("s1", manager).await, Ok(()));
    assert_eq!(dial("s2", manager).await, Err(Reason::TargetUnreachable));
    for other in ["services/gateway", "users/u1", "services/sandbox-manager2", ""] {
        assert_eq!(dial("s1", other).await, Err(Reason::TargetForbidden), "{other}");
        let allowed = ALLOW
            .check(crate::runtime::peer(&peer(other)).principal().unwrap_or(&Principal::Anonymous));
        assert!(allowed.is_err(), "{other}");
    }
    assert!(ALLOW.check(crate::runtime::peer(&peer(manager)).principal().unwrap()).is_ok());
    host.fake.exit(&host.container("s1").unwrap().id, 0, false);
    wolf.list().await;
    assert_eq!(dial("s1", manager).await, Err(Reason::TargetUnreachable));
    wolf.stop().await;
    host.engine_context.supervisor.shutdown(WAIT).await;
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_is_told() {
    let host = Host::new();
    let wolf = host.start().await;
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    let seen = wolf.lifecycle.observer().snapshot().remove(0);
    let (changes, slow) = tokio::sync::broadcast::channel(2);
    for _ in 0..4 {
        changes.send(crate::lifecycle::Change::Gone(seen.clone())).unwrap();
    }
    let told: Vec<_> = watch::events(&[], slow).collect().await;
    let reasons: Vec<_> = told
        .iter()
        .filter_map(|item| item.as_ref().err())
        .map(|status| from_status(status).reason)
        .collect();
    assert_eq!(reasons, [Reason::WatcherTooSlow]);
    wolf.stop().await;
}

#[test]
fn every_rpc_has_its_row() {
    let set = prost_types::FileDescriptorSet::decode(wolfpack_proto::DESCRIPTOR_SET).unwrap();
    let served =
        ["WolfRuntimeService", "WolfImageService", "WolfDoctorService", "ContainerService"];
    let rpcs: BTreeSet<String> = set
        .file
        .iter()
        .filter(|file| file.package() == "wolfpack.agent.v1")
        .flat_map(|file| &file.service)
        .filter(|service| served.contains(&service.name()))
        .flat_map(|service| service.method.iter().map(move |method| (service.name(), method)))
        .map(|(service, method)| format!("/wolfpack.agent.v1.{service}/{}", method.name()))
        .collect();
    assert_eq!(rpcs, POLICY.iter().map(|row| row.method.to_owned()).collect());
}

#[test]
fn a_damaged_request_is_refused_by_field() {
    let request = CreateSandboxRequest {
        spec: Some(SandboxSpec::default()),
        reservation: Some(Reservation::default()),
        ..CreateSandboxRequest::default()
    };
    assert!(map::create_request(request).is_err());
}
