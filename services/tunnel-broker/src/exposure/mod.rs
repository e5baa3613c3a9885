//! Raw TCP: ports of the broker that lead to targets, so that the fastest path
//! has two processes. Each is a listener and its connections; nothing of it
//! outlives the process.

mod audit;
mod book;
mod connection;
mod failure;
mod listener;

pub use book::{Created, Exposure, Exposures};
pub use failure::Failure;

#[cfg(test)]
mod tests;
