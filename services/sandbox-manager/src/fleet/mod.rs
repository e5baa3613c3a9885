//! What is seen of the fleet: wolves, tunnels, containers. Each is a cache fed
//! by a watch; a cache that is not in step says that it does not know.

mod containers;
mod sweep;
mod tunnels;
mod wolves;

use std::sync::Arc;

pub(crate) use containers::{Containers, Sighting};
pub(crate) use sweep::Sweep;
pub(crate) use tunnels::Tunnels;
pub(crate) use wolves::Wolves;

/// All of it.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) wolves: Arc<Wolves>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) containers: Arc<Containers>,
}
