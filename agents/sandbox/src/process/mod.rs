//! Starting a program as somebody else, and ending all that it started.
//!
//! What must happen between fork and exec (a session, a terminal, an identity)
//! is done by this same binary started again as a helper ([`child`]), because
//! code that runs there inside a threaded process cannot be made safe.

pub mod capture;
pub mod child;
pub mod environment;
pub mod launch;
pub mod refusal;
pub mod terminal;
pub mod tree;

pub use capture::{Captured, Limits, capture};
pub use launch::{Console, Identity, Launch, LaunchError, Launched, Launcher, Pipes, Wires};
pub use refusal::Refusal;
pub use terminal::{Size, Terminal};
