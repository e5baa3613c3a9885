//! The registry over real gRPC with mutual TLS, on SQLite and, where
//! `WOLFPACK_TEST_POSTGRES` says so, on PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod access;
mod broker;
mod crowd;
mod fleet;
mod identity;
mod joining;
mod liveness;
mod replicas;
mod restart;
mod sandbox_tokens;
mod telemetry;
mod watching;
