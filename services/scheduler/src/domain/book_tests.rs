use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use wolfpack_types::capacity::{Capacity, Demand, Device, GpuDemand};
use wolfpack_types::{DockerMode, ProjectId, ReservationId, ReservationState, SandboxId, WolfId};

use super::*;
use crate::placement::{Health, Offer, Order, Strategy as Placing, Tenant, rank};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(second)
}

fn stamp(second: i64) -> Stamp {
    Stamp { now: at(second), epoch: 1, ttl: TimeDelta::seconds(10) }
}

fn facts(name: &str, cpu: u64, gpus: usize) -> WolfFacts {
    WolfFacts {
        id: WolfId::parse(name).unwrap(),
        display_name: name.to_owned(),
        project: None,
        labels: BTreeMap::new(),
        health: Health::Online,
        tunnel_attached: true,
        offer: Offer::default(),
        capacity: Capacity {
            cpu_milli: Some(cpu),
            memory_bytes: Some(100),
            disk_bytes: None,
            desktop_slots: 1,
            devices: (0..gpus)
                .map(|id| Device { id: format!("gpu-{id}"), ..Device::default() })
                .collect(),
            encoder_sessions: None,
        },
    }
}

fn order(cpu: u64, gpu: Option<GpuDemand>) -> Order {
    Order {
        tenant: Tenant::Project(ProjectId::parse("p").unwrap()),
        demand: Demand { cpu_milli: cpu, gpu, ..Demand::default() },
        selector: BTreeMap::new(),
        strategy: Placing::Pack,
        excluded: BTreeSet::new(),
        docker: DockerMode::None,
        mounts: Vec::new(),
        image: String::new(),
    }
}

fn place(book: &mut Book, order: &Order, second: i64) -> Option<Change> {
    let request = (ReservationId::new().to_string(), [0; 32]);
    let project = ProjectId::parse("p").unwrap();
    book.place(order, project, SandboxId::new(), request, &stamp(second)).ok()
}

fn cpu_free(book: &Book, wolf: &str) -> u64 {
    let hosts = book.snapshot();
    let host = hosts.iter().find(|host| host.id.as_str() == wolf).unwrap();
    host.ledger.free().cpu_milli.unwrap()
}

#[test]
fn what_expired_cannot_be_confirmed_and_what_is_bound_does_not_expire() {
    let mut book = Book::default();
    book.replace_fleet(vec![facts("a", 4, 0)]);
    let bound = place(&mut book, &order(1, None), 0).unwrap().after;
    let late = place(&mut book, &order(1, None), 0).unwrap().after;
    let (record, change) = book.confirm(&bound.id, at(9)).unwrap();
    assert_eq!(record.state, ReservationState::Bound);
    assert_eq!(record.expire_time, None);
    assert!(change.is_some());
    assert!(book.confirm(&bound.id, at(99)).unwrap().1.is_none(), "confirming twice is once");
    let refused = book.confirm(&late.id, at(10)).unwrap_err();
    assert!(matches!(refused, ConfirmRefused::Expired(_)), "{refused:?}");
    assert_eq!(book.confirm(&late.id, at(10)), Err(ConfirmRefused::NotLive));
    assert_eq!(cpu_free(&book, "a"), 3);
    assert!(book.reap(at(1000), 100).is_empty());
}

#[test]
fn reservations_of_a_wolf_that_is_gone_are_lost_but_only_once_the_fleet_is_known() {
    let mut book = Book::default();
    let mut first = Book::default();
    first.replace_fleet(vec![facts("a", 4, 0)]);
    let record = place(&mut first, &order(1, None), 0).unwrap().after;
    let (record, _) = first.confirm(&record.id, at(1)).unwrap();
    book.load(vec![record.clone()]);
    assert!(book.reap(at(5), 100).is_empty(), "the fleet was not told yet");
    book.upsert(facts("a", 4, 0));
    assert_eq!(cpu_free(&book, "a"), 3, "a wolf that comes back still holds what it held");
    book.replace_fleet(vec![facts("b", 4, 0)]);
    let lost = book.reap(at(6), 100);
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].after.state, ReservationState::Lost);
    assert_eq!(lost[0].after.end_time, Some(at(6)));
    book.load(vec![record]);
    assert_eq!(book.reap(at(7), 100).len(), 1, "a commit that failed is tried again");
}

#[test]
fn a_wolf_that_changes_keeps_what_it_holds() {
    let mut book = Book::default();
    book.replace_fleet(vec![facts("a", 4, 0)]);
    place(&mut book, &order(3, None), 0).unwrap();
    book.upsert(WolfFacts { display_name: "new".into(), ..facts("a", 5, 0) });
    assert_eq!(cpu_free(&book, "a"), 2);
    assert_eq!(book.snapshot()[0].display_name, "new");
}

#[derive(Debug, Clone)]
enum Step {
    Place(u64, Option<GpuDemand>),
    Confirm(usize),
    Release(usize, bool),
    Wait(i64),
    Reap,
    Gone(usize),
    Back(usize),
    Restart,
}

