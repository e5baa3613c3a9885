//! Creating, removing, adopting.

use std::collections::BTreeMap;

use super::*;
#[tokio::test]
async fn a_sandbox_is_created_hardened_and_told_who_it_is() {
    let host = Host::new();
    let wolf = host.start().await;
    host.fake.add_image(
        "debian:bookworm-slim",
        json!({"Entrypoint": ["/entry"], "Cmd": ["serve"], "User": "1000:1000",
               "WorkingDir": "/srv", "Env": ["PATH=/bin", "A=image"]}),
    );
    let mut request = host.request("s1", "e1");
    request.spec.as_mut().unwrap().env.insert("A".into(), "user".into());
    let (steps, started) = wolf.create(request).await;
    assert!(matches!(steps[..], [Step::Admitted(_)]), "{steps:?}");
    let started = started.unwrap();
    assert_eq!(started.state(), ContainerState::Running);
    assert_eq!((started.sandbox.as_str(), started.execution_id.as_str()), ("sandboxes/s1", "e1"));
    assert!(started.start_time.is_some());

    let made = host.container("s1").unwrap();
    assert_eq!(made.id, started.container_id);
    assert_eq!(
        hardening::violations(&made.request["HostConfig"], &hardening::Policy::default()),
        Vec::<String>::new()
    );
    assert_eq!(made.request["HostConfig"]["Memory"], 1 << 30);
    assert_eq!(made.request["HostConfig"]["NanoCpus"], 1_000_000_000);
    assert_eq!(made.request["HostConfig"]["ExtraHosts"], json!(["wolfpack.internal:127.0.0.1"]));
    assert!(!made.request.to_string().contains("the-token"), "a token is not in the request");

    let dir = made.mounted("/run/wolfpack").unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("token")).unwrap(), "the-token");
    assert_eq!(mode(&dir.join("token")), 0o600);
    assert_eq!(std::fs::read_to_string(dir.join("ca.crt")).unwrap(), "roots");
    let told: SandboxBoot =
        serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(told.argv, ["/entry", "serve"]);
    assert_eq!((told.user.as_str(), told.cwd.as_str()), ("1000:1000", "/srv"));
    assert_eq!((told.env["A"].as_str(), told.env["PATH"].as_str()), ("user", "/bin"));
    let ports = wolf.lifecycle.ready_now().unwrap().ports;
    assert_eq!(told.broker, format!("https://wolfpack.internal:{}", ports.broker));
    assert_eq!(told.gateway, format!("https://wolfpack.internal:{}", ports.gateway));

    wolf.remove("s1", "", 1).await.unwrap();
    host.assert_nothing_left(&wolf);
    wolf.remove("s1", "", 1).await.unwrap();
    wolf.stop().await;
}

#[tokio::test]
async fn repeated_and_parallel_calls_of_one_boot_make_one_container() {
    let host = Host::new();
    let wolf = host.start().await;
    host.fake.script(Call::Create, Fault::Slow(Duration::from_millis(200)));
    let all =
        futures::future::join_all((0..8).map(|_| wolf.create(host.request("s1", "e1")))).await;
    let ids: BTreeSet<String> = all.into_iter().map(|(_, end)| end.unwrap().container_id).collect();
    assert_eq!(ids.len(), 1);
    let (_, again) = wolf.create(host.request("s1", "e1")).await;
    assert_eq!(again.unwrap().container_id, *ids.first().unwrap());
    assert_eq!((host.fake.calls(Call::Create), host.fake.calls(Call::Start)), (1, 1));
    assert_eq!(wolf.lifecycle.holding(), 1);
    host.fake.exit("s1", 0, false);
    host.fake.exit(&host.container("s1").unwrap().id, 3, false);
    let (_, ended) = wolf.create(host.request("s1", "e1")).await;
    let ended = ended.unwrap();
    assert_eq!((ended.state(), ended.exit_code), (ContainerState::Exited, Some(3)));
    wolf.stop().await;
}

