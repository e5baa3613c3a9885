//! Folders of the host inside a sandbox: only what the operator allows, and
//! only what was looked at.
//!
//! A path is looked up once, below the folder that the operator named, through
//! no symbolic link, and what was found is held open. The engine is given a
//! bind mount of the very thing that is held, in a folder that no sandbox can
//! write. It is never given the path itself: a sandbox that writes there could
//! put a link in its place until the engine follows it. So there are no mounts
//! where the engine does not share our mount namespace.

mod held;
mod rules;
mod stage;

pub use held::Held;
pub use rules::{Forbidden, MountRequest, reserved};
pub use stage::{Stage, shares_mounts, stages};
