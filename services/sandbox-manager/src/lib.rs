//! The life of sandboxes: create, reconcile, exec, desktop.

pub mod domain;
pub mod store;