#[tokio::test]
async fn a_refused_reservation_begins_nothing() {
    let host = Host::new();
    let wolf = host.start().await;
    let refused = |change: fn(&mut Reservation)| {
        let mut request = host.request("s1", "e1");
        change(request.reservation.as_mut().unwrap());
        wolf.create(request)
    };
    let expired: fn(&mut Reservation) = |reservation| {
        reservation.expire_time = Some((SystemTime::now() - Duration::from_secs(1)).into());
    };
    let elsewhere: fn(&mut Reservation) = |reservation| reservation.wolf = "wolves/other".into();
    let greedy: fn(&mut Reservation) =
        |reservation| reservation.resources.as_mut().unwrap().cpu_milli = Some(4_001);
    let gpu: fn(&mut Reservation) = |reservation| {
        reservation.gpu_ids = vec!["GPU-0".into()];
        reservation.gpu_share_milli = 1_000;
    };
    for change in [expired, elsewhere, greedy, gpu] {
        let (_, end) = refused(change).await;
        assert_eq!(end.unwrap_err().reason, Reason::ReservationRefused);
    }
    assert_eq!(host.fake.calls(Call::Create), 0);
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    // The epoch that was admitted survives the process; an older one does not get in.
    wolf.stop().await;
    let wolf = host.start().await;
    let mut old = host.request("s2", "e2");
    old.reservation.as_mut().unwrap().epoch = 2;
    let (_, end) = wolf.create(old).await;
    assert_eq!(end.unwrap_err().metadata["refusal"], "epoch_stale");
    wolf.stop().await;
}

#[tokio::test]
async fn images_are_found_fetched_or_told_missing() {
    let host = Host::new();
    let wolf = host.start().await;
    let with = |sandbox: &str, image: &str| {
        let mut request = host.request(sandbox, "e1");
        request.spec.as_mut().unwrap().image = image.into();
        request
    };
    let (_, end) = wolf.create(with("s1", "wolfpack/unknown")).await;
    assert_eq!(end.unwrap_err().reason, Reason::ImageNotFound);
    assert_eq!(host.fake.calls(Call::Pull), 0, "our own images are never fetched");

    host.fake.add_remote_image("registry.example/app:latest", json!({"Cmd": ["app"]}));
    let (steps, end) = wolf.create(with("s2", "registry.example/app")).await;
    end.unwrap();
    assert!(steps.iter().any(|step| matches!(step, Step::Pulling(_))), "{steps:?}");
    let (steps, end) = wolf.create(with("s3", "registry.example/app")).await;
    end.unwrap();
    assert!(!steps.iter().any(|step| matches!(step, Step::Pulling(_))), "it is there by now");
    assert_eq!(host.fake.calls(Call::Pull), 1);
    for sandbox in ["s2", "s3"] {
        wolf.remove(sandbox, "", 1).await.unwrap();
    }

    for (fault, reason) in [
        (None, Reason::ImageNotFound),
        (Some(Fault::InBand("toomanyrequests: slow down")), Reason::ImagePullFailed),
        (Some(Fault::InBand("manifest unknown")), Reason::ImageNotFound),
        (Some(Fault::Status(500, "registry unreachable")), Reason::ImagePullFailed),
        (Some(Fault::BreaksOff), Reason::EngineFailed),
    ] {
        if let Some(fault) = fault.clone() {
            host.fake.script(Call::Pull, fault);
        }
        let (_, end) = wolf.create(with("s4", "registry.example/none:1")).await;
        let got = end.unwrap_err();
        assert_eq!(got.reason, reason, "{fault:?}: {got}");
        host.assert_nothing_left(&wolf);
    }
    wolf.stop().await;
}

