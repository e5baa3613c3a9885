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

/// Targets of a wolf that people use as they are, beside its ports: what runs
/// beside its agent. All others speak a protocol of ours and belong to the
/// manager.
const HOST_TARGETS: &[&str] = &[Target::WOLF_API, Target::MOONLIGHT_WEB];

/// What others are told of a wolf that serves every project, whatever they want
/// of it.
const PLATFORMS: &str = "the wolf serves every project, so this is for admins of the platform and no role in a project is enough; ask one of them";

/// Whether `caller` may dial `target` of `endpoint`; the agent decides once
/// more. The manager may dial anything. Users may dial
///
/// * `desktop` and `tcp:{port}` of a sandbox of their project, as developers;
/// * [`HOST_TARGETS`] and `tcp:{port}` of a wolf as admins of the wolf's own
///   project, and of a wolf that serves every project as admins of the platform
///   only: whoever reaches them has a hand in every session there. All others see
///   that wolf, so they are told so.
///
/// Whoever has a link may dial the port of the sandbox that it names, while the
/// project that made it owns that. Nobody may dial anything else.
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
        Principal::User { role, .. } => {
            let admin = match (reaches(caller, owner), endpoint, owner) {
                (Some(admin), ..) => admin,
                (None, Endpoint::Wolf(_), Owner::Shared) => return forbidden(PLATFORMS.to_owned()),
                (None, ..) => return Err(not_found(endpoint)),
            };
            let port = target.tcp_port().is_some();
            match endpoint {
                Endpoint::Wolf(_) if !port && !HOST_TARGETS.contains(&target.as_str()) => {
                    forbidden(format!(
                        "{target} of a wolf is not for users; they dial {} and tcp:PORT",
                        HOST_TARGETS.join(", ")
                    ))
                }
                Endpoint::Wolf(_) if !admin => forbidden(format!(
                    "{target} is for the admins of the wolf's project; use a key with that role"
                )),
                Endpoint::Sandbox(_) if !port && target.as_str() != Target::DESKTOP => {
                    forbidden(format!(
                        "{target} of a sandbox is not for users; they dial tcp:PORT, and {} where its agent offers it, and use its rpcs",
                        Target::DESKTOP
                    ))
                }
                Endpoint::Sandbox(_) if *role < Role::Developer => forbidden(format!(
                    "{target} is for developers of the sandbox's project; use a key with that role"
                )),
                Endpoint::Wolf(_) | Endpoint::Sandbox(_) => Ok(()),
            }
        }
        Principal::Link { sandbox, port, project, .. } => {
            let its_own = matches!(endpoint, Endpoint::Sandbox(id) if id == sandbox)
                && matches!(owner, Owner::Project(own) if own == project);
            match its_own {
                true if target.tcp_port().is_some_and(|own| own.get() == *port) => Ok(()),
                true => forbidden(format!("{target} is not what this link opens")),
                false => Err(not_found(endpoint)),
            }
        }
        Principal::Wolf(_) | Principal::Sandbox { .. } | Principal::Anonymous => {
            Err(not_found(endpoint))
        }
    }
}

/// Whether a user has a say in what `owner` owns (`None` when not), and whether
/// as an admin. Of what is everybody's only the platform's admins have.
fn reaches(caller: &Principal, owner: &Owner) -> Option<bool> {
    match (caller, owner) {
        (Principal::User { project, role, .. }, Owner::Project(own)) if own == project => {
            Some(*role == Role::Admin)
        }
        (Principal::User { platform_admin: true, .. }, Owner::Shared) => Some(true),
        _ => None,
    }
}

