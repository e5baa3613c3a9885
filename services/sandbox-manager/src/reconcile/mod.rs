//! Brings every sandbox to where it should be. Level-triggered: a wake only
//! says "look again"; what to do follows from the row and the facts.

mod changed_wolves;
mod driver;
mod observe;
mod queue;
mod resync;
mod session;
mod steps;
mod trouble;
mod turns;

pub(crate) use changed_wolves::ChangedWolves;
pub(crate) use driver::Reconciler;
pub(crate) use queue::Queue;
pub(crate) use turns::LongTurns;
