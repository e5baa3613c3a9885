//! What can be seen only of a whole process: its memory, its files, its death.
//! One test at a time, as they all look at the same process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod agent;
mod broker;
mod files;
mod growth;
mod killed;
mod readers;
mod self_view;
mod starved;
mod stopped;
#[path = "../tunnel/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other suite uses the rest")]
mod support;
