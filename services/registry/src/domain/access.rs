//! Who may see and do what. The policy table has let this kind of caller in;
//! here it is decided what of the registry is theirs.

use wolfpack_proto::registry::v1 as proto;
use wolfpack_types::{Fault, Principal, ProjectId, Reason, Role, UserId, WolfId};

/// The role on the wire; `None` for the unspecified one and for numbers this
/// version does not know.
#[must_use]
pub fn role_from_proto(role: i32) -> Option<Role> {
    match proto::Role::try_from(role) {
        Ok(proto::Role::Viewer) => Some(Role::Viewer),
        Ok(proto::Role::Developer) => Some(Role::Developer),
        Ok(proto::Role::Admin) => Some(Role::Admin),
        Ok(proto::Role::Unspecified) | Err(_) => None,
    }
}

/// The role for the wire.
#[must_use]
pub fn role_to_proto(role: Role) -> proto::Role {
    match role {
        Role::Viewer => proto::Role::Viewer,
        Role::Developer => proto::Role::Developer,
        Role::Admin => proto::Role::Admin,
    }
}

/// The word kept in the database.
#[must_use]
pub fn role_word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Developer => "developer",
        Role::Admin => "admin",
    }
}

/// The role of a word; any other word is the role that may do least.
#[must_use]
pub fn role_of_word(word: &str) -> Role {
    match word {
        "admin" => Role::Admin,
        "developer" => Role::Developer,
        _ => Role::Viewer,
    }
}

/// The role a user has in a project: a platform admin is admin everywhere.
#[must_use]
pub fn standing(platform_admin: bool, member: Option<Role>) -> Option<Role> {
    if platform_admin { Some(Role::Admin) } else { member }
}

/// What a key may do: never more than its user, never more than itself; `None`
/// when its user is no longer a member.
#[must_use]
pub fn key_role(platform_admin: bool, member: Option<Role>, key: Role) -> Option<Role> {
    standing(platform_admin, member).map(|standing| standing.min(key))
}

/// Whether a key carries its user's power over the platform: only a key made
/// for all that the user may do does.
#[must_use]
pub fn key_is_platform_admin(platform_admin: bool, key: Role) -> bool {
    platform_admin && key == Role::Admin
}

/// Whether a caller may see a wolf: users and sandboxes those that are shared
/// or of their project, services all, a wolf itself.
#[must_use]
pub fn sees_wolf(caller: &Principal, wolf: &WolfId, project: Option<&ProjectId>) -> bool {
    match caller {
        Principal::User { project: own, .. } => project.is_none_or(|project| project == own),
        Principal::Service(_) => true,
        Principal::Wolf(own) => own == wolf,
        Principal::Sandbox { .. } | Principal::Link { .. } | Principal::Anonymous => false,
    }
}

/// A user as a caller.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The user.
    pub user: UserId,
    /// Where its key acts.
    pub project: ProjectId,
    /// Its role there.
    pub role: Role,
    /// Whether it manages the platform.
    pub platform_admin: bool,
}

impl Actor {
    /// The actor behind a principal.
    ///
    /// # Errors
    /// `CALLER_FORBIDDEN` when it is not a user.
    pub fn of(caller: &Principal) -> Result<Self, Fault> {
        match caller {
            Principal::User { user, project, role, platform_admin, .. } => Ok(Self {
                user: user.clone(),
                project: project.clone(),
                role: *role,
                platform_admin: *platform_admin,
            }),
            Principal::Service(_)
            | Principal::Wolf(_)
            | Principal::Sandbox { .. }
            | Principal::Link { .. }
            | Principal::Anonymous => Err(Fault::new(
                Reason::CallerForbidden,
                "only users with an API key may do this; call with a key",
            )),
        }
    }

    /// Checks that the actor may manage a project.
    ///
    /// # Errors
    /// `PROJECT_NOT_FOUND` for a project that is not the key's own (permission
    /// comes before existence), `ROLE_TOO_LOW` for its own without the role.
    pub fn manages(&self, project: &ProjectId) -> Result<(), Fault> {
        self.acts_in(project)?;
        if self.role >= Role::Admin || self.platform_admin {
            Ok(())
        } else {
            Err(Fault::new(
                Reason::RoleTooLow,
                "this needs the role admin in the project; ask one of its admins",
            ))
        }
    }

