//! Folders of the host inside a sandbox: only what the operator allows, and
//! only what was looked at.
//!
//! A path is looked up once, below the folder that the operator named, through
//! no symbolic link, and what was found is held open. Where the engine shares
//! our mount namespace it is given a bind mount of the very thing that is held,
//! in a folder that no sandbox can write; elsewhere it is given the path, which
//! is looked at again before the container starts.

mod held;
mod rules;
mod stage;

pub use held::Held;
pub use rules::{Forbidden, MountRequest, reserved};
pub use stage::{Stage, shares_mounts};
