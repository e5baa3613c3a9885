use super::*;

fn peer(caller: &str) -> TunnelPeer {
    TunnelPeer {
        caller: caller.to_owned(),
        connection_id: "c".to_owned(),
        traceparent: String::new(),
        target: Target::WOLF_API.to_owned(),
    }
}

fn target(name: &str, config: &TargetsConfig) -> HostTarget {
    let all = HostTarget::configured(config).unwrap();
    all.into_iter().find(|target| target.name == name).unwrap()
}

async fn refusal(target: &HostTarget, caller: &str) -> Fault {
    let asked = Target::parse(target.name).unwrap();
    target.dial(&asked, &peer(caller)).await.unwrap_err()
}

#[test]
fn only_what_is_configured_is_offered() {
    let names = |config: &TargetsConfig| -> Vec<_> {
        HostTarget::configured(config).unwrap().iter().map(|target| target.name).collect()
    };
    assert_eq!(names(&TargetsConfig::default()), ["wolf-api", "moonlight-web"]);
    let off = TargetsConfig { moonlight_web: String::new(), ..TargetsConfig::default() };
    assert_eq!(names(&off), ["wolf-api"]);
    let off = TargetsConfig { wolf_api: PathBuf::new(), ..off };
    assert_eq!(names(&off), [""; 0]);
}

#[tokio::test]
async fn what_is_absent_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wolf.sock");
    let free = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let config = TargetsConfig {
        wolf_api: socket.clone(),
        moonlight_web: free.to_string(),
        ..TargetsConfig::default()
    };
    let wolf = target("wolf-api", &config);
    let fault = refusal(&wolf, "users/a").await;
    assert_eq!(fault.reason, Reason::TargetUnreachable);
    assert!(fault.message.contains("runs no Wolf: there is no"), "{fault}");
    assert!(fault.message.contains("targets.wolf_api"), "{fault}");
    // Its socket is still there when Wolf has died.
    drop(tokio::net::UnixListener::bind(&socket).unwrap());
    let fault = refusal(&wolf, "users/a").await;
    assert_eq!(fault.reason, Reason::TargetUnreachable);
    assert!(fault.message.contains("nothing listens at"), "{fault}");

    let moonlight = target("moonlight-web", &config);
    let fault = refusal(&moonlight, "users/a").await;
    assert_eq!(fault.reason, Reason::TargetUnreachable);
    assert!(fault.message.contains("start moonlight-web there"), "{fault}");
}

#[tokio::test]
async fn it_is_found_when_it_is_started_later_and_its_connections_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wolf.sock");
    let config = TargetsConfig { wolf_api: socket.clone(), ..TargetsConfig::default() };
    let wolf = target("wolf-api", &config);
    wolf.look().await.unwrap_err();
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let accepting = async {
        let mut open = Vec::new();
        loop {
            open.push(listener.accept().await.unwrap());
        }
    };
    let dialing = async {
        let asked = Target::parse("wolf-api").unwrap();
        let caller = peer("users/a");
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            open.push(wolf.dial(&asked, &caller).await.unwrap());
        }
        assert_eq!(refusal(&wolf, "users/a").await.reason, Reason::DialsLimited);
        drop(open);
        wolf.look().await.unwrap();
    };
    tokio::select! {
        () = dialing => {}
        () = accepting => {}
    }
}

#[tokio::test]
async fn neither_a_sandbox_nor_a_wolf_gets_there() {
    let wolf = target("wolf-api", &TargetsConfig::default());
    for caller in ["sandboxes/a", "wolves/a", "anonymous", ""] {
        assert_eq!(refusal(&wolf, caller).await.reason, Reason::TargetForbidden, "{caller}");
    }
}
