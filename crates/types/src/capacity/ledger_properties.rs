use proptest::prelude::*;

use super::super::{Capacity, Demand, Device, EncoderCodec, EncoderDemand, GpuDemand, GpuVendor};
use super::tests::device;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Take(u32, Demand),
    GiveBack(u32),
}

fn any_vendor() -> impl Strategy<Value = Option<GpuVendor>> {
    prop::sample::select(vec![None, Some(GpuVendor::Nvidia), Some(GpuVendor::Amd)])
}

fn any_device() -> impl Strategy<Value = Device> {
    let encoder = (
        prop::option::of(0u32..4),
        any::<bool>(),
        prop::sample::subsequence(vec![EncoderCodec::H264, EncoderCodec::Av1], 0..=2),
        prop::bool::weighted(0.2),
    );
    (any_vendor(), prop::sample::select(vec!["A", "B"]), prop::option::of(1u64..4), encoder)
        .prop_map(|(vendor, model, memory, (sessions, pooled, codecs, unhealthy))| Device {
            encoder_sessions: sessions,
            encoder_pooled: pooled,
            encoder_codecs: codecs,
            unhealthy,
            ..device(0, vendor, model, memory)
        })
}

fn any_capacity() -> impl Strategy<Value = Capacity> {
    (
        prop::option::of(0u64..8),
        prop::option::of(0u64..8),
        prop::option::of(0u64..4),
        0u32..3,
        prop::collection::vec(any_device(), 0..4),
        prop::option::of(0u32..6),
    )
        .prop_map(|(cpu_milli, memory_bytes, disk_bytes, desktop_slots, devices, pool)| {
            Capacity {
                cpu_milli,
                memory_bytes,
                disk_bytes,
                desktop_slots,
                devices: devices
                    .into_iter()
                    .enumerate()
                    .map(|(id, device)| Device { id: format!("gpu-{id}"), ..device })
                    .collect(),
                encoder_sessions: pool,
            }
        })
}

fn any_encoder() -> impl Strategy<Value = EncoderDemand> {
    let codec = prop::sample::select(vec![
        None,
        Some(EncoderCodec::H264),
        Some(EncoderCodec::Hevc),
        Some(EncoderCodec::Av1),
    ]);
    (1u32..4, codec, any::<bool>()).prop_map(|(sessions, codec, required)| EncoderDemand {
        sessions,
        codec,
        required,
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
    (
        0u64..5,
        0u64..5,
        0u64..3,
        any::<bool>(),
        prop::option::of(any_gpu()),
        prop::option::of(any_encoder()),
    )
        .prop_map(|(cpu_milli, memory_bytes, disk_bytes, desktop, gpu, encoder)| Demand {
            cpu_milli,
            memory_bytes,
            disk_bytes,
            pids: 1,
            desktop,
            gpu,
            encoder,
        })
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
    let wanted = demand.encoder.filter(|encoder| encoder.required);
    let Some(gpu) = &demand.gpu else {
        return wanted.is_none_or(|wanted| {
            let mut devices = capacity.devices.iter();
            devices.any(|device| {
                shares_used(ledger, &device.id) < 1000 && encodes(ledger, device, &wanted)
            })
        });
    };
    let used = |id: &str| shares_used(ledger, id).max(u32::from(is_lent(ledger, id)));
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
                    && !device.unhealthy
            })
            && wanted
                .is_none_or(|wanted| chosen.iter().any(|device| encodes(ledger, device, &wanted)))
    })
}

fn shares_used(ledger: &Ledger<u32>, id: &str) -> u32 {
    let holdings = ledger.holdings().values();
    let of_it = holdings.filter(|held| held.grant.devices.iter().any(|device| device == id));
    of_it.map(|held| held.grant.share_milli).sum()
}

fn is_lent(ledger: &Ledger<u32>, id: &str) -> bool {
    ledger
        .holdings()
        .values()
        .any(|held| held.grant.borrows().is_some_and(|lent| lent.device == id))
}

fn sessions_used(ledger: &Ledger<u32>, counts: impl Fn(&str) -> bool) -> u32 {
    let grants = ledger.holdings().values().filter_map(|held| held.grant.encoder.as_ref());
    grants.filter(|encoder| counts(&encoder.device)).map(|encoder| encoder.sessions).sum()
}

fn encodes(ledger: &Ledger<u32>, device: &Device, wanted: &EncoderDemand) -> bool {
    let capacity = ledger.capacity();
    let pooled = |id: &str| capacity.devices.iter().any(|d| d.id == id && d.encoder_pooled);
    !device.unhealthy
        && wanted.codec.is_none_or(|codec| device.encoder_codecs.contains(&codec))
        && sessions_used(ledger, |id| id == device.id) + wanted.sessions
            <= device.encoder_sessions.unwrap_or(0)
        && (!device.encoder_pooled
            || capacity
                .encoder_sessions
                .is_none_or(|pool| sessions_used(ledger, pooled) + wanted.sessions <= pool))
}

fn within_capacity(ledger: &Ledger<u32>) -> Result<(), TestCaseError> {
    let capacity = ledger.capacity();
    let sum = |amount: fn(&Holding) -> u64| ledger.holdings().values().map(amount).sum::<u64>();
    prop_assert!(sum(|held| held.cpu_milli) <= capacity.cpu_milli.unwrap_or(0));
    prop_assert!(sum(|held| held.memory_bytes) <= capacity.memory_bytes.unwrap_or(0));
    prop_assert!(sum(|held| held.disk_bytes) <= capacity.disk_bytes.unwrap_or(0));
    prop_assert!(sum(|held| u64::from(held.desktop)) <= u64::from(capacity.desktop_slots));
    for device in &capacity.devices {
        let used = shares_used(ledger, &device.id);
        prop_assert!(used <= 1000, "{} is held {used} milli", device.id);
        let gone = used.max(u32::from(is_lent(ledger, &device.id)));
        prop_assert_eq!(ledger.free_share(&device.id), Some(u64::from(1000 - gone)));
        let sessions = sessions_used(ledger, |id| id == device.id);
        prop_assert!(sessions <= device.encoder_sessions.unwrap_or(0));
        let whole = ledger
            .holdings()
            .values()
            .any(|held| held.grant.share_milli == 1000 && held.grant.devices.contains(&device.id));
        prop_assert!(!(whole && is_lent(ledger, &device.id)), "{} is whole and lent", device.id);
    }
    if let Some(pool) = capacity.encoder_sessions {
        let pooled = |id: &str| capacity.devices.iter().any(|d| d.id == id && d.encoder_pooled);
        prop_assert!(sessions_used(ledger, pooled) <= pool);
    }
    for held in ledger.holdings().values() {
        let lent = held.grant.borrows().is_some();
        prop_assert!(!lent || held.grant.devices.is_empty(), "it encodes on a device of its own");
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
                        let required = demand.encoder.is_some_and(|wanted| wanted.required);
                        prop_assert!(grant.encoder.is_some() || !required);
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
        prop_assert_eq!(&ledger.encoders, &snapshot.encoders);
        prop_assert_eq!(&ledger.borrowers, &snapshot.borrowers);
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
