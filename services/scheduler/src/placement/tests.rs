use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use wolfpack_types::capacity::{Capacity, Demand, Device, Good, GpuDemand};
use wolfpack_types::{ProjectId, WolfId};

use super::{Health, Host, Order, Refusal, Strategy as Placing, Tenant, best, rank};

fn wolf(name: &str) -> WolfId {
    WolfId::parse(name).unwrap()
}

fn project(name: &str) -> ProjectId {
    ProjectId::parse(name).unwrap()
}

fn capacity(cpu: u64, memory: u64, gpus: usize) -> Capacity {
    Capacity {
        cpu_milli: Some(cpu),
        memory_bytes: Some(memory),
        disk_bytes: None,
        desktop_slots: 2,
        devices: (0..gpus)
            .map(|id| Device {
                id: format!("gpu-{id}"),
                vendor: None,
                model: "A".into(),
                memory_bytes: None,
            })
            .collect(),
    }
}

fn host(name: &str, cpu: u64, memory: u64, gpus: usize) -> Host {
    Host::new(wolf(name), capacity(cpu, memory, gpus))
}

fn fleet(hosts: Vec<Host>) -> Vec<Arc<Host>> {
    hosts.into_iter().map(Arc::new).collect()
}

fn order(cpu: u64, memory: u64) -> Order {
    Order {
        tenant: Tenant::Project(project("mine")),
        demand: Demand { cpu_milli: cpu, memory_bytes: memory, ..Demand::default() },
        selector: BTreeMap::new(),
        strategy: Placing::Pack,
        excluded: BTreeSet::new(),
    }
}

#[test]
fn the_first_filter_that_fails_is_the_blocker() {
    let mut foreign = host("foreign", 9, 9, 0);
    foreign.project = Some(project("theirs"));
    foreign.health = Health::Offline;
    let mut offline = host("offline", 0, 0, 0);
    offline.health = Health::Offline;
    offline.tunnel_attached = false;
    let mut detached = host("detached", 0, 0, 0);
    detached.tunnel_attached = false;
    detached.health = Health::Suspect;
    let mut suspect = host("suspect", 9, 9, 0);
    suspect.health = Health::Suspect;
    let mut labelled = host("labelled", 0, 0, 0);
    labelled.labels.insert("zone".into(), "b".into());
    let mut fits = host("fits", 9, 9, 1);
    fits.labels.insert("zone".into(), "a".into());
    let mut poor = fits.clone();
    poor.id = wolf("poor");
    poor.ledger.set_capacity(capacity(9, 1, 1));
    let mut plain = fits.clone();
    plain.id = wolf("plain");
    plain.ledger.set_capacity(capacity(9, 9, 0));
    let mut refused = fits.clone();
    refused.id = wolf("refused");
    let hosts =
        fleet(vec![foreign, offline, detached, suspect, labelled, fits, poor, plain, refused]);
    let mut order = order(2, 2);
    order.selector.insert("zone".into(), "a".into());
    order.excluded.insert(wolf("refused"));
    order.demand.gpu = Some(GpuDemand::whole(1));

    let ranking = rank(&hosts, &order);
    let blockers: Vec<(&str, &str)> = ranking
        .refused
        .iter()
        .map(|(host, refusal)| (host.id.as_str(), refusal.blocker()))
        .collect();
    assert_eq!(
        blockers,
        [
            ("offline", "WOLF_NOT_ONLINE"),
            ("detached", "TUNNEL_DETACHED"),
            ("suspect", "WOLF_NOT_ONLINE"),
            ("labelled", "LABELS_DIFFER"),
            ("poor", Good::Memory.blocker()),
            ("plain", "GPU_ABSENT"),
            ("refused", "WOLF_EXCLUDED"),
        ]
    );
    assert_eq!(ranking.fits.len(), 1);
    assert_eq!(ranking.fits[0].host.id, wolf("fits"));
    let short = &ranking.refused[4].1;
    assert_eq!(short.to_string(), "needs 2 bytes of memory, 1 are free: 1 missing");
}

#[test]
fn the_fleet_sees_every_wolf_and_a_project_its_own_and_shared_ones() {
    let mut theirs = host("theirs", 9, 9, 0);
    theirs.project = Some(project("theirs"));
    let mut mine = host("mine", 9, 9, 0);
    mine.project = Some(project("mine"));
    let hosts = fleet(vec![theirs, mine, host("shared", 9, 9, 0)]);
    let count = |tenant: Tenant| rank(&hosts, &Order { tenant, ..order(1, 1) }).fits.len();
    assert_eq!(count(Tenant::Project(project("mine"))), 2);
    assert_eq!(count(Tenant::Project(project("other"))), 1);
    assert_eq!(count(Tenant::Fleet), 3);
}

#[test]
fn pack_takes_the_tightest_wolf_and_spread_the_emptiest() {
    let mut busy = host("busy", 10, 10, 0);
    let held = Demand { cpu_milli: 5, memory_bytes: 5, ..Demand::default() };
    busy.ledger.try_take(wolfpack_types::ReservationId::new(), &held).unwrap();
    let hosts = fleet(vec![busy, host("idle", 10, 10, 0), host("large", 40, 40, 0)]);
    assert_eq!(best(&hosts, &order(2, 2)).unwrap().host.id, wolf("busy"));
    let spread = Order { strategy: Placing::Spread, ..order(2, 2) };
    assert_eq!(best(&hosts, &spread).unwrap().host.id, wolf("large"));
}

