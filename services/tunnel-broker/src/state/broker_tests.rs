use super::*;
use tokio::sync::mpsc;
use wolfpack_runtime::clock::ManualClock;
use wolfpack_tunnel::protocol::{Heartbeat, Life};
use wolfpack_types::{ExecutionId, Principal, ProjectId, SandboxId};

use crate::domain::hello::Introduction;

pub(super) fn spec(endpoint: &Endpoint, instance: &str) -> SessionSpec {
    SessionSpec {
        introduction: Introduction {
            endpoint: endpoint.clone(),
            instance: instance.to_owned(),
            started_micros: None,
            version: String::new(),
            targets: vec!["runtime".into()],
            max_connections: 2,
        },
        sandbox: None,
        control: mpsc::channel(8).0,
    }
}

#[test]
fn a_late_detach_of_an_old_session_leaves_the_new_one() {
    let broker = Broker::new(Limits::default());
    let wolf = Endpoint::Wolf(WolfId::new());
    let old = broker.attach(spec(&wolf, "one")).unwrap();
    let new = broker.attach(spec(&wolf, "two")).unwrap();
    assert_eq!(old.fault().unwrap().reason, Reason::Superseded);
    assert!(new.generation > old.generation);
    broker.detach(&old, &Fault::new(Reason::TunnelLost, "late"));
    assert!(Arc::ptr_eq(&broker.find(&wolf).unwrap(), &new));
    assert_eq!(broker.attach(spec(&wolf, "one")).unwrap_err().reason, Reason::Superseded);
    assert!(new.fault().is_none(), "the old one must not fight back");
    broker.detach(&new, &Fault::new(Reason::TunnelLost, "gone"));
    assert!(broker.find(&wolf).is_none());
    assert_eq!(broker.counts(), [0; 4]);
}

fn started(endpoint: &Endpoint, instance: &str, at: i64) -> SessionSpec {
    let mut spec = spec(endpoint, instance);
    spec.introduction.started_micros = Some(at);
    spec
}

