use super::super::{Capacity, Demand, Device, Good, GpuDemand, GpuVendor, Shortage};
use super::*;
use proptest::prelude::*;

fn device(id: usize, vendor: Option<GpuVendor>, model: &str, memory: Option<u64>) -> Device {
    Device { id: format!("gpu-{id}"), vendor, model: model.to_owned(), memory_bytes: memory }
}

fn two_devices() -> Ledger<u32> {
    Ledger::new(Capacity {
        cpu_milli: Some(8000),
        memory_bytes: Some(1000),
        disk_bytes: None,
        desktop_slots: 1,
        devices: vec![
            device(0, Some(GpuVendor::Nvidia), "A", Some(10)),
            device(1, Some(GpuVendor::Nvidia), "A", Some(10)),
        ],
    })
}

fn gpu(gpu: GpuDemand) -> Demand {
    Demand { gpu: Some(gpu), ..Demand::default() }
}

#[test]
fn halves_of_two_devices_are_not_one_of_eight_tenths() {
    let mut ledger = two_devices();
    let halves = ["gpu-0", "gpu-1"];
    for (key, id) in halves.iter().enumerate() {
        let grant = Grant { devices: vec![(*id).to_owned()], share_milli: 500 };
        ledger.adopt(u32::try_from(key).unwrap(), Holding { grant, ..Holding::default() });
    }
    let shortage = ledger.try_take(9, &gpu(GpuDemand::share(800))).unwrap_err();
    assert_eq!(shortage, Shortage { good: Good::GpuBusy, needed: 800, free: Some(500) });
    assert_eq!(shortage.missing(), 300);
    assert_eq!(ledger.try_take(9, &gpu(GpuDemand::share(500))).unwrap().devices, ["gpu-0"]);
}

#[test]
fn whole_devices_are_wholly_free_ones() {
    let mut ledger = two_devices();
    ledger.try_take(1, &gpu(GpuDemand::share(1))).unwrap();
    let shortage = ledger.shortage(&gpu(GpuDemand::whole(2))).unwrap();
    assert_eq!(shortage, Shortage { good: Good::GpuBusy, needed: 2, free: Some(1) });
    assert_eq!(ledger.try_take(2, &gpu(GpuDemand::whole(1))).unwrap().devices, ["gpu-1"]);
}

#[test]
fn what_was_never_measured_is_promised_to_nobody() {
    let mut ledger = two_devices();
    let disk = Demand { disk_bytes: 1, ..Demand::default() };
    assert_eq!(ledger.shortage(&disk), Some(Shortage { good: Good::Disk, needed: 1, free: None }));
    assert!(ledger.try_take(1, &Demand { memory_bytes: 1000, ..Demand::default() }).is_ok());
}

#[test]
fn the_first_gpu_filter_that_fails_is_named() {
    let mut ledger = two_devices();
    ledger.set_capacity(Capacity {
        devices: vec![
            device(0, Some(GpuVendor::Amd), "B", None),
            device(1, Some(GpuVendor::Nvidia), "A", Some(10)),
        ],
        ..ledger.capacity().clone()
    });
    let short = |demand: GpuDemand| ledger.shortage(&gpu(demand)).map(|shortage| shortage.good);
    assert_eq!(short(GpuDemand::whole(3)), Some(Good::GpuAbsent));
    let intel = GpuDemand { vendor: Some(GpuVendor::Intel), ..GpuDemand::whole(1) };
    assert_eq!(short(intel), Some(Good::GpuAbsent));
    let model = GpuDemand { models: vec!["C".into()], ..GpuDemand::whole(1) };
    assert_eq!(short(model), Some(Good::GpuModel));
    let memory = GpuDemand { min_memory_bytes: 5, ..GpuDemand::whole(2) };
    assert_eq!(short(memory), Some(Good::GpuMemory), "unmeasured memory satisfies no least");
    let lower_case = GpuDemand { models: vec!["a".into()], ..GpuDemand::whole(1) };
    assert_eq!(short(lower_case), None);
}

#[test]
fn a_repeated_key_takes_once() {
    let mut ledger = two_devices();
    let demand = Demand { cpu_milli: 5000, desktop: true, ..gpu(GpuDemand::whole(1)) };
    let first = ledger.try_take(1, &demand).unwrap();
    assert_eq!(ledger.try_take(1, &demand).unwrap(), first);
    assert_eq!(ledger.free().cpu_milli, Some(3000));
    let second = ledger.try_take(2, &Demand { desktop: true, ..Demand::default() }).unwrap_err();
    assert_eq!(second, Shortage { good: Good::DesktopSlots, needed: 1, free: Some(0) });
}