#[test]
fn plain_work_stays_off_wolves_with_gpus() {
    let hosts = fleet(vec![host("a-gpu", 10, 10, 4), host("b-plain", 10, 10, 0)]);
    assert_eq!(best(&hosts, &order(1, 1)).unwrap().host.id, wolf("b-plain"));
}

#[test]
fn equal_wolves_are_taken_by_id_in_any_order_of_the_fleet() {
    let hosts = fleet(vec![host("c", 9, 9, 0), host("a", 9, 9, 0), host("b", 9, 9, 0)]);
    for strategy in [Placing::Pack, Placing::Spread] {
        let order = Order { strategy, ..order(1, 1) };
        assert_eq!(best(&hosts, &order).unwrap().host.id, wolf("a"));
    }
}

#[test]
fn no_fit_counts_every_wolf_that_is_seen_once() {
    let mut foreign = host("foreign", 9, 9, 0);
    foreign.project = Some(project("theirs"));
    let hosts = fleet(vec![foreign, host("a", 1, 9, 0), host("b", 1, 9, 0), host("c", 9, 1, 0)]);
    let no_fit = best(&hosts, &order(5, 5)).unwrap_err();
    assert_eq!(no_fit.seen, 3);
    assert_eq!(no_fit.blocked_by, BTreeMap::from([("CPU_SHORT", 2), ("MEMORY_SHORT", 1)]));
    assert!(!no_fit.example.unwrap().contains("foreign"));
    assert_eq!(best(&[], &order(1, 1)).unwrap_err().seen, 0);
}

fn any_host() -> impl proptest::strategy::Strategy<Value = Host> {
    (0u32..40, 1u64..9, 1u64..9, 0usize..4, 0u8..8, 0u8..3).prop_map(
        |(id, cpu, memory, gpus, health, owner)| {
            let mut host = host(&format!("w{id}"), cpu, memory, gpus);
            host.health = if health == 0 { Health::Offline } else { Health::Online };
            host.tunnel_attached = health != 1;
            host.project = (owner == 0).then(|| project("theirs"));
            host
        },
    )
}

fn any_order() -> impl proptest::strategy::Strategy<Value = Order> {
    let gpu = prop::option::of(prop_oneof![
        (1u32..3).prop_map(GpuDemand::whole),
        Just(GpuDemand::share(500))
    ]);
    (1u64..6, 1u64..6, any::<bool>(), gpu, any::<bool>()).prop_map(
        |(cpu, memory, desktop, gpu, spread)| {
            let mut order = order(cpu, memory);
            order.demand.desktop = desktop;
            order.demand.gpu = gpu;
            order.strategy = if spread { Placing::Spread } else { Placing::Pack };
            order
        },
    )
}

proptest! {
    #[test]
    fn every_wolf_that_is_seen_has_one_verdict_and_it_is_true(
        hosts in prop::collection::vec(any_host(), 0..12),
        order in any_order(),
    ) {
        let hosts = fleet(hosts);
        let ranking = rank(&hosts, &order);
        let seen = hosts.iter().filter(|host| order.tenant.sees(host)).count();
        let blocked: u32 = ranking.blocked_by().values().sum();
        prop_assert_eq!(ranking.fits.len() + ranking.refused.len(), seen);
        prop_assert_eq!(blocked as usize, ranking.refused.len());
        for fit in &ranking.fits {
            prop_assert!(fit.host.ledger.shortage(&order.demand).is_none());
            prop_assert!(fit.host.project.is_none());
            prop_assert!((0.0..=1.0).contains(&fit.score), "score {}", fit.score);
        }
        for (host, refusal) in &ranking.refused {
            if let Refusal::Short(shortage) = refusal {
                prop_assert_eq!(host.ledger.shortage(&order.demand), Some(*shortage));
            }
        }
        match best(&hosts, &order) {
            Ok(fit) => prop_assert_eq!(&fit.host.id, &ranking.fits[0].host.id),
            Err(no_fit) => {
                prop_assert!(ranking.fits.is_empty());
                prop_assert_eq!(no_fit.blocked_by, ranking.blocked_by());
            }
        }
    }

    #[test]
    fn the_order_of_the_fleet_does_not_matter(
        hosts in prop::collection::btree_map(0u32..40, any_host(), 0..12),
        order in any_order(),
    ) {
        let hosts: Vec<Arc<Host>> = hosts
            .into_iter()
            .map(|(id, mut host)| { host.id = wolf(&format!("w{id}")); Arc::new(host) })
            .collect();
        let mut backwards = hosts.clone();
        backwards.reverse();
        let chosen = |hosts: &[Arc<Host>]| best(hosts, &order).map(|fit| fit.host.id.clone()).ok();
        prop_assert_eq!(chosen(&hosts), chosen(&backwards));
    }
}