    /// Checks that the actor's key is for a project, or for all of them.
    ///
    /// # Errors
    /// `PROJECT_NOT_FOUND` otherwise.
    pub fn acts_in(&self, project: &ProjectId) -> Result<(), Fault> {
        if self.platform_admin || self.project == *project {
            Ok(())
        } else {
            Err(project_not_found(project))
        }
    }

    /// Checks that the actor manages the platform.
    ///
    /// # Errors
    /// `ROLE_TOO_LOW` otherwise.
    pub fn manages_platform(&self) -> Result<(), Fault> {
        if self.platform_admin {
            Ok(())
        } else {
            Err(Fault::new(
                Reason::RoleTooLow,
                "only platform admins may do this; use an admin key of one, or name a project",
            ))
        }
    }
}

/// There is no such project for this caller.
#[must_use]
pub fn project_not_found(project: &ProjectId) -> Fault {
    Fault::new(
        Reason::ProjectNotFound,
        "there is no such project, or this key is not for it; list the projects",
    )
    .about(project.name())
}

/// There is no such user.
#[must_use]
pub fn user_not_found(user: &UserId) -> Fault {
    Fault::new(Reason::UserNotFound, "there is no such user; check the name").about(user.name())
}

/// There is no such wolf for this caller.
#[must_use]
pub fn wolf_not_found(wolf: &WolfId) -> Fault {
    Fault::new(Reason::WolfNotFound, "there is no such wolf; list the wolves").about(wolf.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_types::ApiKeyId;

    const ROLES: [Role; 3] = [Role::Viewer, Role::Developer, Role::Admin];

    #[test]
    fn roles_round_trip() {
        for role in ROLES {
            assert_eq!(role_of_word(role_word(role)), role);
            assert_eq!(role_from_proto(role_to_proto(role) as i32), Some(role));
        }
        assert_eq!((role_from_proto(0), role_from_proto(99)), (None, None));
        assert_eq!(role_of_word("owner"), Role::Viewer);
    }

    #[test]
    fn a_key_never_does_more_than_its_user_or_itself() {
        for key in ROLES {
            assert_eq!(key_role(false, None, key), None);
            assert_eq!(key_role(true, None, key), Some(key));
            assert_eq!(key_is_platform_admin(true, key), key == Role::Admin);
            assert!(!key_is_platform_admin(false, key));
            for member in ROLES {
                assert_eq!(key_role(false, Some(member), key), Some(member.min(key)));
            }
        }
    }

    #[test]
    fn wolves_of_another_project_are_not_seen() {
        let (mine, other) = (ProjectId::new(), ProjectId::new());
        let wolf = WolfId::new();
        let user = Principal::User {
            user: UserId::new(),
            key: ApiKeyId::new(),
            project: mine.clone(),
            role: Role::Admin,
            platform_admin: true,
            expires: None,
        };
        assert!(sees_wolf(&user, &wolf, None));
        assert!(sees_wolf(&user, &wolf, Some(&mine)));
        assert!(!sees_wolf(&user, &wolf, Some(&other)));
        assert!(sees_wolf(&Principal::Service("scheduler".into()), &wolf, Some(&other)));
        assert!(sees_wolf(&Principal::Wolf(wolf.clone()), &wolf, Some(&other)));
        assert!(!sees_wolf(&Principal::Wolf(WolfId::new()), &wolf, None));
        assert!(!sees_wolf(&Principal::Anonymous, &wolf, None));
    }

    #[test]
    fn permission_comes_before_existence() {
        let actor = Actor {
            user: UserId::new(),
            project: ProjectId::new(),
            role: Role::Admin,
            platform_admin: false,
        };
        let foreign = ProjectId::new();
        assert_eq!(actor.manages(&foreign).unwrap_err().reason, Reason::ProjectNotFound);
        assert!(actor.manages(&actor.project).is_ok());
        let viewer = Actor { role: Role::Viewer, ..actor.clone() };
        assert_eq!(viewer.manages(&viewer.project).unwrap_err().reason, Reason::RoleTooLow);
        assert_eq!(viewer.manages_platform().unwrap_err().reason, Reason::RoleTooLow);
        assert!(Actor { platform_admin: true, ..actor }.manages(&foreign).is_ok());
    }
}
