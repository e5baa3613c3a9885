//! Who may see and dial which endpoint. The agent decides once more.

use wolfpack_types::{Endpoint, Fault, Principal, ProjectId, Reason, Target};

/// Whose an endpoint is, as far as the broker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// One project.
    Project(ProjectId),
    /// A wolf that serves every project.
    Shared,
    /// Not known: nobody but services may see it.
    Unknown,
}

impl Owner {
    /// `projects/{id}`, or nothing for a shared wolf.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Project(project) => project.name(),
            Self::Shared | Self::Unknown => String::new(),
        }
    }
}

/// Whether a caller may see the tunnel of an endpoint of `owner`.
#[must_use]
pub fn may_see(caller: &Principal, owner: &Owner) -> bool {
    match (caller, owner) {
        (Principal::Service(_), _) => true,
        (Principal::User { .. }, Owner::Shared) => true,
        (Principal::User { project, .. }, Owner::Project(own)) => project == own,
        _ => false,
    }
}

/// The services that may dial, any target.
const DIALERS: &[&str] = &["sandbox-manager"];

/// Whether `caller` may dial `target` of `endpoint`.
///
/// # Errors
/// `ENDPOINT_NOT_FOUND` for an endpoint that is not the caller's to reach,
/// whether it is attached or not; `TARGET_FORBIDDEN` for a target that is not.
pub fn may_dial(
    caller: &Principal,
    endpoint: &Endpoint,
    owner: &Owner,
    target: &Target,
) -> Result<(), Fault> {
    let forbidden = || {
        Fault::new(
            Reason::TargetForbidden,
            format!("{target} is not for this caller; use the rpcs of the sandbox"),
        )
        .about(endpoint.to_string())
    };
    match caller {
        Principal::Service(name) if DIALERS.contains(&name.as_str()) => Ok(()),
        Principal::Service(_) => Err(forbidden()),
        // No target is for users yet: their ways in are the manager's rpcs.
        Principal::User { project, .. } if *owner == Owner::Project(project.clone()) => {
            Err(forbidden())
        }
        _ => Err(not_found(endpoint)),
    }
}

/// The endpoint is not there, or not for this caller: both look the same.
#[must_use]
pub fn not_found(endpoint: &Endpoint) -> Fault {
    Fault::new(
        Reason::EndpointNotFound,
        "there is no such endpoint, or it is not yours; check its name",
    )
    .about(endpoint.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_types::{ApiKeyId, Role, SandboxId, UserId, WolfId};

    fn user(project: &ProjectId) -> Principal {
        Principal::User {
            user: UserId::new(),
            key: ApiKeyId::new(),
            project: project.clone(),
            role: Role::Admin,
            platform_admin: true,
        }
    }

    #[test]
    fn services_dial_by_their_row_and_users_learn_nothing_of_others() {
        let (own, other) = (ProjectId::new(), ProjectId::new());
        let sandbox = Endpoint::Sandbox(SandboxId::new());
        let target = |name| Target::parse(name).unwrap();
        let reason = |caller: &Principal, owner: &Owner, name| {
            may_dial(caller, &sandbox, owner, &target(name)).map_err(|fault| fault.reason)
        };
        let manager = Principal::Service("sandbox-manager".into());
        let gateway = Principal::Service("gateway".into());
        let owner = Owner::Project(own.clone());
        assert_eq!(reason(&manager, &owner, "agent"), Ok(()));
        assert_eq!(reason(&gateway, &owner, "desktop"), Err(Reason::TargetForbidden));
        assert_eq!(reason(&gateway, &owner, "agent"), Err(Reason::TargetForbidden));
        assert_eq!(
            reason(&Principal::Service("scheduler".into()), &owner, "agent"),
            Err(Reason::TargetForbidden)
        );
        assert_eq!(reason(&user(&own), &owner, "agent"), Err(Reason::TargetForbidden));
        for stranger in [user(&other), Principal::Anonymous, Principal::Wolf(WolfId::new())] {
            assert_eq!(
                reason(&stranger, &owner, "agent"),
                Err(Reason::EndpointNotFound),
                "{stranger}"
            );
            // An endpoint that is not attached looks the same.
            assert_eq!(reason(&stranger, &Owner::Unknown, "agent"), Err(Reason::EndpointNotFound));
        }
        assert_eq!(reason(&user(&own), &Owner::Shared, "runtime"), Err(Reason::EndpointNotFound));
    }

    #[test]
    fn unknown_owners_are_seen_by_services_only() {
        let project = ProjectId::new();
        assert!(may_see(&Principal::Service("registry".into()), &Owner::Unknown));
        assert!(!may_see(&user(&project), &Owner::Unknown));
        assert!(may_see(&user(&project), &Owner::Shared));
        assert!(may_see(&user(&project), &Owner::Project(project.clone())));
        assert!(!may_see(&user(&ProjectId::new()), &Owner::Project(project)));
    }
}
