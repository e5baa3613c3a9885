//! Reservations and their devices.
#![allow(
    elided_lifetimes_in_paths,
    reason = "async_trait must see the signature of sea-orm's trait"
)]

use sea_orm_migration::prelude::*;

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "scheduler_m0001_reservations"
    }
}

#[derive(DeriveIden)]
enum Reservation {
    Table,
    Id,
    RequestId,
    Project,
    BodyHash,
    Sandbox,
    Wolf,
    State,
    CpuMilli,
    MemoryBytes,
    DiskBytes,
    Pids,
    Desktop,
    GpuShareMilli,
    Epoch,
    CreateUs,
    ExpireUs,
    EndUs,
}

#[derive(DeriveIden)]
enum ReservationDevice {
    Table,
    Reservation,
    Position,
    Wolf,
    Device,
    ShareMilli,
    Live,
}

fn text(column: impl IntoIden) -> ColumnDef {
    ColumnDef::new(column).string_len(64).not_null().to_owned()
}

fn number(column: impl IntoIden) -> ColumnDef {
    ColumnDef::new(column).big_integer().not_null().to_owned()
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use Reservation as R;
        use ReservationDevice as D;
        manager
            .create_table(
                Table::create()
                    .table(R::Table)
                    .col(ColumnDef::new(R::Id).string_len(64).not_null().primary_key())
                    .col(text(R::RequestId))
                    .col(text(R::Project))
                    .col(ColumnDef::new(R::BodyHash).binary().not_null())
                    .col(text(R::Sandbox))
                    .col(text(R::Wolf))
                    .col(text(R::State))
                    .col(number(R::CpuMilli))
                    .col(number(R::MemoryBytes))
                    .col(number(R::DiskBytes))
                    .col(number(R::Pids))
                    .col(ColumnDef::new(R::Desktop).boolean().not_null())
                    .col(ColumnDef::new(R::GpuShareMilli).integer().not_null())
                    .col(number(R::Epoch))
                    .col(number(R::CreateUs))
                    .col(ColumnDef::new(R::ExpireUs).big_integer())
                    .col(ColumnDef::new(R::EndUs).big_integer())
                    .to_owned(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("reservation_request")
                    .table(R::Table)
                    .col(R::RequestId)
                    .col(R::Project)
                    .unique()
                    .to_owned(),
            )
            .await?;
        for (name, column) in [("reservation_state", R::State), ("reservation_end", R::EndUs)] {
            manager
                .create_index(Index::create().name(name).table(R::Table).col(column).to_owned())
                .await?;
        }
        manager
            .create_table(
                Table::create()
                    .table(D::Table)
                    .col(text(D::Reservation))
                    .col(ColumnDef::new(D::Position).integer().not_null())
                    .col(text(D::Wolf))
                    .col(ColumnDef::new(D::Device).string_len(128).not_null())
                    .col(ColumnDef::new(D::ShareMilli).integer().not_null())
                    .col(ColumnDef::new(D::Live).boolean().not_null())
                    .primary_key(Index::create().col(D::Reservation).col(D::Position))
                    .foreign_key(
                        ForeignKey::create()
                            .from(D::Table, D::Reservation)
                            .to(R::Table, R::Id)
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        manager
            .get_connection()
            .execute_unprepared(
                "CREATE UNIQUE INDEX reservation_device_exclusive \
                 ON reservation_device (wolf, device) WHERE live AND share_milli = 1000",
            )
            .await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(ReservationDevice::Table).to_owned()).await?;
        manager.drop_table(Table::drop().table(Reservation::Table).to_owned()).await
    }
}
