use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use wolfpack_types::capacity::{Capacity, Demand, Device, EncoderDemand, Good, GpuDemand};
use wolfpack_types::{DockerMode, ProjectId, WolfId};

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
            .map(|id| Device { id: format!("gpu-{id}"), model: "A".into(), ..Device::default() })
            .collect(),
        encoder_sessions: None,
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
        docker: DockerMode::None,
        mounts: Vec::new(),
        image: String::new(),
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

fn encoding(mut host: Host, sessions: Option<u32>) -> Host {
    let mut capacity = host.ledger.capacity().clone();
    for device in &mut capacity.devices {
        device.encoder_sessions = sessions;
    }
    host.ledger.set_capacity(capacity);
    host
}

#[test]
fn docker_mounts_and_disk_refuse_by_their_names() {
    let mut own = host("own", 9, 9, 0);
    own.project = Some(project("mine"));
    own.offer.docker_modes = BTreeSet::from([DockerMode::Nested, DockerMode::Shared]);
    own.offer.mount_paths = vec!["/srv/code".into()];
    let mut shared = host("shared", 9, 9, 0);
    shared.offer.docker_modes = own.offer.docker_modes.clone();
    shared.offer.mount_paths = vec!["/".into()];
    let plain = host("plain", 9, 9, 0);
    let mut open = host("open", 9, 9, 0);
    open.offer.mount_paths = vec!["/srv".into()];
    open.offer.mounts_every_project = true;
    let mut full = host("full", 9, 9, 0);
    full.offer.disk_pressure = "3 % of the disk is free".into();
    let hosts = fleet(vec![own, shared, plain, open, full]);
    let verdicts = |order: &Order| -> Vec<(String, String)> {
        let ranking = rank(&hosts, order);
        let mut all: Vec<_> =
            ranking.fits.iter().map(|fit| (fit.host.id.to_string(), String::new())).collect();
        all.extend(ranking.refused.iter().map(|(h, r)| (h.id.to_string(), r.blocker().to_owned())));
        all.sort();
        all
    };
    let told = |full: &str, open: &str, own: &str, plain: &str, shared: &str| {
        [("full", full), ("open", open), ("own", own), ("plain", plain), ("shared", shared)]
            .map(|(name, blocker)| (name.to_owned(), blocker.to_owned()))
            .to_vec()
    };
    let (disk, absent) = ("DISK_PRESSURE", "DOCKER_MODE_ABSENT");
    let (forbidden, others) = ("MOUNT_FORBIDDEN", "WOLF_NOT_OWN");
    assert_eq!(verdicts(&order(1, 1)), told(disk, "", "", "", ""));
    let nested = Order { docker: DockerMode::Nested, ..order(1, 1) };
    assert_eq!(verdicts(&nested), told(disk, absent, "", absent, ""));
    let siblings = Order { docker: DockerMode::Shared, ..order(1, 1) };
    assert_eq!(verdicts(&siblings), told(disk, others, "", others, others));
    let mount = |source: &str| Order { mounts: vec![source.into()], ..order(1, 1) };
    assert_eq!(verdicts(&mount("/srv/code/a")), told(disk, "", "", forbidden, others));
    assert_eq!(verdicts(&mount("/srv/codex")), told(disk, "", forbidden, forbidden, others));
    assert_eq!(
        verdicts(&mount("/srv/code/../x")),
        told(disk, forbidden, forbidden, forbidden, forbidden)
    );
}

#[test]
fn a_folder_is_for_the_project_of_its_wolf_unless_it_is_for_every_project() {
    let allowing = |name: &str, owner: Option<&str>, every_project: bool| {
        let mut host = host(name, 9, 9, 0);
        host.project = owner.map(project);
        host.offer.mount_paths = vec!["/srv".into()];
        host.offer.mounts_every_project = every_project;
        host
    };
    let mounting = |tenant: Tenant| Order { tenant, mounts: vec!["/srv/a".into()], ..order(1, 1) };
    let mine = || Tenant::Project(project("mine"));
    let hosts = fleet(vec![allowing("all", None, false)]);
    let refused = best(&hosts, &mounting(mine())).unwrap_err();
    assert_eq!(refused.blocked_by, BTreeMap::from([("WOLF_NOT_OWN", 1)]));
    let why = refused.example.unwrap();
    assert!(why.contains("/srv/a") && why.contains("the project's own"), "{why}");
    assert!(best(&hosts, &mounting(Tenant::Fleet)).is_err(), "for the fleet as for its tenants");
    assert!(best(&hosts, &order(1, 1)).is_ok(), "without a mount it is as good as any");

    for hosts in [
        fleet(vec![allowing("own", Some("mine"), false)]),
        fleet(vec![allowing("open", None, true)]),
    ] {
        assert!(best(&hosts, &mounting(mine())).is_ok());
        assert!(best(&hosts, &mounting(Tenant::Fleet)).is_ok());
    }
    let theirs = fleet(vec![allowing("theirs", Some("theirs"), true)]);
    let refused = best(&theirs, &mounting(mine())).unwrap_err();
    assert_eq!(refused.seen, 0, "another project's wolf is not there at all");
}

