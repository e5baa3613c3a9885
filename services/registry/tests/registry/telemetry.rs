//! What heartbeats tell of GPUs, images and disk, and who hears of it.

use std::time::Duration;

use wolfpack_proto::registry::v1::watch_wolves_response::Event;
use wolfpack_proto::registry::v1::{
    GetWolfRequest, HeartbeatRequest, ListWolvesRequest, Role, WatchWolvesRequest, Wolf, WolfImage,
    WolfImages,
};
use wolfpack_proto::types::v1::{GpuTelemetry, TelemetryState};
use wolfpack_rpc::RpcChannel;

use crate::fleet::{INTERVAL, Wolves, each};

fn gpu(state: TelemetryState, busy: Option<u32>) -> GpuTelemetry {
    GpuTelemetry {
        id: "GPU-0".to_owned(),
        state: state.into(),
        utilisation_percent: busy,
        ..GpuTelemetry::default()
    }
}

fn beat(gpu: GpuTelemetry) -> HeartbeatRequest {
    HeartbeatRequest { gpus: vec![gpu], ..HeartbeatRequest::default() }
}

async fn get(channel: &RpcChannel, name: &str) -> Wolf {
    let request = GetWolfRequest { name: name.to_owned() };
    let answer = Wolves::new(channel.clone()).get_wolf(request).await.unwrap();
    answer.into_inner().wolf.unwrap()
}

/// The first state of a wolf that a watch tells.
async fn watched(channel: &RpcChannel, name: &str) -> Wolf {
    let request = WatchWolvesRequest::default();
    let mut client = Wolves::new(channel.without_deadline());
    let mut stream = client.watch_wolves(request).await.unwrap().into_inner();
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
        match message.expect("an event comes").unwrap().unwrap().event {
            Some(Event::Upserted(wolf)) if wolf.name == name => return wolf,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_read_and_only_what_matters_takes_a_revision() {
    each(|fleet| async move {
        let wolf = fleet.join("").await;
        wolf.register("i").await.unwrap();
        fleet.broker.attach(&wolf.id.name(), "s");
        let service = fleet.service("scheduler");
        let mut heart = wolf.heart("i").await;
        heart.tell(beat(gpu(TelemetryState::Ok, Some(3)))).await.unwrap();
        fleet.reaches(&wolf.id, wolfpack_proto::registry::v1::WolfState::Online).await;
        let first = get(&service, &wolf.id.name()).await;
        assert_eq!(first.gpu_telemetry, [gpu(TelemetryState::Ok, Some(3))]);
        for busy in 10..20 {
            heart.tell(beat(gpu(TelemetryState::Ok, Some(busy)))).await.unwrap();
            let now = get(&service, &wolf.id.name()).await;
            assert_eq!(now.gpu_telemetry[0].utilisation_percent, Some(busy));
            assert_eq!(now.etag, first.etag, "load takes no revision");
        }
        let seen = watched(&service, &wolf.id.name()).await;
        assert_eq!(seen.gpu_telemetry[0].utilisation_percent, None, "watches have no values");

        // A flood of changes is told a few times an interval, the last one for sure.
        let before: i64 = first.etag.parse().unwrap();
        let begun = std::time::Instant::now();
        for round in 0..100 {
            let state = if round % 2 == 0 { TelemetryState::Failed } else { TelemetryState::Ok };
            heart.tell(beat(gpu(state, None))).await.unwrap();
        }
        let took = begun.elapsed();
        tokio::time::sleep(INTERVAL / 4).await;
        heart.tell(beat(gpu(TelemetryState::Failed, None))).await.unwrap();
        let failed = get(&service, &wolf.id.name()).await;
        let revisions = failed.etag.parse::<i64>().unwrap() - before;
        let bound = 3 + i64::try_from(took.as_micros() / (INTERVAL / 8).as_micros()).unwrap();
        assert!((1..=bound).contains(&revisions), "{revisions} revisions in {took:?}");
        assert_eq!(failed.gpu_telemetry, [gpu(TelemetryState::Failed, None)]);
        let seen = watched(&service, &wolf.id.name()).await;
        assert_eq!(seen.gpu_telemetry[0].state(), TelemetryState::Failed);

        let full = HeartbeatRequest {
            disk_pressure: "2 % is free".to_owned(),
            ..beat(gpu(TelemetryState::Failed, None))
        };
        tokio::time::sleep(INTERVAL / 4).await;
        heart.tell(full).await.unwrap();
        assert_eq!(watched(&service, &wolf.id.name()).await.disk_pressure, "2 % is free");
        // Silence: the values are gone, whatever they were.
        drop(heart);
        fleet.reaches(&wolf.id, wolfpack_proto::registry::v1::WolfState::Offline).await;
        let silent = get(&service, &wolf.id.name()).await;
        assert_eq!(silent.gpu_telemetry[0].state(), TelemetryState::Failed);
        let mut heart = wolf.heart("i").await;
        heart.tell(beat(gpu(TelemetryState::Ok, Some(5)))).await.unwrap();
        let back = get(&service, &wolf.id.name()).await;
        assert_eq!(
            (back.gpu_telemetry[0].state(), back.disk_pressure.as_str()),
            (TelemetryState::Ok, "")
        );
        drop(heart);
        fleet.reaches(&wolf.id, wolfpack_proto::registry::v1::WolfState::Offline).await;
        let silent = get(&service, &wolf.id.name()).await;
        assert_eq!(silent.gpu_telemetry[0].state(), TelemetryState::Stale);
        assert_eq!(silent.gpu_telemetry[0].utilisation_percent, None);
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_services_hear_of_images() {
    each(|fleet| async move {
        let member = fleet.member(Role::Admin).await;
        let wolf = fleet.join("").await;
        wolf.register("i").await.unwrap();
        let image =
            WolfImage { references: vec!["secret/of-another:1".into()], ..WolfImage::default() };
        let images = Some(WolfImages { images: vec![image] });
        let mut heart = wolf.heart("i").await;
        let told = HeartbeatRequest { images: images.clone(), ..HeartbeatRequest::default() };
        heart.tell(told).await.unwrap();
        // Absent is as before.
        heart.tell(HeartbeatRequest::default()).await.unwrap();
        let name = wolf.id.name();
        let service = fleet.service("scheduler");
        for (channel, expected) in [
            (service.clone(), &images),
            (fleet.bearer(&member.key), &None),
            (wolf.channel.clone(), &None),
        ] {
            assert_eq!(&get(&channel, &name).await.images, expected);
            assert_eq!(&watched(&channel, &name).await.images, expected);
            let list = Wolves::new(channel).list_wolves(ListWolvesRequest::default()).await;
            let wolves = list.unwrap().into_inner().wolves;
            assert_eq!(&wolves.iter().find(|wolf| wolf.name == name).unwrap().images, expected);
        }
        assert_eq!(wolf.register("i").await.unwrap().images, None);
        fleet
    })
    .await;
}
