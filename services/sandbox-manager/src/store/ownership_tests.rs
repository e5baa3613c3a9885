use chrono::Utc;
use tokio::sync::Notify;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::{ExecutionId, ReservationId};

use super::*;
use crate::domain::{Failure, Record};
use crate::store::Asked;

const TTL: Duration = Duration::from_secs(60);

fn sandbox(record: Record) -> Sandbox {
    Sandbox {
        id: SandboxId::new(),
        project: ProjectId::parse("a").unwrap(),
        creator: "users/u".into(),
        asked: Asked {
            display_name: String::new(),
            labels: std::collections::BTreeMap::new(),
            spec: pb::SandboxSpec::default(),
        },
        traceparent: None,
        record,
        goods: None,
        created_at: Utc::now(),
        updated_at: Utc::now(),
        version: 1,
        revision: 0,
        owner: Owner::default(),
    }
}

async fn insert(sandboxes: &Sandboxes, record: Record) -> Sandbox {
    let sandbox = sandbox(record);
    Entity::insert(sandbox.to_row()).exec_without_returning(sandboxes.conn()).await.unwrap();
    sandbox
}

fn scheduling() -> Record {
    let mut record = Record::new(Utc::now());
    record.begin_scheduling(Utc::now()).unwrap();
    record
}

fn on(wolf: &WolfId) -> Record {
    let mut record = scheduling();
    record.placed(wolf.clone(), ReservationId::new(), ExecutionId::new(), Utc::now());
    record.admitted(true, Utc::now()).unwrap();
    record
}

fn failed(wolf: &WolfId) -> Record {
    let mut record = on(wolf);
    record.failed(Failure::new(Reason::ImageNotFound, "no image"), Utc::now()).unwrap();
    record
}

fn cleared(mut record: Record) -> Record {
    record.container_removed();
    record.released();
    record.revoked();
    record
}

fn deleted(wolf: &WolfId) -> Record {
    let mut record = on(wolf);
    record.delete(Utc::now()).unwrap();
    let mut record = cleared(record);
    record.deleted(Utc::now()).unwrap();
    record
}

#[tokio::test]
async fn a_wolf_concerns_what_is_not_over_in_pages() {
    for database in TestDatabase::all() {
        let sandboxes = Sandboxes::open(&database.config).await.unwrap();
        let [wolf, second, other] = [(); 3].map(|()| WolfId::new());
        let mut there = Vec::new();
        for record in [on(&wolf), on(&second), failed(&wolf), on(&wolf), on(&second)] {
            there.push(insert(&sandboxes, record).await.id);
        }
        for over in [cleared(failed(&wolf)), deleted(&wolf), deleted(&second)] {
            insert(&sandboxes, over).await;
        }
        insert(&sandboxes, on(&other)).await;
        let mut looking = vec![insert(&sandboxes, scheduling()).await.id];
        looking.push(insert(&sandboxes, scheduling()).await.id);
        there.sort();
        looking.sort();

        let wolves = [wolf, second];
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = sandboxes.on_wolves(&wolves, &after, 2).await.unwrap();
            assert!(page.len() <= 2, "a page is no longer than was said");
            let Some(last) = page.last() else { break };
            after = last.id.to_string();
            seen.extend(page.into_iter().map(|row| row.id));
        }
        assert_eq!(seen, there);
        let first = sandboxes.looking_for_a_wolf("", 1).await.unwrap();
        let second = sandboxes.looking_for_a_wolf(first[0].id.as_str(), 9).await.unwrap();
        let seen: Vec<_> = first.into_iter().chain(second).map(|row| row.id).collect();
        assert_eq!(seen, looking);
        database.close().await;
    }
}

#[tokio::test]
async fn holds_are_renewed_and_let_go_by_their_holder_only() {
    for database in TestDatabase::all() {
        let sandboxes = Sandboxes::open(&database.config).await.unwrap();
        let id = insert(&sandboxes, scheduling()).await.id;
        let epoch = sandboxes.claim(&id, "one", TTL).await.unwrap().unwrap().owner.epoch;
        assert!(sandboxes.renew(&id, "one", epoch, TTL).await.unwrap());
        assert!(!sandboxes.renew(&id, "two", epoch, TTL).await.unwrap());
        assert!(!sandboxes.renew(&id, "one", epoch + 1, TTL).await.unwrap());
        assert!(sandboxes.claim(&id, "two", TTL).await.unwrap().is_none());
        sandboxes.let_go(&id, "one", epoch).await.unwrap();
        let next = sandboxes.claim(&id, "two", TTL).await.unwrap().unwrap();
        assert!(next.owner.epoch > epoch);
        sandboxes.let_all_go("two").await.unwrap();
        assert!(sandboxes.claim(&id, "one", TTL).await.unwrap().is_some());
        database.close().await;
    }
}

/// The engine's own busy handler gives up after 5 seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_hold_waits_for_the_writer_in_line_however_long_that_takes() {
    let database = TestDatabase::sqlite();
    let sandboxes = Sandboxes::open(&database.config).await.unwrap();
    let id = insert(&sandboxes, scheduling()).await.id;
    let epoch = sandboxes.claim(&id, "one", TTL).await.unwrap().unwrap().owner.epoch;
    let begun = std::sync::Arc::new(Notify::new());
    let (writing, tell) = (sandboxes.clone(), begun.clone());
    let writer = tokio::spawn(async move {
        let slow = writing.tx(tell, |_, tell| {
            Box::pin(async move {
                tell.notify_one();
                tokio::time::sleep(Duration::from_secs(8)).await;
                Ok(())
            })
        });
        slow.await.unwrap();
    });
    begun.notified().await;
    let by_the_pool = Entity::update_many()
        .col_expr(Column::OwnerUntil, Expr::value(0_i64))
        .filter(Column::Id.eq("nobody"))
        .exec(sandboxes.conn());
    let (renewed, by_the_pool) = tokio::join!(sandboxes.renew(&id, "one", epoch, TTL), by_the_pool);
    assert!(by_the_pool.is_err(), "were it not given up, this would show nothing");
    assert!(renewed.unwrap());
    sandboxes.let_all_go("one").await.unwrap();
    writer.await.unwrap();
}