#[test]
fn preferred_encoders_come_first_and_required_ones_are_needed() {
    let hosts = fleet(vec![
        host("a-none", 4, 4, 1),
        encoding(host("b-some", 90, 90, 4), Some(2)),
        encoding(host("c-zero", 4, 4, 1), Some(0)),
    ]);
    let with = |encoder| {
        let mut order = order(1, 1);
        order.demand.encoder = Some(encoder);
        order
    };
    let preferred = with(EncoderDemand::preferred(1));
    let ranking = rank(&hosts, &preferred);
    assert_eq!(ranking.fits.len(), 3);
    assert_eq!(ranking.fits[0].host.id, wolf("b-some"), "although it is the emptiest");
    let required = with(EncoderDemand::required(1));
    let ranking = rank(&hosts, &required);
    assert_eq!(ranking.fits.len(), 1);
    assert_eq!(ranking.blocked_by(), BTreeMap::from([("ENCODER_ABSENT", 2)]));

    let mut busy = (*hosts[1]).clone();
    for _ in 0..8 {
        busy.ledger.try_take(wolfpack_types::ReservationId::new(), &required.demand).unwrap();
    }
    let hosts = fleet(vec![busy]);
    let refused = best(&hosts, &required).unwrap_err();
    assert_eq!(refused.blocked_by, BTreeMap::from([("ENCODERS_BUSY", 1)]));
    assert!(refused.example.unwrap().contains("1 missing"));
    assert!(best(&hosts, &preferred).unwrap().grant.encoder.is_none());
}

#[test]
fn of_equals_the_one_that_holds_the_image_comes_first_and_only_of_equals() {
    let with_image = |name, cpu| {
        let mut host = host(name, cpu, 9, 0);
        host.offer.images = Arc::new(BTreeSet::from(["x:latest".to_owned()]));
        host
    };
    let hosts = fleet(vec![host("a", 9, 9, 0), with_image("b", 9)]);
    let wanted = Order { image: "x:latest".into(), ..order(2, 2) };
    assert_eq!(best(&hosts, &wanted).unwrap().host.id, wolf("b"));
    assert_eq!(best(&hosts, &order(2, 2)).unwrap().host.id, wolf("a"));
    let hosts = fleet(vec![host("a", 9, 9, 0), with_image("b", 90)]);
    assert_eq!(best(&hosts, &wanted).unwrap().host.id, wolf("a"), "the strategy comes first");
}

fn any_host() -> impl proptest::strategy::Strategy<Value = Host> {
    let offer = (
        prop::sample::subsequence(vec![DockerMode::Nested, DockerMode::Shared], 0..=2),
        prop::sample::subsequence(vec!["/srv", "/home/a"], 0..=2),
        prop::bool::weighted(0.1),
        any::<bool>(),
        (prop::option::of(0u32..3), any::<bool>(), prop::option::of(0u32..3)),
        any::<bool>(),
    );
    (0u32..40, 1u64..9, 1u64..9, 0usize..4, 0u8..8, (0u8..4, offer)).prop_map(
        |(id, cpu, memory, gpus, health, (owner, (modes, mounts, full, image, encoders, open)))| {
            let mut host = host(&format!("w{id}"), cpu, memory, gpus);
            host.health = if health == 0 { Health::Offline } else { Health::Online };
            host.tunnel_attached = health != 1;
            host.project = match owner {
                0 => Some(project("theirs")),
                1 => Some(project("mine")),
                _ => None,
            };
            host.offer.docker_modes = modes.into_iter().collect();
            host.offer.mount_paths = mounts.into_iter().map(str::to_owned).collect();
            host.offer.mounts_every_project = open;
            host.offer.disk_pressure = if full { "full".into() } else { String::new() };
            if image {
                host.offer.images = Arc::new(BTreeSet::from(["x:latest".to_owned()]));
            }
            let mut capacity = host.ledger.capacity().clone();
            let (sessions, pooled, pool) = encoders;
            capacity.encoder_sessions = pool;
            for (index, device) in capacity.devices.iter_mut().enumerate() {
                device.encoder_sessions = sessions;
                device.encoder_pooled = pooled;
                device.unhealthy = index == 1;
            }
            host.ledger.set_capacity(capacity);
            host
        },
    )
}

