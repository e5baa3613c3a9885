//! Who may see and dial which endpoint. The agent decides once more.

use wolfpack_types::{Endpoint, Fault, Principal, ProjectId, Reason, Role, Target};

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

/// Targets of a wolf that people use as they are: what runs beside its agent.
/// All others speak a protocol of ours and belong to the manager.
const HOST_TARGETS: &[&str] = &[Target::WOLF_API, Target::MOONLIGHT_WEB];

/// Whether `caller` may dial `target` of `endpoint`: the manager anything; a
/// wolf's [`HOST_TARGETS`] the admins of the wolf's own project, and of a wolf
/// that serves every project the platform's admins only, as whoever reaches
/// them has a hand in every session there; whoever has a link the port of the
/// sandbox that it names, while its project owns that. Nobody anything else.
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
    let forbidden =
        |words: String| Err(Fault::new(Reason::TargetForbidden, words).about(endpoint.to_string()));
    match caller {
        Principal::Service(name) if DIALERS.contains(&name.as_str()) => Ok(()),
        Principal::Service(_) => forbidden(format!("{target} is not for this service")),
        Principal::User { project, role, platform_admin, .. } => {
            let admin = match owner {
                Owner::Project(own) if own == project => *role == Role::Admin,
                // The others learn no more than of a wolf that is not there.
                Owner::Shared if *platform_admin => true,
                Owner::Project(_) | Owner::Shared | Owner::Unknown => {
                    return Err(not_found(endpoint));
                }
            };
            match endpoint {
                Endpoint::Wolf(_) if !HOST_TARGETS.contains(&target.as_str()) => {
                    forbidden(format!(
                        "{target} of a wolf is not for users; they dial {}",
                        HOST_TARGETS.join(" and ")
                    ))
                }
                Endpoint::Wolf(_) if !admin => forbidden(format!(
                    "{target} is for the admins of the wolf's project; use a key with that role"
                )),
                Endpoint::Wolf(_) => Ok(()),
                Endpoint::Sandbox(_) => forbidden(format!(
                    "{target} of a sandbox is not for users; use the rpcs of the sandbox"
                )),
            }
        }
        Principal::Link { sandbox, port, project, .. } => {
            let its_own = matches!(endpoint, Endpoint::Sandbox(id) if id == sandbox)
                && matches!(owner, Owner::Project(own) if own == project);
            match its_own {
                true if *target == Target::tcp(*port) => Ok(()),
                true => forbidden(format!("{target} is not what this link opens")),
                false => Err(not_found(endpoint)),
            }
        }
        Principal::Wolf(_) | Principal::Sandbox { .. } | Principal::Anonymous => {
            Err(not_found(endpoint))
        }
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
    use proptest::prelude::*;
    use wolfpack_types::{ApiKeyId, ExecutionId, SandboxId, UserId, WolfId};

    fn key(project: &ProjectId, role: Role, platform_admin: bool) -> Principal {
        Principal::User {
            user: UserId::new(),
            key: ApiKeyId::new(),
            project: project.clone(),
            role,
            platform_admin,
        }
    }

    /// The highest key there is.
    fn user(project: &ProjectId) -> Principal {
        key(project, Role::Admin, true)
    }

    fn reason(
        caller: &Principal,
        endpoint: &Endpoint,
        owner: &Owner,
        target: &str,
    ) -> Result<(), Reason> {
        may_dial(caller, endpoint, owner, &Target::parse(target).unwrap())
            .map_err(|fault| fault.reason)
    }

    #[test]
    fn services_dial_by_their_row_and_users_learn_nothing_of_others() {
        let (own, other) = (ProjectId::new(), ProjectId::new());
        let sandbox = Endpoint::Sandbox(SandboxId::new());
        let owner = Owner::Project(own.clone());
        let service = |name: &str| Principal::Service(name.into());
        assert_eq!(reason(&service("sandbox-manager"), &sandbox, &owner, "agent"), Ok(()));
        for (name, target) in [("gateway", "desktop"), ("gateway", "agent"), ("scheduler", "agent")]
        {
            let refused = reason(&service(name), &sandbox, &owner, target);
            assert_eq!(refused, Err(Reason::TargetForbidden), "{name}");
        }
        for target in ["agent", "tcp:80", "wolf-api", "moonlight-web"] {
            let refused = reason(&user(&own), &sandbox, &owner, target);
            assert_eq!(refused, Err(Reason::TargetForbidden), "{target}");
        }
        for stranger in [user(&other), Principal::Anonymous, Principal::Wolf(WolfId::new())] {
            for owner in [&owner, &Owner::Unknown] {
                // An endpoint that is not attached looks the same.
                let refused = reason(&stranger, &sandbox, owner, "agent");
                assert_eq!(refused, Err(Reason::EndpointNotFound), "{stranger} {owner:?}");
            }
        }
    }

    #[test]
    fn what_runs_beside_a_wolf_is_for_its_admins() {
        let (own, other) = (ProjectId::new(), ProjectId::new());
        let wolf = Endpoint::Wolf(WolfId::new());
        let of = |project: &ProjectId| Owner::Project(project.clone());
        for target in ["wolf-api", "moonlight-web"] {
            let ask = |caller: &Principal, owner: &Owner| reason(caller, &wolf, owner, target);
            assert_eq!(ask(&key(&own, Role::Admin, false), &of(&own)), Ok(()));
            for role in [Role::Viewer, Role::Developer] {
                let refused = ask(&key(&own, role, false), &of(&own));
                assert_eq!(refused, Err(Reason::TargetForbidden), "{role:?}");
            }
            // Another project's wolf is not there, whoever asks.
            assert_eq!(ask(&user(&own), &of(&other)), Err(Reason::EndpointNotFound));
            assert_eq!(ask(&key(&own, Role::Admin, true), &Owner::Shared), Ok(()));
            for role in [Role::Viewer, Role::Developer, Role::Admin] {
                let refused = ask(&key(&own, role, false), &Owner::Shared);
                assert_eq!(refused, Err(Reason::EndpointNotFound), "{role:?}");
            }
            assert_eq!(ask(&user(&own), &Owner::Unknown), Err(Reason::EndpointNotFound));
            let sandbox = Principal::Sandbox {
                sandbox: SandboxId::new(),
                project: own.clone(),
                execution: ExecutionId::new(),
            };
            assert_eq!(ask(&sandbox, &of(&own)), Err(Reason::EndpointNotFound));
        }
        for target in ["runtime", "sandbox-agent:x", "tcp:22", "wolf-api:x", "moonlight-web:80"] {
            for owner in [of(&own), Owner::Shared] {
                let refused = reason(&user(&own), &wolf, &owner, target);
                assert_eq!(refused, Err(Reason::TargetForbidden), "{target} {owner:?}");
            }
        }
    }

    #[test]
    fn a_link_opens_its_port_and_nothing_else() {
        let (own, other) = (ProjectId::new(), ProjectId::new());
        let (id, another) = (SandboxId::new(), SandboxId::new());
        let link = |project: &ProjectId| Principal::Link {
            sandbox: id.clone(),
            port: 8080,
            project: project.clone(),
            creator: UserId::new(),
            expires: std::time::SystemTime::now(),
        };
        let owner = Owner::Project(own.clone());
        let sandbox = Endpoint::Sandbox(id.clone());
        assert_eq!(reason(&link(&own), &sandbox, &owner, "tcp:8080"), Ok(()));
        for target in ["tcp:8081", "tcp:808", "tcp:08080", "agent", "desktop"] {
            let refused = reason(&link(&own), &sandbox, &owner, target);
            assert_eq!(refused, Err(Reason::TargetForbidden), "{target}");
        }
        let wolf = Endpoint::Wolf(WolfId::parse(id.as_str()).unwrap());
        for (project, endpoint, owner) in [
            (&own, &Endpoint::Sandbox(another), &owner),
            (&own, &wolf, &owner),
            (&own, &wolf, &Owner::Shared),
            (&own, &sandbox, &Owner::Unknown),
            (&other, &sandbox, &owner),
        ] {
            let refused = reason(&link(project), endpoint, owner, "tcp:8080");
            assert_eq!(refused, Err(Reason::EndpointNotFound), "{endpoint} {owner:?}");
        }
        assert!(!may_see(&link(&own), &owner));
    }

    proptest! {
        /// Whatever a user asks for, only two targets of a wolf are ever given,
        /// and a refusal of what is not theirs is always the same.
        #[test]
        fn users_get_nothing_else(
            target in "[a-z]{1,6}(-[a-z]{1,4})?(:[a-z0-9]{1,4})?",
            of_wolf: bool, shared: bool, foreign: bool, platform: bool, role in 0..3_usize,
        ) {
            let (own, other) = (ProjectId::new(), ProjectId::new());
            let role = [Role::Viewer, Role::Developer, Role::Admin][role];
            let owner = match (shared, foreign) {
                (true, _) => Owner::Shared,
                (false, true) => Owner::Project(other),
                (false, false) => Owner::Project(own.clone()),
            };
            let endpoint = match of_wolf {
                true => Endpoint::Wolf(WolfId::new()),
                false => Endpoint::Sandbox(SandboxId::new()),
            };
            let answer = reason(&key(&own, role, platform), &endpoint, &owner, &target);
            let theirs = if shared { platform } else { !foreign };
            if !theirs {
                prop_assert_eq!(answer, Err(Reason::EndpointNotFound));
            } else if answer.is_ok() {
                prop_assert!(of_wolf && HOST_TARGETS.contains(&target.as_str()));
                prop_assert!(shared || role == Role::Admin);
            } else {
                prop_assert_eq!(answer, Err(Reason::TargetForbidden));
            }
        }
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
