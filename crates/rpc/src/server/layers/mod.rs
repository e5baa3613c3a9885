//! The layers, one file each; their order is in [`super::stack`].

pub(crate) mod authenticate;
pub(crate) mod authorise;
mod bounded;
pub(crate) mod deadline;
pub(crate) mod load_shed;
pub(crate) mod metrics;
pub(crate) mod panic;
pub(crate) mod rate_limit;
mod strangers;
pub(crate) mod trace;
