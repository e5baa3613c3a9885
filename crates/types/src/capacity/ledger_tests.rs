use super::super::{
    Capacity, Demand, Device, EncoderCodec, EncoderDemand, Good, GpuDemand, GpuVendor, Shortage,
};
use super::*;

pub(super) fn device(
    id: usize,
    vendor: Option<GpuVendor>,
    model: &str,
    memory: Option<u64>,
) -> Device {
    Device {
        id: format!("gpu-{id}"),
        vendor,
        model: model.to_owned(),
        memory_bytes: memory,
        ..Device::default()
    }
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
        encoder_sessions: None,
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
        let grant = Grant { devices: vec![(*id).to_owned()], share_milli: 500, encoder: None };
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
        grant: Grant {
            devices: devices.iter().map(|id| (*id).to_owned()).collect(),
            share_milli,
            encoder: None,
        },
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

fn encoders(sessions: u32, pool: Option<u32>) -> Ledger<u32> {
    let mut capacity = two_devices().capacity().clone();
    for device in &mut capacity.devices {
        device.encoder_sessions = Some(sessions);
        device.encoder_pooled = pool.is_some();
        device.encoder_codecs = vec![EncoderCodec::H264];
    }
    Ledger::new(Capacity { encoder_sessions: pool, ..capacity })
}

fn encoder(encoder: EncoderDemand) -> Demand {
    Demand { encoder: Some(encoder), ..Demand::default() }
}

#[test]
fn one_session_more_than_there_is_is_refused_with_its_reason() {
    // Two devices of eight sessions each, which the driver counts as eight.
    let mut ledger = encoders(8, Some(8));
    let one = encoder(EncoderDemand::required(1));
    for key in 0..8 {
        ledger.try_take(key, &one).unwrap();
    }
    let refused = ledger.try_take(8, &one).unwrap_err();
    assert_eq!(refused, Shortage { good: Good::EncodersBusy, needed: 1, free: Some(0) });
    let soft = ledger.try_take(9, &encoder(EncoderDemand::preferred(1))).unwrap();
    assert_eq!(soft.encoder, None, "it encodes on the cpu");
    ledger.give_back(&3).unwrap();
    assert!(ledger.try_take(8, &one).unwrap().encoder.is_some());

    let mut unpooled = encoders(2, None);
    for key in 0..4 {
        unpooled.try_take(key, &one).unwrap();
    }
    assert_eq!(unpooled.try_take(4, &one).unwrap_err().good, Good::EncodersBusy);
}

#[test]
fn sessions_are_of_one_device_and_of_the_right_codec() {
    let ledger = encoders(2, None);
    let three = ledger.shortage(&encoder(EncoderDemand::required(3))).unwrap();
    assert_eq!(three, Shortage { good: Good::EncoderAbsent, needed: 3, free: Some(2) });
    let av1 = EncoderDemand { codec: Some(EncoderCodec::Av1), ..EncoderDemand::required(1) };
    assert_eq!(ledger.shortage(&encoder(av1)).unwrap().good, Good::EncoderAbsent);
    let unknown = two_devices().shortage(&encoder(EncoderDemand::required(1))).unwrap();
    assert_eq!(unknown.good, Good::EncoderAbsent, "unknown sessions are none");
}

#[test]
fn an_encoder_is_of_the_sandboxs_own_gpu_and_one_that_is_held_wholly_is_not_lent() {
    let mut ledger = encoders(4, None);
    let wanted = Some(EncoderDemand::required(1));
    let own = Demand { encoder: wanted, ..gpu(GpuDemand::whole(1)) };
    let grant = ledger.try_take(1, &own).unwrap();
    assert_eq!(grant.encoder.as_ref().unwrap().device, grant.devices[0]);
    let lent = ledger.try_take(2, &encoder(EncoderDemand::required(1))).unwrap();
    let lent = lent.encoder.unwrap().device;
    assert_ne!(lent, grant.devices[0], "that one is held wholly");
    // What is lent is nobody's wholly, but can be shared.
    assert_eq!(ledger.shortage(&gpu(GpuDemand::whole(1))).unwrap().good, Good::GpuBusy);
    assert_eq!(ledger.fit(&gpu(GpuDemand::share(900))).unwrap().devices, [lent]);
    let more = ledger.try_take(3, &encoder(EncoderDemand::required(4))).unwrap_err();
    assert_eq!(more, Shortage { good: Good::EncodersBusy, needed: 4, free: Some(3) });
}

#[test]
fn what_failed_gets_nothing_new_and_keeps_what_it_has() {
    let mut ledger = encoders(4, None);
    let share = Demand { encoder: Some(EncoderDemand::required(1)), ..gpu(GpuDemand::share(100)) };
    let held = ledger.try_take(1, &share).unwrap();
    let mut capacity = ledger.capacity().clone();
    for device in &mut capacity.devices {
        device.unhealthy = true;
    }
    ledger.set_capacity(capacity);
    let refused = ledger.shortage(&gpu(GpuDemand::whole(1))).unwrap();
    assert_eq!(refused, Shortage { good: Good::GpuUnhealthy, needed: 1, free: Some(0) });
    let lent = ledger.shortage(&encoder(EncoderDemand::required(1))).unwrap();
    assert_eq!(lent.good, Good::GpuUnhealthy);
    let exact = Holding { grant: held.clone(), ..Holding::default() };
    assert_eq!(ledger.try_hold(2, &exact).unwrap_err().good, Good::GpuUnhealthy);
    assert_eq!(ledger.holdings()[&1].grant, held);
    assert_eq!((ledger.free().gpu_milli, ledger.free().encoder_sessions), (0, 0));
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
