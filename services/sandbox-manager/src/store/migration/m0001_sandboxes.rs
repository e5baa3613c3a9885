//! Sandboxes, their labels, and what watches need of removed ones.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, boolean, integer_null, text, text_null,
};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

const SANDBOXES: &str = "sandboxes";
const LABELS: &str = "sandbox_labels";
const REMOVED: &str = "removed_sandboxes";
const COMPACTION: &str = "watch_compaction";

#[async_trait::async_trait]
#[allow(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(sandboxes()).await?;
        manager
            .create_table(
                Table::create()
                    .table(LABELS)
                    .col(text("sandbox_id"))
                    .col(text("label_key"))
                    .col(text("project"))
                    .col(text("label_value"))
                    .primary_key(Index::create().col("sandbox_id").col("label_key"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table(REMOVED)
                    .col(big_integer("revision").primary_key().take())
                    .col(text("sandbox_id"))
                    .col(text("project"))
                    .col(big_integer("removed_at"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table(COMPACTION)
                    .col(text("scope").primary_key().take())
                    .col(big_integer("revision"))
                    .take(),
            )
            .await?;
        let connection = manager.get_connection();
        for statement in INDEXES {
            connection.execute_unprepared(statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [COMPACTION, REMOVED, LABELS, SANDBOXES] {
            manager.drop_table(Table::drop().table(table).take()).await?;
        }
        Ok(())
    }
}

/// Both engines read these words alike; the first is partial, which the query
/// builder cannot say for both.
const INDEXES: [&str; 6] = [
    "CREATE UNIQUE INDEX sandboxes_live_name ON sandboxes (project, display_name) \
     WHERE display_name <> '' AND state NOT IN ('deleting', 'deleted')",
    "CREATE INDEX sandboxes_project ON sandboxes (project, id)",
    "CREATE INDEX sandboxes_revision ON sandboxes (revision)",
    "CREATE INDEX sandboxes_state ON sandboxes (state, id)",
    "CREATE INDEX sandboxes_wolf ON sandboxes (wolf)",
    "CREATE INDEX sandbox_labels_value ON sandbox_labels (project, label_key, label_value)",
];

fn sandboxes() -> TableCreateStatement {
    let bytes = |name: &'static str| ColumnDef::new(name).blob().not_null().take();
    Table::create()
        .table(SANDBOXES)
        .col(text("id").primary_key().take())
        .col(text("project"))
        .col(text("creator"))
        .col(text("display_name"))
        .col(bytes("asked"))
        .col(text_null("traceparent"))
        .col(text("state"))
        .col(text_null("reason"))
        .col(text("message"))
        .col(bytes("transitions"))
        .col(big_integer("attempt"))
        .col(text("refused_by"))
        .col(integer_null("exit_code"))
        .col(text("last_logs"))
        .col(text_null("wolf"))
        .col(text_null("execution"))
        .col(text_null("reservation"))
        .col(ColumnDef::new("goods").blob().null().take())
        .col(big_integer_null("placed_at"))
        .col(boolean("confirmed"))
        .col(boolean("started"))
        .col(boolean("ran"))
        .col(boolean("holds_container"))
        .col(boolean("holds_reservation"))
        .col(boolean("holds_tokens"))
        .col(text_null("abandoned_as"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .col(big_integer("version"))
        .col(big_integer("revision"))
        .col(text_null("owner"))
        .col(big_integer("owner_epoch"))
        .col(big_integer("owner_until"))
        .take()
}
