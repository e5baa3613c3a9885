use proptest::prelude::*;
use wolfpack_types::capacity::{Device, Good, Grant, Holding};

use super::*;

const NOW: Duration = Duration::from_secs(1_000_000);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

fn wolf() -> WolfId {
    WolfId::parse("w1").unwrap()
}

fn guard(highest_epoch: i64) -> Admission {
    let device = |id: &str| Device { id: id.into(), ..Device::default() };
    let capacity = Capacity {
        cpu_milli: Some(4_000),
        memory_bytes: Some(8),
        disk_bytes: None,
        desktop_slots: 2,
        devices: vec![device("gpu-0"), device("gpu-1")],
        ..Capacity::default()
    };
    Admission::new(wolf(), capacity, highest_epoch)
}

fn claim(sandbox: &str, execution: &str) -> Claim {
    let sandbox = SandboxId::parse(sandbox).unwrap();
    let project = ProjectId::parse("p1").unwrap();
    let holding = Holding { cpu_milli: 1_000, memory_bytes: 1, ..Holding::default() };
    Claim {
        reservation: Reserved {
            id: ReservationId::parse(&format!("r-{sandbox}-{execution}")).unwrap(),
            state: ReservationState::Reserved,
            sandbox: sandbox.clone(),
            project: project.clone(),
            wolf: wolf(),
            goods: Goods { holding, pids: 10 },
            expire_time: Some(now() + Duration::from_secs(30)),
            epoch: 5,
        },
        sandbox,
        project,
        execution: ExecutionId::parse(execution).unwrap(),
        owner_epoch: 1,
    }
}

#[test]
fn each_rule_refuses_by_itself() {
    let base = claim("s1", "e1");
    let with = |change: fn(&mut Claim)| {
        let mut claim = base.clone();
        change(&mut claim);
        let mut guard = guard(5);
        let refusal = guard.admit(&claim, now()).unwrap_err();
        assert_eq!(guard.free(), super::tests::guard(5).free(), "a refusal holds nothing");
        assert_eq!(guard.sandboxes().count(), 0);
        refusal
    };
    assert_eq!(with(|c| c.reservation.epoch = 4), Refusal::EpochStale { seen: 5, given: 4 });
    assert_eq!(
        with(|c| c.reservation.expire_time = Some(now() - Duration::from_secs(2))),
        Refusal::Expired(Duration::from_secs(2))
    );
    assert_eq!(with(|c| c.reservation.expire_time = Some(now())), Refusal::Expired(Duration::ZERO));
    assert_eq!(with(|c| c.reservation.expire_time = None), Refusal::NoExpiry);
    assert_eq!(
        with(|c| c.reservation.state = ReservationState::Released),
        Refusal::NotLive(ReservationState::Released)
    );
    assert_eq!(with(|c| c.reservation.wolf = WolfId::new()), Refusal::Mismatch("wolf"));
    assert_eq!(with(|c| c.reservation.sandbox = SandboxId::new()), Refusal::Mismatch("sandbox"));
    assert_eq!(with(|c| c.reservation.project = ProjectId::new()), Refusal::Mismatch("project"));
    let short = with(|c| c.reservation.goods.holding.memory_bytes = 9);
    assert!(matches!(&short, Refusal::Short(shortage) if shortage.good == Good::Memory));
    assert_eq!(short.clone().into_fault().reason, Reason::ReservationRefused);
    assert_eq!(short.into_fault().metadata["blocker"], "MEMORY_SHORT");
}

#[test]
fn a_confirmed_reservation_neither_expires_nor_ages_but_must_fit() {
    let mut late = claim("s1", "e1");
    late.reservation.state = ReservationState::Bound;
    for expire_time in [None, Some(now() - Duration::from_secs(60))] {
        late.reservation.expire_time = expire_time;
        // A new process of the agent, which knows of a newer scheduler.
        let mut guard = guard(6);
        let admitted = guard.admit(&late, now()).unwrap();
        assert_eq!((admitted.again, admitted.new_epoch), (false, None));
        assert_eq!(guard.free().cpu_milli, Some(3_000));
        // A reservation that nobody confirmed is still measured by the newest.
        let refused = guard.admit(&claim("s2", "e2"), now()).unwrap_err();
        assert_eq!(refused, Refusal::EpochStale { seen: 6, given: 5 });
    }
    late.reservation.goods.holding.memory_bytes = 9;
    assert!(matches!(guard(5).admit(&late, now()), Err(Refusal::Short(_))));
    late.reservation.wolf = WolfId::new();
    assert_eq!(guard(5).admit(&late, now()), Err(Refusal::Mismatch("wolf")));
}

#[test]
fn the_same_boot_again_holds_once_even_when_it_is_late() {
    let mut guard = guard(0);
    let claim = claim("s1", "e1");
    let first = guard.admit(&claim, now()).unwrap();
    assert_eq!((first.again, first.new_epoch), (false, Some(5)));
    let free = guard.free();
    let again = guard.admit(&claim, now() + Duration::from_secs(3_600)).unwrap();
    assert_eq!((again.again, again.new_epoch), (true, None));
    assert_eq!(again.identity, first.identity);
    assert_eq!(guard.free(), free);
}