#[tokio::test]
async fn an_older_instance_yields_to_a_newer_one_that_answers_and_waits_for_one_that_does_not() {
    let wolf = Endpoint::Wolf(WolfId::new());
    // As after a restart: the broker knows of neither.
    let broker = Broker::new(Limits { heartbeat: Duration::from_secs(1), ..Limits::default() });
    let (control, mut messages) = mpsc::channel(256);
    let new = broker.attach(SessionSpec { control, ..started(&wolf, "new", 200) }).unwrap();
    let old = || started(&wolf, "old", 100).introduction;
    assert!(broker.yields_to(&started(&wolf, "newer", 300).introduction).await.is_ok());
    assert!(broker.yields_to(&new.introduction).await.is_ok());

    // Silent: it may be dead, so the older one is not sent away for good.
    assert_eq!(broker.yields_to(&old()).await.unwrap_err().reason, Reason::HandshakesLimited);
    assert!(matches!(messages.try_recv().unwrap().message, Some(Message::Ping(_))), "it was asked");
    let refused = broker.attach(started(&wolf, "old", 100)).unwrap_err();
    assert_eq!(refused.reason, Reason::HandshakesLimited);
    assert!(new.fault().is_none());

    // It answers.
    let life = new.life.clone();
    let answers = tokio::spawn(async move {
        loop {
            life.mark();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(broker.yields_to(&old()).await.unwrap_err().reason, Reason::Superseded);
    answers.abort();

    // It is going: closed, and not forgotten yet.
    let going = broker.find(&wolf).unwrap();
    going.close(&Fault::new(Reason::TunnelLost, "going"));
    broker.yields_to(&old()).await.unwrap();

    // It is gone.
    broker.detach(&new, &Fault::new(Reason::TunnelLost, "gone"));
    broker.yields_to(&old()).await.unwrap();
    broker.attach(started(&wolf, "old", 100)).unwrap();
}

#[test]
fn pages_and_watches_show_only_what_the_caller_may_see() {
    let broker = Broker::new(Limits::default());
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let wolves: Vec<WolfId> = (0..4).map(|_| WolfId::new()).collect();
    for (at, wolf) in wolves.iter().enumerate() {
        let project = if at % 2 == 0 { &mine } else { &theirs };
        broker.set_owner(wolf, Some(Owner::Project(project.clone())));
        broker.attach(spec(&Endpoint::Wolf(wolf.clone()), "one")).unwrap();
    }
    let user = Principal::User {
        user: wolfpack_types::UserId::new(),
        key: wolfpack_types::ApiKeyId::new(),
        project: mine.clone(),
        role: wolfpack_types::Role::Viewer,
        platform_admin: false,
        expires: None,
    };
    let see = |owner: &Owner| crate::domain::access::may_see(&user, owner);
    let first = broker.list(None, 1, see);
    assert_eq!(first.len(), 1);
    let rest = broker.list(Some(&first[0].endpoint), 10, see);
    assert_eq!(rest.len(), 1);
    assert!(rest[0].endpoint > first[0].endpoint);
    assert!(first.iter().chain(&rest).all(|tunnel| tunnel.project == mine.name()));
    assert_eq!(broker.watch().tunnels.len(), 4);
    assert_eq!(broker.watch().revision, 4);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_is_gone_for_good() {
    let broker = Arc::new(Broker::new(Limits::default()));
    let sandbox = SandboxId::new();
    let there = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let waits = {
        let (broker, sandbox, there) = (broker.clone(), sandbox.clone(), there.clone());
        tokio::spawn(async move {
            let endpoint = Endpoint::Sandbox(sandbox);
            let later = tokio::time::Instant::now() + Duration::from_secs(60);
            let allowed = || match there.load(std::sync::atomic::Ordering::SeqCst) {
                true => Ok(()),
                false => Err(crate::domain::access::not_found(&endpoint)),
            };
            broker.wait_for(&endpoint, later, &allowed).await.map(drop)
        })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    there.store(false, std::sync::atomic::Ordering::SeqCst);
    broker.revoke(&sandbox, Some(&ExecutionId::new()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waits.is_finished(), "there may be another boot");
    broker.revoke(&sandbox, None);
    let told = tokio::time::timeout(Duration::from_secs(1), waits).await.expect("at once");
    assert_eq!(told.unwrap().unwrap_err().reason, Reason::EndpointNotFound);
    assert_eq!(broker.counts()[3], 0);
}

#[tokio::test(start_paused = true)]
async fn a_dial_waits_for_its_endpoint_and_not_longer() {
    let broker = Arc::new(Broker::new(Limits::default()));
    let wolf = Endpoint::Wolf(WolfId::new());
    let soon = tokio::time::Instant::now() + Duration::from_secs(2);
    let late = broker.wait_for(&wolf, soon, &|| Ok(())).await.unwrap_err();
    assert_eq!(late.reason, Reason::DialTimeout);
    let waits = {
        let (broker, wolf) = (broker.clone(), wolf.clone());
        tokio::spawn(async move {
            let later = tokio::time::Instant::now() + Duration::from_secs(60);
            broker.wait_for(&wolf, later, &|| Ok(())).await
        })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    broker.attach(spec(&wolf, "one")).unwrap();
    assert!(waits.await.unwrap().is_ok());
    assert_eq!(broker.waiting.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn connections_of_an_agent_are_bounded_and_a_dropped_ask_is_taken_back() {
    let broker = Broker::new(Limits::default());
    let wolf = Endpoint::Wolf(WolfId::new());
    let (control, mut messages) = mpsc::channel(8);
    let session = broker.attach(SessionSpec { control, ..spec(&wolf, "one") }).unwrap();
    let permits = (session.admit().unwrap(), session.admit().unwrap());
    assert_eq!(session.admit().unwrap_err().reason, Reason::DialsLimited);
    drop(permits);
    assert!(session.admit().is_ok());

    let asked = session.ask(Duration::from_secs(10)).unwrap();
    let Some(Message::Dial(dial)) = messages.recv().await.unwrap().message else {
        panic!("no dial")
    };
    assert_eq!(dial.dial_id.len(), 16);
    drop(asked);
    let Some(Message::CancelDial(cancel)) = messages.recv().await.unwrap().message else {
        panic!("no cancel")
    };
    assert_eq!(cancel.dial_id, dial.dial_id);
    assert_eq!(session.pending(), 0);
}

#[test]
fn an_agent_that_attaches_too_often_locks_out_nobody_else() {
    let limits = Limits { attaches_per_second: 20, ..Limits::default() };
    let broker = Broker::new(limits);
    let noisy = Principal::Wolf(WolfId::new());
    let passed = (0..1000).filter(|_| broker.may_attach(&noisy).is_ok()).count();
    assert!((10..=12).contains(&passed), "{passed}");
    let fault = broker.may_attach(&noisy).unwrap_err();
    assert_eq!(fault.reason, Reason::HandshakesLimited);
    assert!(fault.retry_after.is_some());
    assert!(broker.may_attach(&Principal::Wolf(WolfId::new())).is_ok());
    assert_eq!(broker.admission.known(), 2);
}

/// Somebody sets the machine's clock, ahead and back, while agents are attached.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_ends_no_session_and_lets_no_older_instance_win() {
    let day = Duration::from_secs(86_400);
    let today = SystemTime::UNIX_EPOCH + 20_000 * day;
    let wall = ManualClock::at(today);
    let broker = Broker::with_clock(Limits::default(), Arc::new(wall.clone()));
    let wolf = Endpoint::Wolf(WolfId::new());
    let first = broker.attach(spec(&wolf, "one")).unwrap();
    let mut heartbeat = Heartbeat::new(broker.limits.heartbeat, clock::instant());
    let mut newest = first.generation;
    for (at, to) in [today + 3650 * day, SystemTime::UNIX_EPOCH, today].into_iter().enumerate() {
        wall.jump_to(to);
        // Ten seconds are ten seconds.
        tokio::time::advance(Duration::from_secs(9)).await;
        first.life.mark();
        assert_eq!(heartbeat.check(clock::instant(), first.life.heard()), Life::Heard);
        let again = broker.attach(spec(&wolf, &format!("next-{at}"))).unwrap();
        assert!(again.generation > newest, "{to:?}");
        newest = again.generation;
        let same = broker.attach(spec(&wolf, &format!("next-{at}"))).unwrap();
        assert_eq!(same.generation, newest, "the same process comes back as it was");
        assert_eq!(broker.attach(spec(&wolf, "one")).unwrap_err().reason, Reason::Superseded);
        assert!(same.fault().is_none());
    }
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(heartbeat.check(clock::instant(), first.life.heard()), Life::Ask);
}

/// A burst of dials that are taken back, before the agent was told of any.
#[tokio::test]
async fn dials_that_are_taken_back_faster_than_an_agent_hears_of_them_end_no_session() {
    let broker = Broker::new(Limits::default());
    let wolf = Endpoint::Wolf(WolfId::new());
    let (control, mut messages) = mpsc::channel(8);
    let session = broker.attach(SessionSpec { control, ..spec(&wolf, "one") }).unwrap();
    let mut refused = 0;
    for _ in 0..100 {
        match session.ask(Duration::from_secs(10)) {
            Ok(asked) => drop(asked),
            Err(fault) => {
                assert_eq!(fault.reason, Reason::DialsLimited);
                refused += 1;
            }
        }
    }
    assert!(refused > 80, "{refused}");
    assert!(session.fault().is_none());
    assert_eq!(session.pending(), 0);
    while messages.try_recv().is_ok() {}
    assert!(session.ask(Duration::from_secs(10)).is_ok(), "it goes on once there is room");
}

#[test]
fn the_life_of_a_tunnel_is_told_in_audit_lines() {
    let broker = Broker::new(Limits::default());
    let wolf = Endpoint::Wolf(WolfId::new());
    let lines = crate::audit_lines::of(|| {
        broker.attach(spec(&wolf, "one")).unwrap();
        broker.attach(spec(&wolf, "two")).unwrap();
        let fault = Fault::new(Reason::TunnelClosed, "closed");
        assert_eq!(broker.close(&wolf, Some("another"), &fault), None);
        assert!(broker.close(&wolf, None, &fault).is_some());
        assert_eq!(broker.close(&wolf, None, &fault), None, "once");
    });
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(
        kinds,
        ["tunnel.attached", "tunnel.superseded", "tunnel.attached", "tunnel.detached"]
    );
    assert!(lines[0].contains(&format!("endpoint={wolf}")), "{lines:?}");
    assert!(lines[3].contains("reason=TUNNEL_CLOSED"), "{lines:?}");
}
