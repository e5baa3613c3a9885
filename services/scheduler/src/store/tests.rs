use std::time::Duration;

use chrono::TimeDelta;
use sea_orm::{EntityTrait, PaginatorTrait};
use wolfpack_store::testing::each_engine;
use wolfpack_store::{Engine, Store};
use wolfpack_types::capacity::{Demand, EncoderGrant, Grant};
use wolfpack_types::{InstanceId, ProjectId, ReservationId, ReservationState, SandboxId, WolfId};

use super::{CommitError, LedgerStore, Migrator, ShardStore, Term, reservation};
use crate::domain::{Change, Record};

const TTL: Duration = Duration::from_secs(5);

async fn lead(store: &Store) -> (ShardStore, Term) {
    let shard = ShardStore::new(store.clone(), &InstanceId::new(), TTL);
    let term = shard.acquire().await.unwrap().unwrap();
    (shard, term)
}

fn record(term: &Term, devices: &[&str]) -> Record {
    let now = term.database_now();
    Record {
        id: ReservationId::new(),
        request_id: ReservationId::new().to_string(),
        body_hash: [7; 32],
        project: ProjectId::parse("p").unwrap(),
        sandbox: SandboxId::new(),
        wolf: WolfId::parse("w").unwrap(),
        state: ReservationState::Reserved,
        demand: Demand {
            cpu_milli: 3,
            memory_bytes: 1 << 40,
            pids: 9,
            desktop: true,
            ..Demand::default()
        },
        grant: Grant {
            devices: devices.iter().map(|device| (*device).to_owned()).collect(),
            share_milli: if devices.is_empty() { 0 } else { 1000 },
            encoder: devices
                .first()
                .map(|device| EncoderGrant { device: (*device).to_owned(), sessions: 3 }),
        },
        epoch: term.epoch(),
        create_time: now,
        expire_time: Some(now + TimeDelta::seconds(60)),
        end_time: None,
    }
}

fn made(record: &Record) -> Change {
    Change { before: None, after: record.clone() }
}

fn becomes(record: &Record, state: ReservationState) -> Change {
    let after = record.becoming(state, record.create_time).unwrap();
    Change { before: Some(record.clone()), after }
}

#[tokio::test]
async fn what_is_written_is_read_back() {
    each_engine::<Migrator, _, _>("what_is_written_is_read_back", |store, _| async move {
        let (_, term) = lead(&store).await;
        let ledger = LedgerStore::new(store);
        let (plain, gpus) = (record(&term, &[]), record(&term, &["b", "a"]));
        ledger.commit(&term, &[made(&plain), made(&gpus)]).await.unwrap();
        assert_eq!(ledger.get(&gpus.id).await.unwrap().as_ref(), Some(&gpus));
        assert_eq!(ledger.live().await.unwrap().len(), 2);
        let found = ledger.by_requests(&[plain.request_id.clone(), "x".into()]).await.unwrap();
        assert_eq!(found, std::slice::from_ref(&plain));

        let bound = becomes(&plain, ReservationState::Bound);
        let lost = becomes(&gpus, ReservationState::Lost);
        ledger.commit(&term, &[bound.clone(), lost.clone()]).await.unwrap();
        assert_eq!(ledger.live().await.unwrap(), [bound.after]);
        assert_eq!(ledger.get(&gpus.id).await.unwrap(), Some(lost.after));

        let later = term.database_now() + TimeDelta::hours(1);
        assert_eq!(ledger.prune(later, Duration::from_secs(7200)).await.unwrap(), 0);
        assert_eq!(ledger.prune(later, Duration::from_secs(60)).await.unwrap(), 1);
        assert_eq!(ledger.get(&gpus.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_former_leader_writes_nothing() {
    each_engine::<Migrator, _, _>("a_former_leader_writes_nothing", |store, _| async move {
        let (shard, old) = lead(&store).await;
        let ledger = LedgerStore::new(store.clone());
        let first = record(&old, &[]);
        ledger.commit(&old, &[made(&first)]).await.unwrap();
        shard.release(&old).await.unwrap();
        let (_, new) = lead(&store).await;
        assert!(new.epoch() > old.epoch());
        let late = ledger.commit(&old, &[made(&record(&old, &[]))]).await;
        assert!(matches!(late, Err(CommitError::Fenced { .. })), "{late:?}");
        let late = ledger.commit(&old, &[becomes(&first, ReservationState::Bound)]).await;
        assert!(matches!(late, Err(CommitError::Fenced { .. })), "{late:?}");
        assert!(shard.renew(&old).await.unwrap().is_none());
        assert_eq!(reservation::Entity::find().count(store.conn()).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn on_postgres_a_second_process_waits_for_the_first() {
    each_engine::<Migrator, _, _>("a_second_process_waits", |store, _| async move {
        let (_, first) = lead(&store).await;
        let other = ShardStore::new(store.clone(), &InstanceId::new(), TTL);
        let second = other.acquire().await.unwrap();
        match store.engine() {
            Engine::Postgres => assert_eq!(second, None),
            // There the file lock keeps the second one out.
            Engine::Sqlite => assert!(second.unwrap().epoch() > first.epoch()),
        }
    })
    .await;
}

#[tokio::test]
async fn the_store_itself_refuses_a_device_twice_and_a_request_twice() {
    each_engine::<Migrator, _, _>("the_store_refuses", |store, _| async move {
        let (_, term) = lead(&store).await;
        let ledger = LedgerStore::new(store.clone());
        let first = record(&term, &["a"]);
        ledger.commit(&term, &[made(&first)]).await.unwrap();
        let twice = ledger.commit(&term, &[made(&record(&term, &["a"]))]).await;
        assert!(matches!(twice, Err(CommitError::Conflict(_))), "{twice:?}");
        let again = Record { request_id: first.request_id.clone(), ..record(&term, &[]) };
        let again = ledger.commit(&term, &[made(&again)]).await;
        assert!(matches!(again, Err(CommitError::Conflict(_))), "{again:?}");

        let released = becomes(&first, ReservationState::Released);
        ledger.commit(&term, std::slice::from_ref(&released)).await.unwrap();
        let again = ledger.commit(&term, &[released]).await;
        assert!(matches!(again, Err(CommitError::Conflict(_))), "it is no longer reserved");
        ledger.commit(&term, &[made(&record(&term, &["a"]))]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_full_batch_fits_into_one_transaction() {
    each_engine::<Migrator, _, _>("a_full_batch", |store, _| async move {
        let (_, term) = lead(&store).await;
        let ledger = LedgerStore::new(store.clone());
        let names: Vec<String> = (0..4).map(|id| format!("gpu-{id}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let changes: Vec<Change> = (0..crate::writer::BATCH)
            .map(|index| {
                let wolf = WolfId::parse(&format!("w{index}")).unwrap();
                made(&Record { wolf, ..record(&term, &names) })
            })
            .collect();
        ledger.commit(&term, &changes).await.unwrap();
        assert_eq!(ledger.live().await.unwrap().len(), changes.len());
    })
    .await;
}