#[test]
fn exact_devices_of_another_ledger_are_checked() {
    let mut ledger = two_devices();
    let hold = |devices: &[&str], share_milli| Holding {
        grant: Grant { devices: devices.iter().map(|id| (*id).to_owned()).collect(), share_milli },
        ..Holding::default()
    };
    assert_eq!(ledger.try_hold(1, &hold(&["gpu-7"], 1000)).unwrap_err().good, Good::GpuAbsent);
    assert_eq!(
        ledger.try_hold(1, &hold(&["gpu-0", "gpu-0"], 1000)).unwrap_err().good,
        Good::GpuBusy,
        "one device twice is not two devices"
    );
    ledger.try_hold(1, &hold(&["gpu-0"], 600)).unwrap();
    assert_eq!(ledger.try_hold(2, &hold(&["gpu-0"], 600)).unwrap_err().good, Good::GpuBusy);
    ledger.try_hold(2, &hold(&["gpu-1"], 600)).unwrap();
}

#[test]
fn capacity_that_shrinks_frees_nothing_and_breaks_nothing() {
    let mut ledger = two_devices();
    ledger.try_take(1, &Demand { cpu_milli: 6000, ..gpu(GpuDemand::whole(2)) }).unwrap();
    ledger.set_capacity(Capacity { cpu_milli: Some(1000), ..Capacity::default() });
    assert_eq!(ledger.free().cpu_milli, Some(0));
    assert!(ledger.give_back(&1).is_some());
    assert_eq!(ledger.free().cpu_milli, Some(1000));
    assert!(ledger.devices.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Take(u32, Demand),
    GiveBack(u32),
}

fn any_vendor() -> impl Strategy<Value = Option<GpuVendor>> {
    prop::sample::select(vec![None, Some(GpuVendor::Nvidia), Some(GpuVendor::Amd)])
}

fn any_capacity() -> impl Strategy<Value = Capacity> {
    let devices = prop::collection::vec(
        (any_vendor(), prop::sample::select(vec!["A", "B"]), prop::option::of(1u64..4)),
        0..4,
    );
    (
        prop::option::of(0u64..8),
        prop::option::of(0u64..8),
        prop::option::of(0u64..4),
        0u32..3,
        devices,
    )
        .prop_map(|(cpu_milli, memory_bytes, disk_bytes, desktop_slots, devices)| Capacity {
            cpu_milli,
            memory_bytes,
            disk_bytes,
            desktop_slots,
            devices: devices
                .into_iter()
                .enumerate()
                .map(|(id, (vendor, model, memory))| device(id, vendor, model, memory))
                .collect(),
        })
}

fn any_gpu() -> impl Strategy<Value = GpuDemand> {
    let shape = prop_oneof![
        (1u32..4).prop_map(GpuDemand::whole),
        prop::sample::select(vec![1u32, 300, 500, 800, 999]).prop_map(GpuDemand::share),
    ];
    (shape, any_vendor(), prop::sample::subsequence(vec!["A", "B"], 0..2), 0u64..4).prop_map(
        |(shape, vendor, models, min_memory_bytes)| GpuDemand {
            vendor,
            models: models.into_iter().map(str::to_owned).collect(),
            min_memory_bytes,
            ..shape
        },
    )
}

fn any_demand() -> impl Strategy<Value = Demand> {
    (0u64..5, 0u64..5, 0u64..3, any::<bool>(), prop::option::of(any_gpu())).prop_map(
        |(cpu_milli, memory_bytes, disk_bytes, desktop, gpu)| Demand {
            cpu_milli,
            memory_bytes,
            disk_bytes,
            pids: 1,
            desktop,
            gpu,
        },
    )
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u32..12, any_demand()).prop_map(|(key, demand)| Step::Take(key, demand)),
        1 => (0u32..12).prop_map(Step::GiveBack),
    ];
    prop::collection::vec(step, 0..40)
}

