//! Who reached what: one line for each dial of a person, and one for its end.
//! Those of our services are steps of rpcs that are audited where they came in.
//! And what became of tunnels, where the state does not say so itself.

use std::time::Instant;

use wolfpack_types::{Endpoint, Fault, Principal, Reason, Target};

/// An agent was not let attach.
pub(crate) fn attach_refused(agent: &Principal, fault: &Fault) {
    // It is asked to come later, and will: no event, and many.
    if matches!(fault.reason, Reason::BrokerDraining | Reason::HandshakesLimited) {
        return;
    }
    tracing::warn!(
        audit = "tunnel.attach_refused",
        agent = %agent,
        reason = %fault.reason,
        "an agent was not let attach: {}", fault.message
    );
}

/// What became of a call that was to close a tunnel.
#[derive(Debug)]
pub(crate) enum Closing {
    /// This session ended.
    Closed(String),
    /// None did.
    Missed {
        /// The session that was meant; empty for whichever is there.
        named: String,
        /// Another one, that is there.
        attached: Option<String>,
    },
}

/// Somebody asked for the end of a tunnel, and got it or not.
pub(crate) fn close(
    caller: &Principal,
    endpoint: &Endpoint,
    why: &str,
    result: Result<&Closing, &Fault>,
) {
    match result {
        Ok(Closing::Closed(session)) => tracing::warn!(
            audit = "tunnel.closed",
            caller = %caller,
            %endpoint,
            session,
            why,
            "a tunnel was closed by its owner"
        ),
        Ok(Closing::Missed { named, attached }) => tracing::info!(
            audit = "tunnel.close_missed",
            caller = %caller,
            %endpoint,
            named,
            attached,
            why,
            "no tunnel was closed: the one that was meant is not there"
        ),
        Err(fault) => tracing::warn!(
            audit = "tunnel.close_refused",
            caller = %caller,
            %endpoint,
            reason = %fault.reason,
            why,
            "somebody may not close a tunnel"
        ),
    }
}

/// A dial of a user that was let through; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Audited {
    user: String,
    key: String,
    project: String,
    endpoint: String,
    target: String,
}

impl Audited {
    /// `None` for callers that are no users and have no link of one.
    pub(crate) fn of(caller: &Principal, endpoint: &Endpoint, target: &Target) -> Option<Self> {
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
    pub(crate) fn refused(&self, fault: &Fault) {
        let Self { user, key, project, endpoint, target } = self;
        tracing::warn!(
            audit = "tunnel.dial_refused",
            user, key, project, endpoint, dialed = target,
            reason = %fault.reason,
            "a user was refused a target"
        );
    }

    /// The target was reached.
    pub(crate) fn opened(self, connection: String) -> Connection {
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
pub(crate) struct Connection {
    audited: Audited,
    connection: String,
    began: Instant,
}

impl Connection {
    /// It ended, by a fault or well.
    pub(crate) fn ended(self, fault: Option<&Fault>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_types::WolfId;

    #[test]
    fn refused_attaches_and_closes_are_told_and_those_who_come_too_early_are_not() {
        let wolf = WolfId::new();
        let (agent, endpoint) = (Principal::Wolf(wolf.clone()), Endpoint::Wolf(wolf));
        let refuse =
            |reason| crate::audit_lines::of(|| attach_refused(&agent, &Fault::new(reason, "no")));
        let lines = refuse(Reason::EndpointForbidden);
        assert_eq!(
            lines,
            [format!("tunnel.attach_refused agent={agent} reason=ENDPOINT_FORBIDDEN")]
        );
        for early in [Reason::BrokerDraining, Reason::HandshakesLimited] {
            assert_eq!(refuse(early), [""; 0], "{early}");
        }
        let fault = Fault::new(Reason::RoleTooLow, "no");
        let caller = Principal::Service("registry".into());
        let missed = |attached: Option<&str>| Closing::Missed {
            named: "s1".to_owned(),
            attached: attached.map(str::to_owned),
        };
        let lines = crate::audit_lines::of(|| {
            close(&caller, &endpoint, "why", Ok(&Closing::Closed("s1".to_owned())));
            close(&caller, &endpoint, "why", Err(&fault));
            close(&caller, &endpoint, "why", Ok(&missed(Some("s2"))));
            close(&caller, &endpoint, "why", Ok(&missed(None)));
        });
        let of = format!("caller={caller} endpoint={endpoint}");
        assert_eq!(lines[0], format!("tunnel.closed {of} session=\"s1\" why=\"why\""));
        assert_eq!(lines[1], format!("tunnel.close_refused {of} reason=ROLE_TOO_LOW why=\"why\""));
        let missed = format!("tunnel.close_missed {of} named=\"s1\"");
        assert_eq!(lines[2], format!("{missed} attached=\"s2\" why=\"why\""));
        assert_eq!(lines[3], format!("{missed} why=\"why\""));
    }
}
