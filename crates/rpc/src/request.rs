//! What a handler learns about a call, and how it checks the message.

use std::time::{Duration, Instant};

use prost_protovalidate::Validate;
use tonic::{Request, Status};
use wolfpack_types::{Fault, Principal, ProjectId, Reason, Role};

use crate::error::to_status;

/// Who is calling, under which request id, and until when. The server's layers
/// put it into the extensions of every request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The authenticated principal.
    pub principal: Principal,
    /// The id of this request, as sent by the client or made by the server.
    pub request_id: String,
    /// When the call ends by itself; `None` for streams without a deadline.
    pub deadline: Option<Instant>,
}

impl Caller {
    /// The project the caller acts in.
    ///
    /// # Errors
    /// `CALLER_FORBIDDEN` for anyone but a user or a sandbox.
    pub fn project(&self) -> Result<&ProjectId, Status> {
        self.principal.project().ok_or_else(|| {
            to_status(Fault::new(
                Reason::CallerForbidden,
                "this call acts in a project; call it with an api key or a sandbox token",
            ))
        })
    }

    /// Checks that the caller is a user with at least this role.
    ///
    /// # Errors
    /// `ROLE_TOO_LOW` for a lower role, `CALLER_FORBIDDEN` for another kind of
    /// caller.
    pub fn require(&self, role: Role) -> Result<(), Status> {
        match &self.principal {
            Principal::User { role: own, .. } if *own >= role => Ok(()),
            Principal::User { .. } => Err(to_status(role_too_low(role))),
            _ => Err(to_status(Fault::new(
                Reason::CallerForbidden,
                "only users may do this; call it with an api key",
            ))),
        }
    }

    /// The time that is left, `default` where the call has no deadline.
    #[must_use]
    pub fn remaining(&self, default: Duration) -> Duration {
        self.deadline.map_or(default, |deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

pub(crate) fn role_too_low(role: Role) -> Fault {
    let name = match role {
        Role::Viewer => "viewer",
        Role::Developer => "developer",
        Role::Admin => "admin",
    };
    Fault::new(
        Reason::RoleTooLow,
        format!("this needs the role {name} in the project; ask an admin of the project"),
    )
    .with("required_role", name)
}

/// Checks the message against the rules of its proto and splits the request.
///
/// # Errors
/// `REQUEST_INVALID` with every field that breaks a rule.
pub fn checked<T: Validate>(request: Request<T>) -> Result<(Caller, T), Status> {
    let caller = caller(&request);
    let message = request.into_inner();
    check(&message)?;
    Ok((caller, message))
}

/// Checks one message, such as each one of a client's stream.
///
/// # Errors
/// `REQUEST_INVALID` with every field that breaks a rule.
pub fn check<T: Validate>(message: &T) -> Result<(), Status> {
    message.validate().map_err(|error| {
        let fields: Vec<String> = error
            .violations()
            .iter()
            .take(3)
            .map(prost_protovalidate::Violation::field_path)
            .collect();
        let mut fault = Fault::new(
            Reason::RequestInvalid,
            format!("the request breaks a rule in {}; see the field violations", fields.join(", ")),
        );
        for violation in error.violations() {
            fault = fault.violates(violation.field_path(), violation.message());
        }
        to_status(fault)
    })
}

/// Who sent a request. Without the server's layers in front (a handler called
/// by hand) it is nobody.
pub fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_else(|| Caller {
        principal: Principal::Anonymous,
        request_id: String::new(),
        deadline: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::registry::v1::{CreateUserRequest, WhoAmIRequest};
    use wolfpack_types::{ApiKeyId, UserId};

    fn user(role: Role) -> Caller {
        Caller {
            principal: Principal::User {
                user: UserId::new(),
                key: ApiKeyId::new(),
                project: ProjectId::new(),
                role,
                platform_admin: false,
                expires: None,
            },
            request_id: "r".into(),
            deadline: None,
        }
    }

    #[test]
    fn messages_are_checked_by_their_protos_rules() {
        let bad = CreateUserRequest { request_id: "not a uuid".into(), ..Default::default() };
        let fault = crate::error::from_status(&checked(Request::new(bad)).unwrap_err());
        assert_eq!(fault.reason, Reason::RequestInvalid);
        let fields: Vec<&str> = fault.violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["request_id", "display_name"]);

        let mut good = Request::new(CreateUserRequest {
            request_id: "0190b5a4-93aa-7c3e-8f4e-1f2a3b4c5d6e".into(),
            display_name: "Ada".into(),
            platform_admin: false,
        });
        good.extensions_mut().insert(user(Role::Admin));
        let (caller, message) = checked(good).unwrap();
        assert_eq!(message.display_name, "Ada");
        assert!(caller.project().is_ok());
    }

    #[test]
    fn roles_are_ordered_and_other_callers_are_told_so() {
        assert!(user(Role::Admin).require(Role::Developer).is_ok());
        let reason = |status: &Status| crate::error::from_status(status).reason;
        assert_eq!(
            reason(&user(Role::Viewer).require(Role::Developer).unwrap_err()),
            Reason::RoleTooLow
        );
        let nobody = caller(&Request::new(WhoAmIRequest {}));
        assert_eq!(nobody.principal, Principal::Anonymous);
        assert_eq!(reason(&nobody.require(Role::Viewer).unwrap_err()), Reason::CallerForbidden);
        assert_eq!(reason(&nobody.project().unwrap_err()), Reason::CallerForbidden);
    }

    #[test]
    fn time_left_never_goes_below_zero() {
        let mut caller = user(Role::Viewer);
        assert_eq!(caller.remaining(Duration::from_secs(7)), Duration::from_secs(7));
        caller.deadline = Some(Instant::now() - Duration::from_millis(1));
        assert_eq!(caller.remaining(Duration::from_secs(7)), Duration::ZERO);
    }
}
