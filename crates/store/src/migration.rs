//! The kit's own tables.
#![allow(
    elided_lifetimes_in_paths,
    reason = "async_trait must see the signature of sea-orm's trait"
)]

use sea_orm_migration::prelude::*;

/// The migrations of the kit's tables; a service's migrator lists
/// [`KitMigrations::all`] before its own. It is a migrator itself, for a
/// service that has no other table.
pub struct KitMigrations;

impl KitMigrations {
    /// The migrations, in order.
    #[must_use]
    pub fn all() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(KitTables)]
    }
}

#[async_trait::async_trait]
impl MigratorTrait for KitMigrations {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Self::all()
    }
}

struct KitTables;

impl MigrationName for KitTables {
    fn name(&self) -> &'static str {
        "m0000_kit_tables"
    }
}

fn table(name: &'static str) -> TableCreateStatement {
    Table::create().table(Alias::new(name)).to_owned()
}

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).text().not_null().to_owned()
}

fn number(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).big_integer().not_null().to_owned()
}

#[async_trait::async_trait]
impl MigrationTrait for KitTables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let revisions =
            table("kit_revisions").col(text("scope").primary_key()).col(number("value")).to_owned();
        manager.create_table(revisions).await?;

        let requests = table("kit_requests")
            .col(text("scope"))
            .col(text("request_id"))
            .col(ColumnDef::new(Alias::new("body_hash")).binary_len(32).not_null())
            .col(text("resource"))
            .col(number("created_at"))
            .primary_key(Index::create().col(Alias::new("scope")).col(Alias::new("request_id")))
            .to_owned();
        manager.create_table(requests).await?;
        let by_age = Index::create()
            .name("kit_requests_created_at")
            .table(Alias::new("kit_requests"))
            .col(Alias::new("created_at"))
            .to_owned();
        manager.create_index(by_age).await?;

        let leases = table("kit_leases")
            .col(text("key").primary_key())
            .col(text("holder"))
            .col(number("epoch"))
            .col(number("expires_at"))
            .to_owned();
        manager.create_table(leases).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["kit_leases", "kit_requests", "kit_revisions"] {
            manager.drop_table(Table::drop().table(Alias::new(name)).to_owned()).await?;
        }
        Ok(())
    }
}