fn any_order() -> impl proptest::strategy::Strategy<Value = Order> {
    let gpu = prop::option::of(prop_oneof![
        (1u32..3).prop_map(GpuDemand::whole),
        Just(GpuDemand::share(500))
    ]);
    let encoder = prop::option::of(prop_oneof![
        (1u32..3).prop_map(EncoderDemand::required),
        (1u32..3).prop_map(EncoderDemand::preferred),
    ]);
    let modes = vec![DockerMode::None, DockerMode::None, DockerMode::Nested, DockerMode::Shared];
    let extra = (
        encoder,
        prop::sample::select(modes),
        prop::sample::subsequence(vec!["/srv/a", "/home/a", "/home/../etc"], 0..2),
        prop::sample::select(vec!["", "x:latest"]),
    );
    (1u64..6, 1u64..6, any::<bool>(), gpu, any::<bool>(), extra).prop_map(
        |(cpu, memory, desktop, gpu, spread, (encoder, docker, mounts, image))| {
            let mut order = order(cpu, memory);
            order.demand.desktop = desktop;
            order.demand.gpu = gpu;
            order.demand.encoder = encoder;
            order.strategy = if spread { Placing::Spread } else { Placing::Pack };
            order.docker = docker;
            order.mounts = mounts.into_iter().map(str::to_owned).collect();
            order.image = image.to_owned();
            order
        },
    )
}

/// Whether a refusal is true of its wolf, looked at another way.
fn is_true(host: &Host, refusal: &Refusal<'_>, order: &Order) -> bool {
    let below = |source: &str, folder: &str| {
        !source.contains("..") && (source == folder || source.starts_with(&format!("{folder}/")))
    };
    match refusal {
        Refusal::NotOnline(health) => *health != Health::Online,
        Refusal::TunnelDetached => !host.tunnel_attached,
        Refusal::Excluded => order.excluded.contains(&host.id),
        Refusal::LabelsDiffer { key, wanted, .. } => {
            host.labels.get(*key).map(String::as_str) != Some(*wanted)
        }
        Refusal::DiskPressure(why) => !why.is_empty() && host.offer.disk_pressure == *why,
        Refusal::NotOwn => {
            order.docker == DockerMode::Shared && host.project != Some(project("mine"))
        }
        Refusal::MountNotOwn(source) => {
            order.mounts.iter().any(|mount| mount == source)
                && host.project != Some(project("mine"))
                && !host.offer.mounts_every_project
        }
        Refusal::DockerModeAbsent(mode) => {
            order.docker == *mode && !host.offer.docker_modes.contains(mode)
        }
        Refusal::MountForbidden(source) => {
            order.mounts.iter().any(|mount| mount == source)
                && !host.offer.mount_paths.iter().any(|folder| below(source, folder))
        }
        Refusal::Short(shortage) => host.ledger.shortage(&order.demand) == Some(*shortage),
    }
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
            prop_assert!(fit.host.project.is_none() || order.tenant.owns(fit.host));
            prop_assert!(order.docker != DockerMode::Shared || order.tenant.owns(fit.host));
            prop_assert!(
                order.mounts.is_empty()
                    || order.tenant.owns(fit.host)
                    || fit.host.offer.mounts_every_project
            );
            prop_assert!(fit.host.offer.disk_pressure.is_empty());
            let required = order.demand.encoder.is_some_and(|encoder| encoder.required);
            prop_assert!(fit.grant.encoder.is_some() || !required);
            prop_assert!((0.0..=1.0).contains(&fit.score), "score {}", fit.score);
        }
        for (host, refusal) in &ranking.refused {
            prop_assert!(is_true(host, refusal, &order), "{} is not true", refusal.blocker());
        }
        match best(&hosts, &order) {
            Ok(fit) => {
                prop_assert_eq!(&fit.host.id, &ranking.fits[0].host.id);
                prop_assert_eq!(fit.grant, ranking.fits[0].grant.clone());
                for other in &ranking.fits {
                    prop_assert!(fit.score >= other.score);
                    prop_assert!(
                        fit.holds_image || !other.holds_image || fit.score > other.score,
                        "of equals one that holds the image comes first"
                    );
                }
            }
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
