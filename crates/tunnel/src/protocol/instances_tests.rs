use super::*;
use proptest::prelude::*;
use wolfpack_types::WolfId;

fn endpoint() -> Endpoint {
    Endpoint::Wolf(WolfId::new())
}

/// A process that does not say when it started.
fn silent(instance: &str) -> Process<'_> {
    Process { instance, started_micros: None }
}

fn started(instance: &str, at: i64) -> Process<'_> {
    Process { instance, started_micros: Some(at) }
}

#[test]
fn without_starts_the_last_one_wins_and_the_old_one_may_not_come_back() {
    let (mut ledger, wolf, now) = (InstanceLedger::default(), endpoint(), Instant::now());
    let first = ledger.admit(&wolf, silent("one"), false, 100, now).unwrap();
    assert_eq!(first, Admitted { generation: 100, takeover: false });
    let second = ledger.admit(&wolf, silent("two"), true, 50, now).unwrap();
    assert_eq!(second, Admitted { generation: 101, takeover: true }, "clock went back");
    for attached in [true, false] {
        let back = ledger.admit(&wolf, silent("one"), attached, 200, now);
        assert_eq!(back, Err(Refused::Superseded));
    }
    let again = ledger.admit(&wolf, silent("two"), true, 200, now).unwrap();
    assert_eq!(again, Admitted { generation: 101, takeover: false });
}

#[test]
fn an_older_process_that_attaches_late_is_refused_by_a_broker_that_knows_neither() {
    let (mut ledger, wolf, now) = (InstanceLedger::default(), endpoint(), Instant::now());
    ledger.admit(&wolf, started("new", 200), false, 1000, now).unwrap();
    let old = ledger.admit(&wolf, started("old", 100), true, 1000, now);
    assert_eq!(old, Err(Refused::Older));
    let newer = ledger.admit(&wolf, started("newer", 300), true, 1000, now).unwrap();
    assert!(newer.takeover);
}

#[test]
fn the_newer_process_comes_back_though_the_older_one_was_faster() {
    let (mut ledger, wolf, now) = (InstanceLedger::default(), endpoint(), Instant::now());
    ledger.admit(&wolf, started("new", 200), false, 1000, now).unwrap();
    // The newer one is between two sessions.
    assert!(ledger.admit(&wolf, started("old", 100), false, 1000, now).unwrap().takeover);
    assert!(ledger.admit(&wolf, started("new", 200), true, 1000, now).unwrap().takeover);
    let old = ledger.admit(&wolf, started("old", 100), false, 1000, now);
    assert_eq!(old, Err(Refused::Superseded), "it was told");
}

#[test]
fn a_clock_that_is_wrong_locks_nobody_out() {
    let (mut ledger, wolf, now) = (InstanceLedger::default(), endpoint(), Instant::now());
    let clock = 1_000_000_000_000;
    ledger.admit(&wolf, started("before", clock), false, clock, now).unwrap();
    // It went back: only a session that is still there is in the way.
    let back = started("back", 5);
    assert_eq!(ledger.admit(&wolf, back, true, clock, now), Err(Refused::Older));
    assert!(ledger.admit(&wolf, back, false, clock, now).is_ok());
    // Far ahead of the broker's is not believed, in neither role.
    let ahead = started("ahead", clock + AHEAD_MICROS + 1);
    assert!(ledger.admit(&wolf, ahead, true, clock, now).is_ok());
    assert!(ledger.admit(&wolf, started("right", clock), true, clock, now).is_ok());
}

#[test]
fn only_endpoints_that_are_away_are_forgotten() {
    let (mut ledger, away, here, now) =
        (InstanceLedger::default(), endpoint(), endpoint(), Instant::now());
    ledger.admit(&away, silent("a"), false, 1, now).unwrap();
    ledger.admit(&here, silent("b"), false, 1, now).unwrap();
    ledger.forget(now + MEMORY, |endpoint| endpoint == &here);
    assert_eq!(ledger.len(), 1);
    let next = ledger.admit(&here, silent("c"), true, 2, now);
    assert_eq!(next.map(|admitted| admitted.takeover), Ok(true));
}

/// What happens to a wolf whose processes started at 0, 1, 2, ...
#[derive(Debug, Clone)]
enum Step {
    Attach(u8),
    Detach,
    BrokerRestarts,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..5).prop_map(Step::Attach),
        2 => Just(Step::Detach),
        1 => Just(Step::BrokerRestarts),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn generations_only_grow_and_memory_is_bounded(
        steps in prop::collection::vec((0_u8..30, prop::option::of(0_i64..1000), any::<bool>(), 0_i64..1000), 0..200),
    ) {
        let (mut ledger, wolf, now) = (InstanceLedger::default(), endpoint(), Instant::now());
        let mut last = i64::MIN;
        for (instance, started_micros, attached, clock) in steps {
            let instance = instance.to_string();
            let process = Process { instance: &instance, started_micros };
            if let Ok(admitted) = ledger.admit(&wolf, process, attached, clock, now) {
                prop_assert!(admitted.generation >= last);
                prop_assert!(!admitted.takeover || admitted.generation > last);
                last = admitted.generation;
            }
            prop_assert!(ledger.endpoints.values().all(|history| history.past.len() <= PAST));
        }
    }

    #[test]
    fn an_attached_process_yields_only_to_a_newer_one_and_the_newest_is_never_refused(steps in steps()) {
        let (mut ledger, wolf, now) = (InstanceLedger::default(), endpoint(), Instant::now());
        let mut attached: Option<u8> = None;
        for step in steps {
            match step {
                Step::Detach => attached = None,
                Step::BrokerRestarts => {
                    ledger = InstanceLedger::default();
                    attached = None;
                }
                Step::Attach(process) => {
                    let instance = process.to_string();
                    let asks = started(&instance, i64::from(process));
                    match ledger.admit(&wolf, asks, attached.is_some(), 1000, now) {
                        Ok(_) => {
                            prop_assert!(attached.is_none_or(|present| process >= present));
                            attached = Some(process);
                        }
                        Err(_) => prop_assert!(process < 4, "the newest was refused"),
                    }
                }
            }
        }
    }
}
