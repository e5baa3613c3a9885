//! Migrations of the scheduler's database, after those of the kit.

mod m0001_reservations;
mod m0002_encoders;

use sea_orm_migration::{MigrationTrait, MigratorTrait};

/// All of them, in order.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = wolfpack_store::KitMigrations::all();
        all.push(Box::new(m0001_reservations::Migration));
        all.push(Box::new(m0002_encoders::Migration));
        all
    }
}
