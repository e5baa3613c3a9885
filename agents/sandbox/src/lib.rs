//! The agent inside a sandbox: PID 1, exec, desktop, its own tunnel.

pub mod desktop;
pub mod exec;
pub mod init;
pub mod process;
pub mod users;