#[tokio::test]
async fn a_failing_engine_leaves_nothing_behind() {
    let host = Host::new();
    let wolf = host.start().await;
    let faults: [(Call, Fault); 6] = [
        (Call::Inspect, Fault::Status(500, "no")),
        (Call::InspectImage, Fault::Status(500, "no")),
        (Call::Create, Fault::Status(500, "no")),
        (Call::Create, Fault::DoneAnd(500, "done, but")),
        (Call::Start, Fault::Status(500, "no such file or directory")),
        (Call::Start, Fault::DoneAnd(500, "started, but")),
    ];
    for (call, fault) in faults {
        host.fake.script(call, fault.clone());
        let (_, end) = wolf.create(host.request("s1", "e1")).await;
        assert_eq!(end.unwrap_err().reason, Reason::EngineFailed, "{call:?} {fault:?}");
        until("nothing is left", || wolf.lifecycle.holding() == 0).await;
        host.assert_nothing_left(&wolf);
    }
    // A name that is taken by what a timed-out call made is made free, once.
    host.fake.script(Call::Create, Fault::Status(409, "the name is already in use"));
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    wolf.stop().await;
}

#[tokio::test]
async fn a_running_boot_is_not_ended_by_an_engine_that_does_not_answer() {
    let host = Host::new();
    let wolf = host.start().await;
    let (_, first) = wolf.create(host.request("s1", "e1")).await;
    let first = first.unwrap();
    // One look by the create, one for each of the two events: the next is ours.
    until("the events were looked into", || host.fake.calls(Call::Inspect) == 3).await;
    host.fake.script(Call::Inspect, Fault::Status(500, "busy"));
    let (_, end) = wolf.create(host.request("s1", "e1")).await;
    assert_eq!(end.unwrap_err().reason, Reason::EngineFailed);
    assert_eq!(host.container("s1").unwrap().state, "running");
    assert_eq!(wolf.lifecycle.holding(), 1);
    // The same for a new process that is asked before it looked around.
    wolf.stop().await;
    let wolf = host.start().await;
    assert_eq!(wolf.lifecycle.holding(), 1, "adopted by its labels");
    let (_, again) = wolf.create(host.request("s1", "e1")).await;
    assert_eq!(again.unwrap().container_id, first.container_id);
    assert_eq!(host.fake.calls(Call::Remove), 0);
    wolf.stop().await;
}

#[tokio::test]
async fn a_new_process_adopts_what_runs_and_clears_what_does_not() {
    let host = Host::new();
    let wolf = host.start().await;
    for sandbox in ["s1", "s2", "s3"] {
        wolf.create(host.request(sandbox, "e1")).await.1.unwrap();
    }
    wolf.stop().await;
    host.fake.exit(&host.container("s2").unwrap().id, 137, true);
    host.fake.destroy(&host.container("s3").unwrap().id);
    let wolf = host.start().await;
    assert!(host.root().join("s1/token").exists(), "a running sandbox keeps its directory");
    assert!(!host.root().join("s3").exists(), "a left-over directory is cleared");
    assert_eq!(wolf.lifecycle.holding(), 2);
    let listed = wolf.list().await;
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].state(), ContainerState::Running);
    assert_eq!(listed[1].state(), ContainerState::Exited);
    assert_eq!((listed[1].exit_code, listed[1].out_of_memory), (Some(137), true));
    for sandbox in ["s4", "s5"] {
        wolf.create(host.request(sandbox, "e1")).await.1.unwrap();
    }
    let (_, full) = wolf.create(host.request("s6", "e1")).await;
    assert_eq!(
        full.unwrap_err().metadata["blocker"],
        "CPU_SHORT",
        "what was adopted holds its goods"
    );
    wolf.stop().await;
}

