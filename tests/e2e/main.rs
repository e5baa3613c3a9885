//! The whole of it on real parts: real processes, a real Docker engine, real
//! PostgreSQL, real grpcurl, a real desktop.

mod clients;
mod dev;
mod fallback;
mod main_job;
mod separate_processes;
