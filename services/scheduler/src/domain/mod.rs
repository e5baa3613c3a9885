//! Reservations and the fleet as plain data and pure rules.

mod book;
mod record;

pub use book::{Book, Change, ConfirmRefused, WolfFacts};
pub use record::{Record, Stamp};

#[cfg(test)]
mod book_tests;