/// Whether `caller` may end the tunnel of an endpoint: services, the admins of
/// the project that owns it, and of a wolf that serves every project the
/// platform's admins.
///
/// # Errors
/// `ENDPOINT_NOT_FOUND` for an endpoint that the caller may not see, whether it
/// is attached or not; `ROLE_TOO_LOW` and `CALLER_FORBIDDEN` for one that it may
/// only see.
pub fn may_close(caller: &Principal, endpoint: &Endpoint, owner: &Owner) -> Result<(), Fault> {
    if matches!(caller, Principal::Service(_)) {
        return Ok(());
    }
    let (reason, words) = match (reaches(caller, owner), owner) {
        (Some(true), _) => return Ok(()),
        (Some(false), _) => {
            (Reason::RoleTooLow, "a tunnel is closed by admins of its project; use such a key")
        }
        (None, Owner::Shared) if may_see(caller, owner) => (Reason::CallerForbidden, PLATFORMS),
        (None, _) => return Err(not_found(endpoint)),
    };
    Err(Fault::new(reason, words).about(endpoint.to_string()))
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
            expires: None,
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
        for target in ["agent", "wolf-api", "moonlight-web", "tcp", "tcp:0", "desktop:1"] {
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
    fn developers_dial_ports_and_the_desktop_of_their_sandboxes() {
        let (own, other) = (ProjectId::new(), ProjectId::new());
        let sandbox = Endpoint::Sandbox(SandboxId::new());
        let owner = Owner::Project(own.clone());
        for target in ["tcp:1", "tcp:8080", "tcp:65535", "desktop"] {
            for (role, answer) in [
                (Role::Viewer, Err(Reason::TargetForbidden)),
                (Role::Developer, Ok(())),
                (Role::Admin, Ok(())),
            ] {
                let asked = reason(&key(&own, role, false), &sandbox, &owner, target);
                assert_eq!(asked, answer, "{target} {role:?}");
            }
            for owner in [Owner::Project(other.clone()), Owner::Unknown, Owner::Shared] {
                let foreign = reason(&key(&own, Role::Admin, false), &sandbox, &owner, target);
                assert_eq!(foreign, Err(Reason::EndpointNotFound), "{target} {owner:?}");
            }
        }
    }

    #[test]
    fn tunnels_are_closed_by_those_whose_they_are() {
        let (own, other) = (ProjectId::new(), ProjectId::new());
        let ask = |caller: &Principal, owner: &Owner| {
            let wolf = Endpoint::Wolf(WolfId::new());
            may_close(caller, &wolf, owner).map_err(|fault| fault.reason)
        };
        let of = |project: &ProjectId| Owner::Project(project.clone());
        for owner in [of(&own), Owner::Shared, Owner::Unknown] {
            assert_eq!(ask(&Principal::Service("registry".into()), &owner), Ok(()));
            for nobody in [Principal::Anonymous, Principal::Wolf(WolfId::new())] {
                assert_eq!(ask(&nobody, &owner), Err(Reason::EndpointNotFound), "{owner:?}");
            }
        }
        for (role, platform, owner, answer) in [
            (Role::Admin, false, of(&own), Ok(())),
            (Role::Developer, false, of(&own), Err(Reason::RoleTooLow)),
            (Role::Viewer, true, of(&own), Err(Reason::RoleTooLow)),
            (Role::Admin, true, of(&other), Err(Reason::EndpointNotFound)),
            (Role::Viewer, true, Owner::Shared, Ok(())),
            (Role::Admin, false, Owner::Shared, Err(Reason::CallerForbidden)),
            (Role::Admin, true, Owner::Unknown, Err(Reason::EndpointNotFound)),
        ] {
            assert_eq!(ask(&key(&own, role, platform), &owner), answer, "{role:?} {owner:?}");
        }
    }

    #[test]
    fn what_runs_beside_a_wolf_is_for_its_admins() {
        let (own, other) = (ProjectId::new(), ProjectId::new());
        let wolf = Endpoint::Wolf(WolfId::new());
        let of = |project: &ProjectId| Owner::Project(project.clone());
        for target in ["wolf-api", "moonlight-web", "tcp:22"] {
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
                assert_eq!(refused, Err(Reason::TargetForbidden), "{role:?}");
            }
            assert_eq!(ask(&user(&own), &Owner::Unknown), Err(Reason::EndpointNotFound));
            let sandbox = Principal::Sandbox {
                sandbox: SandboxId::new(),
                project: own.clone(),
                execution: ExecutionId::new(),
            };
            assert_eq!(ask(&sandbox, &of(&own)), Err(Reason::EndpointNotFound));
        }
        for target in [
            "runtime",
            "sandbox-agent:x",
            "desktop",
            "tcp:0",
            "tcp:70000",
            "wolf-api:x",
            "moonlight-web:80",
        ] {
            for owner in [of(&own), Owner::Shared] {
                let refused = reason(&user(&own), &wolf, &owner, target);
                assert_eq!(refused, Err(Reason::TargetForbidden), "{target} {owner:?}");
            }
        }
    }

    #[test]
    fn of_a_shared_wolf_everybody_is_told_the_same_whatever_they_want() {
        let wolf = Endpoint::Wolf(WolfId::new());
        for role in [Role::Viewer, Role::Developer, Role::Admin] {
            let caller = key(&ProjectId::new(), role, false);
            assert!(may_see(&caller, &Owner::Shared), "so that it is there is no news");
            let close = may_close(&caller, &wolf, &Owner::Shared).unwrap_err();
            assert!(close.message.contains("admins of the platform"), "{close}");
            for target in ["wolf-api", "tcp:22", "runtime"] {
                let target = Target::parse(target).unwrap();
                let dial = may_dial(&caller, &wolf, &Owner::Shared, &target).unwrap_err();
                assert_eq!(dial.message, close.message, "{target} {role:?}");
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
        /// Whatever a user asks for, only these targets are ever given, and a
        /// refusal of what is not theirs is always the same.
        #[test]
        fn users_get_nothing_else(
            target in "[a-z]{1,6}(-[a-z]{1,4})?(:[a-z0-9]{1,4})?|tcp:[0-9]{1,6}|desktop|wolf-api",
            of_wolf: bool, shared: bool, foreign: bool, platform: bool, role in 0..3_usize,
        ) {
            let (own, other) = (ProjectId::new(), ProjectId::new());
            let role = [Role::Viewer, Role::Developer, Role::Admin][role];
            // Only wolves are shared.
            let shared = shared && of_wolf;
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
            let number = target.strip_prefix("tcp:").filter(|port| !port.starts_with('0'));
            let port = number.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
            let given = match of_wolf {
                true => port || HOST_TARGETS.contains(&target.as_str()),
                false => port || target == "desktop",
            };
            let enough = shared || role >= if of_wolf { Role::Admin } else { Role::Developer };
            let expected = match (theirs, given && enough) {
                (false, _) if shared => Err(Reason::TargetForbidden),
                (false, _) => Err(Reason::EndpointNotFound),
                (true, false) => Err(Reason::TargetForbidden),
                (true, true) => Ok(()),
            };
            prop_assert_eq!(answer, expected);
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
