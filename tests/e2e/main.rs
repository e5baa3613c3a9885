//! The whole of it on real parts: real processes, a real Docker engine, real
//! PostgreSQL, real grpcurl, a real desktop.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod clients;
mod dev;
mod fallback;
mod main_job;
mod separate_processes;
mod wolf_image;
