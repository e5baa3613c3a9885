//! A table to try things on, and what a value looks like when it comes back.

use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait, Statement};
use sea_orm_migration::prelude::*;
use wolfpack_store::testing::each_engine;
use wolfpack_store::{KitMigrations, Store, time};

pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = KitMigrations::all();
        all.push(Box::new(Tables));
        all
    }
}

struct Tables;

impl MigrationName for Tables {
    fn name(&self) -> &'static str {
        "m0001_test_tables"
    }
}

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths, reason = "async_trait must see the signature of the trait")]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let counters = Table::create()
            .table(Alias::new("counters"))
            .col(ColumnDef::new(Alias::new("id")).text().not_null().primary_key())
            .col(ColumnDef::new(Alias::new("value")).big_integer().not_null())
            .to_owned();
        manager.create_table(counters).await?;
        let events = Table::create()
            .table(Alias::new("events"))
            .col(ColumnDef::new(Alias::new("id")).text().not_null().primary_key())
            .col(ColumnDef::new(Alias::new("at")).timestamp_with_time_zone().not_null())
            .to_owned();
        manager.create_table(events).await
    }
}

pub(crate) mod event {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "events")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) id: String,
        pub(crate) at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) fn sql(store: &Store, text: &str, values: Vec<sea_orm::Value>) -> Statement {
    Statement::from_sql_and_values(store.conn().get_database_backend(), text, values)
}

pub(crate) async fn read<C: ConnectionTrait>(
    store: &Store,
    connection: &C,
    id: &str,
) -> Result<i64, sea_orm::DbErr> {
    let row = connection
        .query_one_raw(sql(store, "SELECT value FROM counters WHERE id = $1", vec![id.into()]))
        .await?;
    row.map_or(Ok(0), |row| row.try_get("", "value"))
}

pub(crate) async fn write<C: ConnectionTrait>(
    store: &Store,
    connection: &C,
    id: &str,
    value: i64,
) -> Result<(), sea_orm::DbErr> {
    let text = "INSERT INTO counters (id, value) VALUES ($1, $2) \
                ON CONFLICT (id) DO UPDATE SET value = excluded.value";
    connection.execute_raw(sql(store, text, vec![id.into(), value.into()])).await.map(drop)
}

#[tokio::test]
async fn an_instant_comes_back_as_it_was_written_and_sorts() {
    each_engine::<Migrator, _, _>("instants", |store, _| async move {
        let base = time::micros(chrono::Utc::now());
        for (id, micros) in [("b", 1), ("c", 100_000), ("a", 0)] {
            let at = base + chrono::TimeDelta::microseconds(micros);
            let row = event::ActiveModel { id: Set(id.into()), at: Set(at) };
            event::Entity::insert(row).exec_without_returning(store.conn()).await.unwrap();
            let read = event::Entity::find_by_id(id).one(store.conn()).await.unwrap().unwrap();
            assert_eq!(read.at, at, "{id}");
        }
        use sea_orm::{ColumnTrait as _, QueryFilter as _, QueryOrder as _};
        let sorted =
            event::Entity::find().order_by_asc(event::Column::At).all(store.conn()).await.unwrap();
        assert_eq!(sorted.iter().map(|row| row.id.as_str()).collect::<String>(), "abc");
        let later = event::Entity::find()
            .filter(event::Column::At.gt(base))
            .all(store.conn())
            .await
            .unwrap();
        assert_eq!(later.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_clock_of_the_database_is_now_and_moves_within_a_transaction() {
    each_engine::<Migrator, _, _>("clock", |store, _| async move {
        let own = chrono::Utc::now();
        let theirs = store.now(store.conn()).await.unwrap();
        assert!((theirs - own).num_seconds().abs() < 60, "{theirs} {own}");
        let inner = store.clone();
        let (first, second) = store
            .tx(|tx| {
                let store = inner.clone();
                Box::pin(async move {
                    let first = store.now(tx).await?;
                    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                    Ok::<_, wolfpack_store::StoreError>((first, store.now(tx).await?))
                })
            })
            .await
            .unwrap();
        assert!(second > first, "{first} {second}");
    })
    .await;
}

#[tokio::test]
async fn a_unique_violation_is_told_on_both() {
    each_engine::<Migrator, _, _>("unique", |store, _| async move {
        let row = || event::ActiveModel { id: Set("a".into()), at: Set(chrono::Utc::now()) };
        event::Entity::insert(row()).exec_without_returning(store.conn()).await.unwrap();
        let again =
            event::Entity::insert(row()).exec_without_returning(store.conn()).await.unwrap_err();
        assert!(wolfpack_store::StoreError::from(again).is_unique_violation());
    })
    .await;
}
