//! The tables of the registry. A migration that was released is never edited.
//!
//! Times are whole microseconds since 1970 (`domain::time`), ids and names are
//! text, and what only the code reads (capacity, engine, labels) is kept
//! encoded: no query looks into it.
#![allow(
    elided_lifetimes_in_paths,
    reason = "async_trait must see the signature of sea-orm's trait"
)]

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, blob, blob_null, boolean, string, string_null, text,
};
use wolfpack_store::KitMigrations;

/// Every migration of the registry, those of the store kit first.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = KitMigrations::all();
        all.push(Box::new(Tables));
        all.push(Box::new(Telemetry));
        all.push(Box::new(ChangedRoles));
        all
    }
}

struct Tables;

impl MigrationName for Tables {
    fn name(&self) -> &'static str {
        "m20260801_000001_registry_tables"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables().into_iter().rev() {
            if let Some(name) = table.get_table_name() {
                manager.drop_table(Table::drop().table(name.clone()).to_owned()).await?;
            }
        }
        Ok(())
    }
}

struct Telemetry;

impl MigrationName for Telemetry {
    fn name(&self) -> &'static str {
        "m20261123_000002_wolf_telemetry"
    }
}

fn telemetry_columns() -> [ColumnDef; 4] {
    [
        ColumnDef::new("gpu_telemetry").blob().null().to_owned(),
        ColumnDef::new("gpus_failed").text().not_null().default("[]").to_owned(),
        ColumnDef::new("images").blob().null().to_owned(),
        ColumnDef::new("disk_pressure").text().not_null().default("").to_owned(),
    ]
}

#[async_trait::async_trait]
impl MigrationTrait for Telemetry {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column at a time.
        for column in telemetry_columns() {
            let table = Table::alter().table("wolves").add_column(column).to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in telemetry_columns() {
            let name = column.get_column_name();
            let table = Table::alter().table("wolves").drop_column(name).to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }
}

struct ChangedRoles;

impl MigrationName for ChangedRoles {
    fn name(&self) -> &'static str {
        "m20261201_000003_changed_roles"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for ChangedRoles {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column at a time.
        for column in ["changed_key", "role"] {
            let table =
                Table::alter().table("revocations").add_column(string_null(column)).to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["changed_key", "role"] {
            let table = Table::alter().table("revocations").drop_column(column).to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }
}

fn tables() -> Vec<TableCreateStatement> {
    vec![
        Table::create()
            .table("users")
            .col(string("id").primary_key())
            .col(string("display_name"))
            .col(boolean("platform_admin"))
            .col(big_integer("create_time"))
            .to_owned(),
        Table::create()
            .table("projects")
            .col(string("id").primary_key())
            .col(string("display_name"))
            .col(big_integer("create_time"))
            .to_owned(),
        Table::create()
            .table("members")
            .col(string("project"))
            .col(string("user_id"))
            .col(string("role"))
            .primary_key(Index::create().col("project").col("user_id"))
            .foreign_key(ForeignKey::create().from("members", "project").to("projects", "id"))
            .foreign_key(ForeignKey::create().from("members", "user_id").to("users", "id"))
            .to_owned(),
        Table::create()
            .table("api_keys")
            .col(string("id").primary_key())
            .col(string("user_id"))
            .col(string("project"))
            .col(string("role"))
            .col(string("display_name"))
            .col(blob("hash"))
            .col(big_integer("create_time"))
            .col(big_integer_null("expire_time"))
            .col(big_integer_null("revoke_time"))
            .foreign_key(ForeignKey::create().from("api_keys", "project").to("projects", "id"))
            .foreign_key(ForeignKey::create().from("api_keys", "user_id").to("users", "id"))
            .to_owned(),
        Table::create()
            .table("join_tokens")
            .col(string("id").primary_key())
            .col(string_null("project"))
            .col(blob("hash"))
            .col(string("create_user"))
            .col(big_integer("create_time"))
            .col(big_integer("expire_time"))
            .col(big_integer_null("use_time"))
            .col(string_null("wolf"))
            .foreign_key(ForeignKey::create().from("join_tokens", "project").to("projects", "id"))
            .to_owned(),
        wolves(),
        Table::create()
            .table("signing_keys")
            .col(string("id").primary_key())
            .col(blob("public_key"))
            .col(blob("sealed_key"))
            .col(big_integer("create_time"))
            .to_owned(),
        Table::create()
            .table("revocations")
            .col(string("id").primary_key())
            .col(string_null("api_key"))
            .col(string_null("sandbox"))
            .col(string("execution"))
            .col(big_integer("revision"))
            .col(big_integer("expire_time"))
            .to_owned(),
        Table::create()
            .table("settings")
            .col(string("name").primary_key())
            .col(blob("value"))
            .to_owned(),
    ]
}

fn wolves() -> TableCreateStatement {
    Table::create()
        .table("wolves")
        .col(string("id").primary_key())
        .col(string_null("project"))
        .col(string("display_name"))
        .col(text("labels"))
        .col(blob_null("capacity"))
        .col(blob_null("engine"))
        .col(string("agent_version"))
        .col(string_null("instance_id"))
        .col(big_integer("heartbeat_stream"))
        .col(big_integer_null("last_heartbeat_time"))
        .col(text("engine_fault"))
        .col(big_integer_null("used_cpu_milli"))
        .col(big_integer_null("used_memory_bytes"))
        .col(big_integer_null("used_disk_bytes"))
        .col(big_integer_null("used_pids"))
        .col(big_integer_null("running_sandboxes"))
        .col(boolean("tunnel_attached"))
        .col(string("state"))
        .col(text("state_message"))
        .col(big_integer("revision"))
        .col(big_integer("create_time"))
        .col(big_integer("update_time"))
        .col(big_integer_null("delete_time"))
        .foreign_key(ForeignKey::create().from("wolves", "project").to("projects", "id"))
        .to_owned()
}

fn indexes() -> Vec<IndexCreateStatement> {
    let index = |name: &'static str, table: &'static str| {
        Index::create().name(name).table(table).to_owned()
    };
    vec![
        index("wolves_revision", "wolves").col("revision").to_owned(),
        index("revocations_revision", "revocations").col("revision").to_owned(),
        index("members_user", "members").col("user_id").to_owned(),
        index("api_keys_owner", "api_keys").col("project").col("user_id").col("id").to_owned(),
        index("join_tokens_expire", "join_tokens").col("expire_time").to_owned(),
    ]
}
