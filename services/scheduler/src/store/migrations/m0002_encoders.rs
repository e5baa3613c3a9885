//! Encoder sessions of reservations.
#![allow(
    elided_lifetimes_in_paths,
    reason = "async_trait must see the signature of sea-orm's trait"
)]

use sea_orm_migration::prelude::*;

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "scheduler_m0002_encoders"
    }
}

#[derive(DeriveIden)]
enum Reservation {
    Table,
    EncoderSessions,
    EncoderDevice,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use Reservation as R;
        // SQLite adds one column at a time.
        for column in [
            ColumnDef::new(R::EncoderSessions).integer().not_null().default(0).to_owned(),
            ColumnDef::new(R::EncoderDevice).string_len(128).to_owned(),
        ] {
            let table = Table::alter().table(R::Table).add_column(column).to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [Reservation::EncoderSessions, Reservation::EncoderDevice] {
            let table = Table::alter().table(Reservation::Table).drop_column(column).to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }
}
