//! How many files the process may open: each agent holds one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are not agents: listeners, callers, the registry, logs.
const OTHERS: u64 = 256;

/// Raises the soft limit to the hard one, for a process that is the broker's
/// alone.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // It stays as it is where this is forbidden, and the log says how it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Says what the limit allows.
pub(crate) fn say_limit() {
    match getrlimit(Resource::Nofile).current {
        Some(limit) => {
            let agents = limit.saturating_sub(OTHERS);
            tracing::info!(limit, "the file limit allows about {agents} agents");
        }
        None => tracing::info!("there is no file limit"),
    }
}
