//! The migrations of this service, after those of the store kit.

mod m0001_sandboxes;

use sea_orm_migration::prelude::*;
use wolfpack_store::KitMigrations;

/// Every migration, oldest first.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = KitMigrations::all();
        all.push(Box::new(m0001_sandboxes::Migration));
        all
    }
}
