//! Who reached what: one line for each dial of a person, and one for its end.
//! Those of our services are steps of rpcs that are audited where they came in.

use std::time::Instant;

use wolfpack_types::{Endpoint, Fault, Principal, Target};

/// A dial of a user that was let through; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Audited {
    user: String,
    key: String,
    project: String,
    endpoint: String,
    target: String,
}

impl Audited {
    /// `None` for callers that are no users and have no link of one.
    pub(super) fn of(caller: &Principal, endpoint: &Endpoint, target: &Target) -> Option<Self> {
        let (user, key, project) = match caller {
            Principal::User { user, key, project, .. } => (user, key.name(), project),
            // By whoever has it; known is who made it.
            Principal::Link { creator, project, .. } => (creator, caller.to_string(), project),
            _ => return None,
        };
        Some(Self {
            user: user.name(),
            key,
            project: project.name(),
            endpoint: endpoint.to_string(),
            target: target.to_string(),
        })
    }

    /// The dial was not let through.
    pub(super) fn refused(&self, fault: &Fault) {
        let Self { user, key, project, endpoint, target } = self;
        tracing::warn!(
            audit = "tunnel.dial_refused",
            user, key, project, endpoint, dialed = target,
            reason = %fault.reason,
            "a user was refused a target"
        );
    }

    /// The target was reached.
    pub(super) fn opened(self, connection: String) -> Connection {
        let Self { user, key, project, endpoint, target } = &self;
        tracing::info!(
            audit = "tunnel.dialed",
            user,
            key,
            project,
            endpoint,
            dialed = target,
            connection,
            "a user reached a target"
        );
        Connection { audited: self, connection, began: Instant::now() }
    }
}

/// A connection of a user that is open.
#[derive(Debug)]
pub(super) struct Connection {
    audited: Audited,
    connection: String,
    began: Instant,
}

impl Connection {
    /// It ended, by a fault or well.
    pub(super) fn ended(self, fault: Option<&Fault>) {
        let Audited { user, key, project, endpoint, target } = &self.audited;
        tracing::info!(
            audit = "tunnel.dial_ended",
            user,
            key,
            project,
            endpoint,
            dialed = target,
            connection = self.connection,
            seconds = self.began.elapsed().as_secs(),
            reason = fault.map_or("OK", |fault| fault.reason.as_str()),
            "a user's connection ended"
        );
    }
}
