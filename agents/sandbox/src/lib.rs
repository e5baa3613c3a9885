//! The agent inside a sandbox: PID 1, exec, desktop, its own tunnel.
//!
//! It is one static binary that runs in any image. [`agent::run`] is its life;
//! [`init`] is what PID 1 owes a container, [`process`] starts programs,
//! [`exec`] runs them for callers, [`desktop`] keeps one up, [`docker`] an engine
//! of the sandbox's own, [`service`] is what callers see, [`tunnel`] how they get here, [`boot`] what the wolf's
//! agent left at `/run/wolfpack`. [`users`] and [`resolve`] do what the C
//! library's name services do elsewhere: a static binary must not load them.
//! [`probe`] asks what could be reached from inside.

pub mod agent;
pub mod boot;
pub mod desktop;
pub mod docker;
pub mod exec;
pub mod init;
pub mod probe;
pub mod process;
pub mod resolve;
pub mod service;
pub mod tunnel;
pub mod users;
