//! Which wolf a sandbox goes to. Pure: no clock, no IO, no randomness; the same
//! hosts and the same order always give the same answer, and asking for an
//! explanation runs the very code that places.

mod filter;
mod host;
mod rank;
mod score;

pub use filter::{Order, Refusal, Strategy, Tenant};
pub use host::{Health, Host, Offer, image_name};
pub use rank::{Fit, NoFit, Ranking, best, rank};

#[cfg(test)]
mod tests;
