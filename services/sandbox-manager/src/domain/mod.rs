//! The life of a sandbox without IO: what is known of it, what is seen, and
//! what to do next.
//!
//! The reconciler goes in circles: observe [`Facts`], [`decide`] a [`Step`], do
//! it, note what came of it in the [`Record`]. It is level-triggered: nothing
//! depends on how often or in which order events arrive, only on what is true.

mod boot;
mod decide;
mod facts;
mod mount;
mod orphan;
mod record;
mod spec;
mod step;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod world;

pub use boot::{Boot, Exit, Failure, GiveUp, Holds, ReleaseAs};
pub use decide::decide;
pub use facts::{AgentFact, ContainerFact, Facts, WolfFact};
pub use orphan::{Claim, is_orphan};
pub use record::{IllegalTransition, Record, Transition};
pub use spec::{Defaults, accept, docker_of, place_request_id, shape_of};
pub use step::Step;
