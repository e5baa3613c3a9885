//! The manager against a small fleet in this process: life, faults, crashes,
//! replicas, watches, programs, and the two ways to an agent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_imports,
    clippy::needless_pass_by_value,
    missing_docs,
    reason = "this is test code"
)]

mod access;
mod crash;
mod docker;
mod exec;
mod faults;
mod harness;
mod life;
mod reach;
mod replicas;
mod turns;
mod watch;
mod wolves;
mod world;

use std::future::Future;

use wolfpack_store::testing::TestDatabase;

use crate::harness::{Manager, config};
use crate::world::World;

/// A fleet, and a manager of it on each engine that can be tested here.
async fn on_each_engine<F, Fut>(wolves: usize, test: F)
where
    F: Fn(World, Manager) -> Fut,
    Fut: Future<Output = ()>,
{
    for database in TestDatabase::all() {
        let world = World::start(wolves).await;
        let manager = Manager::start(config(&world, &database.config)).await;
        test(world, manager).await;
        database.close().await;
    }
}