/// Whether any set of devices would do, by trying all of them.
fn brute_force(ledger: &Ledger<u32>, demand: &Demand) -> bool {
    let capacity = ledger.capacity();
    let held = |amount: fn(&Holding) -> u64| ledger.holdings().values().map(amount).sum::<u64>();
    let room = |capacity: Option<u64>, used: u64, wanted: u64| {
        wanted == 0 || capacity.is_some_and(|capacity| used + wanted <= capacity)
    };
    if !room(capacity.cpu_milli, held(|held| held.cpu_milli), demand.cpu_milli)
        || !room(capacity.memory_bytes, held(|held| held.memory_bytes), demand.memory_bytes)
        || !room(capacity.disk_bytes, held(|held| held.disk_bytes), demand.disk_bytes)
        || !room(
            Some(u64::from(capacity.desktop_slots)),
            held(|held| u64::from(held.desktop)),
            u64::from(demand.desktop),
        )
    {
        return false;
    }
    let Some(gpu) = &demand.gpu else { return true };
    let used = |id: &str| {
        ledger
            .holdings()
            .values()
            .filter(|held| held.grant.devices.iter().any(|device| device == id))
            .map(|held| held.grant.share_milli)
            .sum::<u32>()
    };
    (0u32..1 << capacity.devices.len()).any(|set| {
        let chosen: Vec<&Device> = capacity
            .devices
            .iter()
            .enumerate()
            .filter(|(index, _)| set & (1 << index) != 0)
            .map(|(_, device)| device)
            .collect();
        chosen.len() == gpu.count as usize
            && chosen.iter().all(|device| {
                (gpu.vendor.is_none() || gpu.vendor == device.vendor)
                    && (gpu.models.is_empty() || gpu.models.contains(&device.model))
                    && (gpu.min_memory_bytes == 0
                        || device.memory_bytes.unwrap_or(0) >= gpu.min_memory_bytes)
                    && used(&device.id) + gpu.share_milli <= 1000
            })
    })
}

fn within_capacity(ledger: &Ledger<u32>) -> Result<(), TestCaseError> {
    let capacity = ledger.capacity();
    let sum = |amount: fn(&Holding) -> u64| ledger.holdings().values().map(amount).sum::<u64>();
    prop_assert!(sum(|held| held.cpu_milli) <= capacity.cpu_milli.unwrap_or(0));
    prop_assert!(sum(|held| held.memory_bytes) <= capacity.memory_bytes.unwrap_or(0));
    prop_assert!(sum(|held| held.disk_bytes) <= capacity.disk_bytes.unwrap_or(0));
    prop_assert!(sum(|held| u64::from(held.desktop)) <= u64::from(capacity.desktop_slots));
    for device in &capacity.devices {
        let used: u32 = ledger
            .holdings()
            .values()
            .filter(|held| held.grant.devices.contains(&device.id))
            .map(|held| held.grant.share_milli)
            .sum();
        prop_assert!(used <= 1000, "{} is held {used} milli", device.id);
        prop_assert_eq!(ledger.free_share(&device.id), Some(u64::from(1000 - used)));
    }
    Ok(())
}

proptest! {
    #[test]
    fn capacity_is_never_exceeded_and_answers_match_brute_force(
        capacity in any_capacity(),
        steps in any_steps(),
    ) {
        let mut ledger: Ledger<u32> = Ledger::new(capacity);
        for step in steps {
            match step {
                Step::Take(key, demand) => {
                    let held = ledger.holdings().contains_key(&key);
                    let possible = brute_force(&ledger, &demand);
                    prop_assert_eq!(ledger.shortage(&demand).is_none(), possible);
                    let taken = ledger.try_take(key, &demand);
                    prop_assert_eq!(taken.is_ok(), possible || held);
                    if let (Ok(grant), false) = (&taken, held) {
                        let count = demand.gpu.as_ref().map_or(0, |gpu| gpu.count as usize);
                        prop_assert_eq!(grant.devices.len(), count);
                    }
                    if let Err(shortage) = taken {
                        prop_assert!(shortage.missing() > 0);
                    }
                }
                Step::GiveBack(key) => {
                    let held = ledger.holdings().contains_key(&key);
                    prop_assert_eq!(ledger.give_back(&key).is_some(), held);
                }
            }
            within_capacity(&ledger)?;
        }
    }

    #[test]
    fn giving_back_restores_exactly(
        capacity in any_capacity(),
        before in any_steps(),
        demand in any_demand(),
    ) {
        let mut ledger: Ledger<u32> = Ledger::new(capacity);
        for step in before {
            if let Step::Take(key, demand) = step {
                let _ = ledger.try_take(key, &demand);
            }
        }
        let snapshot = ledger.clone();
        if ledger.try_take(99, &demand).is_ok() {
            prop_assert!(ledger.give_back(&99).is_some());
        }
        prop_assert_eq!(ledger.free(), snapshot.free());
        prop_assert_eq!(&ledger.devices, &snapshot.devices);
        prop_assert_eq!(ledger.holdings(), snapshot.holdings());
    }

    #[test]
    fn another_ledger_accepts_what_this_one_granted(
        capacity in any_capacity(),
        demands in prop::collection::vec(any_demand(), 0..12),
    ) {
        let mut scheduler: Ledger<u32> = Ledger::new(capacity.clone());
        let mut agent: Ledger<u32> = Ledger::new(capacity);
        for (key, demand) in (0u32..).zip(demands) {
            if let Ok(grant) = scheduler.try_take(key, &demand) {
                prop_assert_eq!(agent.try_hold(key, &Holding::of(&demand, grant)), Ok(()));
            }
        }
        prop_assert_eq!(agent.free(), scheduler.free());
    }
}