#[tokio::test]
async fn a_removal_ends_a_create_that_is_under_way() {
    let host = Host::new();
    let wolf = Arc::new(host.start().await);
    let mut request = host.request("s1", "e1");
    request.spec.as_mut().unwrap().image = "registry.example/slow:1".into();
    host.fake.script(Call::Pull, Fault::Slow(Duration::from_secs(60)));
    let creating = tokio::spawn({
        let wolf = wolf.clone();
        async move { wolf.create(request).await.1 }
    });
    until("the pull began", || host.fake.calls(Call::Pull) == 1).await;
    tokio::time::timeout(WAIT, wolf.remove("s1", "e1", 1)).await.unwrap().unwrap();
    assert_eq!(creating.await.unwrap().unwrap_err().reason, Reason::Cancelled);
    host.assert_nothing_left(&wolf);

    // Also while the engine makes the container: nothing comes of it afterwards.
    host.fake.script(Call::Create, Fault::Slow(Duration::from_millis(300)));
    let creating = tokio::spawn({
        let (wolf, request) = (wolf.clone(), host.request("s1", "e2"));
        async move { wolf.create(request).await.1 }
    });
    until("the create began", || host.fake.calls(Call::Create) == 1).await;
    wolf.remove("s1", "", 1).await.unwrap();
    assert_eq!(creating.await.unwrap().unwrap_err().reason, Reason::Cancelled);
    host.assert_nothing_left(&wolf);
}

#[tokio::test]
async fn a_create_goes_on_when_its_caller_goes_away() {
    let host = Host::new();
    let wolf = host.start().await;
    host.fake.script(Call::Create, Fault::Slow(Duration::from_millis(200)));
    let steps = wolf.runtime.create_sandbox(Request::new(host.request("s1", "e1"))).await.unwrap();
    drop(steps);
    until("it runs", || host.container("s1").is_some_and(|made| made.state == "running")).await;
    wolf.stop().await;
}

#[tokio::test]
async fn another_boot_replaces_the_one_before_and_stale_owners_are_fenced() {
    let host = Host::new();
    let wolf = host.start().await;
    let (_, first) = wolf.create(host.request("s1", "e1")).await;
    let mut second = host.request("s1", "e2");
    second.owner_epoch = 5;
    let (_, second) = wolf.create(second).await;
    assert_ne!(first.unwrap().container_id, second.unwrap().container_id);
    assert_eq!(host.fake.containers().len(), 1);
    assert_eq!(wolf.lifecycle.holding(), 1);
    wolf.remove("s1", "e1", 5).await.unwrap();
    assert_eq!(host.fake.containers().len(), 1, "an older boot's removal is not this one's");
    assert!(host.root().join("s1/token").exists());
    assert_eq!(wolf.remove("s1", "", 4).await, Err(Reason::OwnerFenced));
    let (_, stale) = wolf.create(host.request("s1", "e3")).await;
    assert_eq!(stale.unwrap_err().reason, Reason::OwnerFenced);
    wolf.remove("s1", "e2", 5).await.unwrap();
    host.assert_nothing_left(&wolf);
    wolf.stop().await;
}

#[tokio::test]
async fn a_bridge_that_is_gone_is_made_again() {
    let host = Host::new();
    let wolf = host.start().await;
    host.fake.destroy_network("wolfpack-test");
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    assert_eq!(host.fake.networks(), ["wolfpack-test"]);
    wolf.stop().await;
}

#[tokio::test]
async fn a_stop_takes_its_own_bridge_away_and_no_other() {
    let host = Host::new();
    let engine = DockerEngine::new(host.fake.socket());
    let theirs = BTreeMap::from([("wolfpack.wolf".to_owned(), "another".to_owned())]);
    engine.ensure_network("wolfpack-test", &theirs).await.unwrap();
    let wolf = host.begin();
    until("it was refused", || host.fake.calls(Call::InspectNetwork) > 2).await;
    assert!(wolf.lifecycle.ready_now().is_none(), "another's bridge was taken");
    wolf.setup.leave().await;
    assert_eq!(host.fake.networks(), ["wolfpack-test"]);

    host.fake.destroy_network("wolfpack-test");
    until("its own is made", || wolf.lifecycle.ready_now().is_some()).await;
    wolf.setup.leave().await;
    assert!(host.fake.networks().is_empty());
    wolf.stop().await;
}
