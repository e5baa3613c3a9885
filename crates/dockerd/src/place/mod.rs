//! Prepares a container to hold an engine. What must be done is planned from
//! texts that the kernel writes, and done by [`prepare`]; what cannot be done
//! is named by its step, with why and what to do about it.

pub mod cgroup;
pub mod device_nodes;
pub mod iptables;
pub mod mounts;
pub mod nvidia;
pub mod prepare;
mod program;
mod step;

pub use step::StepFailed;