fn any_step() -> impl proptest::strategy::Strategy<Value = Step> {
    let gpu = prop::option::of(prop_oneof![
        (1u32..3).prop_map(GpuDemand::whole),
        prop::sample::select(vec![300u32, 500, 800]).prop_map(GpuDemand::share),
    ]);
    prop_oneof![
        6 => (1u64..4, gpu).prop_map(|(cpu, gpu)| Step::Place(cpu, gpu)),
        3 => (0usize..20).prop_map(Step::Confirm),
        3 => ((0usize..20), any::<bool>()).prop_map(|(index, refused)| Step::Release(index, refused)),
        2 => (1i64..8).prop_map(Step::Wait),
        2 => Just(Step::Reap),
        1 => (0usize..3).prop_map(Step::Gone),
        1 => (0usize..3).prop_map(Step::Back),
        1 => Just(Step::Restart),
    ]
}

const WOLVES: [&str; 3] = ["a", "b", "c"];

fn capacities() -> [WolfFacts; 3] {
    [facts("a", 6, 0), facts("b", 8, 2), facts("c", 3, 1)]
}

fn holds_together(book: &Book) -> Result<(), TestCaseError> {
    for host in book.snapshot() {
        let live: Vec<&Record> =
            book.live().values().filter(|record| record.wolf == host.id).collect();
        prop_assert_eq!(live.len(), host.ledger.holdings().len());
        let used: u64 = live.iter().map(|record| record.demand.cpu_milli).sum();
        let capacity = host.ledger.capacity();
        prop_assert!(used <= capacity.cpu_milli.unwrap_or(0), "{} holds {used}", host.id);
        prop_assert_eq!(host.ledger.free().cpu_milli, capacity.cpu_milli.map(|all| all - used));
        for device in &capacity.devices {
            let milli: u32 = live
                .iter()
                .filter(|record| record.grant.devices.contains(&device.id))
                .map(|record| record.grant.share_milli)
                .sum();
            prop_assert!(milli <= 1000, "{} of {} holds {milli}", device.id, host.id);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn capacity_is_never_exceeded_and_explain_agrees_with_place(
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        let mut book = Book::default();
        let mut there = capacities().to_vec();
        book.replace_fleet(there.clone());
        let mut made: Vec<ReservationId> = Vec::new();
        let mut now = 0;
        for step in steps {
            let nth = |index: usize| made.get(index % made.len().max(1)).cloned();
            match step {
                Step::Place(cpu, gpu) => {
                    let order = order(cpu, gpu);
                    let hosts = book.snapshot();
                    let said = rank(&hosts, &order).fits.first().map(|fit| fit.host.id.clone());
                    let placed = place(&mut book, &order, now);
                    prop_assert_eq!(placed.as_ref().map(|change| change.after.wolf.clone()), said);
                    made.extend(placed.map(|change| change.after.id));
                }
                Step::Confirm(index) => {
                    if let Some(id) = nth(index) {
                        let was = book.live().get(&id).cloned();
                        let confirmed = book.confirm(&id, at(now));
                        let legal = was.is_some_and(|was| !was.is_due(at(now)));
                        prop_assert_eq!(confirmed.is_ok(), legal);
                    }
                }
                Step::Release(index, refused) => {
                    let outcome = if refused { ReservationState::Refused } else { ReservationState::Released };
                    if let Some(id) = nth(index) {
                        let was = book.live().contains_key(&id);
                        prop_assert_eq!(book.release(&id, outcome, at(now)).is_some(), was);
                        prop_assert!(book.release(&id, outcome, at(now)).is_none());
                    }
                }
                Step::Wait(seconds) => now += seconds,
                Step::Reap => {
                    book.reap(at(now), 1000);
                    prop_assert!(book.live().values().all(|record| !record.is_due(at(now))));
                }
                Step::Gone(index) => {
                    let id = WolfId::parse(WOLVES[index]).unwrap();
                    there.retain(|facts| facts.id != id);
                    book.remove(&id);
                    let lost = book.reap(at(now), 1000);
                    prop_assert!(book.live().values().all(|record| record.wolf != id));
                    prop_assert!(lost.iter().all(|change| !change.after.state.is_live()));
                }
                Step::Back(index) => {
                    if there.iter().all(|facts| facts.id.as_str() != WOLVES[index]) {
                        there.push(capacities()[index].clone());
                        book.upsert(capacities()[index].clone());
                    }
                }
                Step::Restart => {
                    let records: Vec<Record> = book.live().values().cloned().collect();
                    let mut fresh = Book::default();
                    fresh.load(records);
                    fresh.replace_fleet(there.clone());
                    let free = |book: &Book| book.snapshot().iter().map(|host| host.ledger.free()).collect::<Vec<_>>();
                    prop_assert_eq!(free(&fresh), free(&book));
                    book = fresh;
                }
            }
            holds_together(&book)?;
        }
    }
}
