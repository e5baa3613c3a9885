//! What PID 1 owes its container: every orphan is reaped, signals reach the
//! main process, its end is the container's end, and nothing outlives it.

pub mod entrypoint;
pub mod finish;
pub mod reaper;
pub mod signals;

pub use entrypoint::StartError;
pub use reaper::{Adopts, Exit, Reaper};