#[test]
fn another_boot_takes_the_place_of_the_one_before() {
    let mut guard = guard(0);
    let mut first = claim("s1", "e1");
    first.reservation.goods.holding.cpu_milli = 3_000;
    guard.admit(&first, now()).unwrap();
    let mut second = claim("s1", "e2");
    second.reservation.goods.holding.cpu_milli = 4_000;
    assert!(!guard.admit(&second, now()).unwrap().again, "its own goods are not in its way");
    assert_eq!(guard.free().cpu_milli, Some(0));
    let mut third = claim("s1", "e3");
    third.reservation.goods.holding.cpu_milli = 5_000;
    guard.admit(&third, now()).unwrap_err();
    assert_eq!(guard.execution(&second.sandbox), Some(&second.execution));
    assert_eq!(guard.free().cpu_milli, Some(0), "a refused boot does not free the one before");
    guard.release(&second.sandbox, Some(&first.execution));
    assert_eq!(guard.free().cpu_milli, Some(0), "an older boot's end is not this one's");
    guard.release(&second.sandbox, Some(&second.execution));
    assert_eq!(guard.free().cpu_milli, Some(4_000));
}

#[test]
fn an_older_owner_is_fenced_also_after_the_sandbox_is_gone() {
    let mut guard = guard(0);
    let mut newer = claim("s1", "e1");
    newer.owner_epoch = 7;
    guard.admit(&newer, now()).unwrap();
    let mut older = claim("s1", "e1");
    older.owner_epoch = 6;
    let refused = guard.admit(&older, now()).unwrap_err();
    assert_eq!(refused, Refusal::OwnerFenced { seen: 7, given: 6 });
    assert_eq!(refused.into_fault().reason, Reason::OwnerFenced);
    guard.release(&newer.sandbox, None);
    assert!(guard.admit(&older, now()).is_err());
    assert!(guard.fence(&newer.sandbox, 6).is_err());
    guard.fence(&newer.sandbox, 7).unwrap();
    guard.admit(&newer, now()).unwrap();
}

#[test]
fn what_runs_is_adopted_even_when_it_does_not_fit() {
    let mut guard = guard(0);
    let identity = guard.admit(&claim("s1", "e1"), now()).unwrap().identity;
    guard.release(&identity.sandbox, None);
    let mut goods = Goods::default();
    goods.holding.cpu_milli = 100_000;
    guard.adopt(identity, goods);
    assert_eq!(guard.free().cpu_milli, Some(0));
    assert!(guard.admit(&claim("s2", "e2"), now()).is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Admit(Box<Claim>),
    Release(SandboxId),
}

fn any_step() -> impl Strategy<Value = Step> {
    let admit = (
        (0u8..5, 0u8..3, 0i64..8, 0u64..120),
        (0u64..3_000, 0u64..6, any::<bool>(), 0i64..4),
        prop::sample::subsequence(vec!["gpu-0", "gpu-1", "gpu-9"], 0..3),
        prop::sample::select(vec![300u32, 700, 1000]),
    )
        .prop_map(
            |((sandbox, boot, epoch, expires), (cpu, memory, desktop, owner), gpus, share)| {
                let mut claim = claim(&format!("s{sandbox}"), &format!("e{boot}"));
                claim.owner_epoch = owner;
                claim.reservation.epoch = epoch;
                claim.reservation.expire_time = Some(
                    SystemTime::UNIX_EPOCH + NOW - Duration::from_secs(60)
                        + Duration::from_secs(expires),
                );
                claim.reservation.goods.holding = Holding {
                    cpu_milli: cpu,
                    memory_bytes: memory,
                    disk_bytes: 0,
                    desktop,
                    grant: Grant {
                        share_milli: if gpus.is_empty() { 0 } else { share },
                        devices: gpus.into_iter().map(str::to_owned).collect(),
                        encoder: None,
                    },
                };
                Step::Admit(Box::new(claim))
            },
        );
    prop_oneof![
        4 => admit,
        1 => (0u8..5).prop_map(|s| Step::Release(SandboxId::parse(&format!("s{s}")).unwrap())),
    ]
}

proptest! {
    #[test]
    fn goods_are_never_overcommitted_and_epochs_never_go_back(
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        let mut guard = guard(0);
        let mut highest = 0;
        for step in steps {
            match step {
                Step::Admit(claim) => {
                    let known = guard.execution(&claim.sandbox) == Some(&claim.execution);
                    let before = guard.free();
                    match guard.admit(&claim, now()) {
                        Ok(admitted) => {
                            prop_assert_eq!(admitted.again, known);
                            if !known {
                                prop_assert!(claim.reservation.epoch >= highest);
                                prop_assert!(claim.reservation.expire_time > Some(now()));
                                let newer = claim.reservation.epoch > highest;
                                prop_assert_eq!(admitted.new_epoch.is_some(), newer);
                                highest = highest.max(claim.reservation.epoch);
                            }
                        }
                        Err(_) => prop_assert_eq!(guard.free(), before),
                    }
                }
                Step::Release(sandbox) => {
                    guard.release(&sandbox, None);
                    prop_assert_eq!(guard.execution(&sandbox), None);
                }
            }
            let sum = |amount: fn(&Holding) -> u64| -> u64 {
                guard.held.values().map(|held| amount(&held.goods.holding)).sum()
            };
            prop_assert!(sum(|held| held.cpu_milli) <= 4_000);
            prop_assert!(sum(|held| held.memory_bytes) <= 8);
            prop_assert!(sum(|held| u64::from(held.desktop)) <= 2);
            for gpu in ["gpu-0", "gpu-1", "gpu-9"] {
                let used: u32 = guard.held.values().map(|held| &held.goods.holding.grant)
                    .filter(|grant| grant.devices.iter().any(|id| id == gpu))
                    .map(|grant| grant.share_milli).sum();
                prop_assert!(used <= if gpu == "gpu-9" { 0 } else { 1_000 }, "{gpu}: {used}");
            }
        }
    }
}
