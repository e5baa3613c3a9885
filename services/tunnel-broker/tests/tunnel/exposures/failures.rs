//! What is told of connections that failed.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_connections_failed_is_told_with_the_exposure() {
    let fleet = Fleet::with(|config| config.exposures.on_request = Some(rules())).await;
    let (project, wolf) = (ProjectId::new(), WolfId::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let loopback = ["1".to_owned(), at.port().to_string()];
    let loopback = loopback.iter().map(|port| port.parse().unwrap()).collect();
    let policy = TcpPolicy { loopback, ..TcpPolicy::default() };
    let words = Words { of: "wolf", setting: "targets.tcp" };
    let mut builder = fleet.wolf(&wolf);
    builder.dial_family("tcp", std::sync::Arc::new(TcpTargets::new(policy, words, 8)));
    attached(&builder.start(&fleet.context.supervisor)).await;
    belongs(&fleet, &wolf, Owner::Project(project.clone())).await;
    let mut mine = client(&fleet, &project, ".admin");
    let port = |port: u16| wire::CreateExposureRequest {
        target: format!("tcp:{port}"),
        ..ask(&Endpoint::Wolf(wolf.clone()))
    };

    // Nobody listens at a port that is allowed, and a port that is not.
    for (number, reason, words) in
        [(1, "TARGET_UNREACHABLE", "nothing listens"), (2, "TARGET_FORBIDDEN", "targets.tcp")]
    {
        let made = mine.create_exposure(port(number)).await.unwrap().into_inner().exposure.unwrap();
        assert_eq!((made.failed_connections, made.last_failure), (0, None));
        for _ in 0..2 {
            let reached = async { TcpStream::connect(&made.listen_address).await?.read_u8().await };
            assert!(reached.await.is_err(), "nobody was reached");
        }
        let name = wire::GetExposureRequest { name: made.name.clone() };
        let seen = mine.get_exposure(name).await.unwrap().into_inner().exposure.unwrap();
        assert_eq!((seen.accepted_connections, seen.failed_connections), (2, 2), "{seen:?}");
        let failure = seen.last_failure.unwrap();
        assert_eq!(failure.reason, reason);
        assert!(failure.message.contains(words), "{failure:?}");
        // Who may not dial there is not told in the words of the agent.
        let name = wire::GetExposureRequest { name: made.name.clone() };
        let mut developer = client(&fleet, &project, "");
        let seen = developer.get_exposure(name).await.unwrap().into_inner().exposure.unwrap();
        let less = seen.last_failure.unwrap();
        assert_eq!((less.reason.as_str(), less.message.as_str()), (reason, ""));
        let (since, failed) = (made.create_time.unwrap(), failure.time.unwrap());
        assert!((failed.seconds, failed.nanos) >= (since.seconds, since.nanos), "{failed:?}");
        let gone = wire::DeleteExposureRequest { name: made.name };
        mine.delete_exposure(gone).await.unwrap();
    }

    // One that ends well, one that its client breaks, and one that its target does.
    let made = mine.create_exposure(port(at.port())).await.unwrap().into_inner().exposure.unwrap();
    for breaks in ["nobody", "client", "target"] {
        let mut client = TcpStream::connect(&made.listen_address).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let (mut reached, _) = listener.accept().await.unwrap();
        reached.read_u8().await.unwrap();
        match breaks {
            "client" => client.set_zero_linger().unwrap(),
            "target" => reached.set_zero_linger().unwrap(),
            _ => {}
        }
        let (first, mut second) =
            if breaks == "target" { (reached, client) } else { (client, reached) };
        drop(first);
        let _ = tokio::time::timeout(SOON, second.read(&mut [0])).await.expect("it hears");
        drop(second);
        fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    }
    let exposures = &fleet.running.exposures;
    let seen = async || {
        let list = wire::ListExposuresRequest::default();
        let all = client(&fleet, &project, "").list_exposures(list).await.unwrap();
        all.into_inner().exposures.remove(0)
    };
    eventually(|| exposures.list(None)[0].failures().0 > 0, || "the target's break".into()).await;
    let seen = seen().await;
    assert_eq!((seen.accepted_connections, seen.failed_connections), (3, 1), "{seen:?}");
    assert_eq!(seen.last_failure.unwrap().reason, "CONNECTION_RESET");

    // What breaks once the wolf is another's is not noted, and what was said
    // before is not told in words any more.
    let mut inside = TcpStream::connect(&made.listen_address).await.unwrap();
    inside.write_all(b"x").await.unwrap();
    let (mut reached, _) = listener.accept().await.unwrap();
    reached.read_u8().await.unwrap();
    belongs(&fleet, &wolf, Owner::Project(ProjectId::new())).await;
    reached.set_zero_linger().unwrap();
    drop(reached);
    let _ = tokio::time::timeout(SOON, inside.read(&mut [0])).await.expect("it hears");
    let over = || exposures.list(None)[0].connections() == 0;
    eventually(over, || "the connection is still there".into()).await;
    let name = wire::GetExposureRequest { name: made.name };
    let seen = mine.get_exposure(name).await.unwrap().into_inner().exposure.unwrap();
    assert_eq!((seen.accepted_connections, seen.failed_connections), (4, 1), "{seen:?}");
    assert_eq!(seen.last_failure.unwrap().message, "");
}
