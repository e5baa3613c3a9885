//! Who may call what: one row per rpc, everything else is denied.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use wolfpack_types::{Fault, Principal, Reason, Role};

use crate::request::role_too_low;

/// Whether a call is one message each way, or a stream in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcKind {
    /// Ends by itself; gets the default deadline of the listener's profile.
    Unary,
    /// May run for long; has a deadline only when the client sets one.
    Stream,
    /// A stream that carries a protocol of its own, thousands of them on a
    /// connection: its handler ends it with what it belongs to, when the server
    /// stops or a credential is revoked, and traces it by its own means. It is
    /// counted, bounded and authorised like any other.
    Relay,
}

impl RpcKind {
    /// Whether more than one message may go either way.
    #[must_use]
    pub fn streams(self) -> bool {
        self != Self::Unary
    }
}

/// Who may call an rpc. Begin with [`Allow::NOBODY`].
#[derive(Debug, Clone, Copy)]
pub struct Allow {
    /// Users with at least this role in their key's project.
    pub users: Option<Role>,
    /// Users that manage the platform, whatever their role.
    pub platform_admins_only: bool,
    /// Services of these names; `"*"` means any service.
    pub services: &'static [&'static str],
    /// Any wolf.
    pub wolves: bool,
    /// Any sandbox.
    pub sandboxes: bool,
    /// Whoever has a link; what it opens is for the service to check.
    pub links: bool,
    /// Everyone, without a credential.
    pub anyone: bool,
}

impl Allow {
    /// Nobody at all.
    pub const NOBODY: Self = Self {
        users: None,
        platform_admins_only: false,
        services: &[],
        wolves: false,
        sandboxes: false,
        links: false,
        anyone: false,
    };
    /// Everyone, without a credential.
    pub const ANYONE: Self = Self { anyone: true, ..Self::NOBODY };

    /// Checks one caller.
    ///
    /// # Errors
    /// `CREDENTIAL_MISSING` for a caller without any, `ROLE_TOO_LOW` and
    /// `CALLER_FORBIDDEN` for others.
    pub fn check(&self, principal: &Principal) -> Result<(), Fault> {
        if self.anyone {
            return Ok(());
        }
        let allowed = match principal {
            Principal::Anonymous => {
                return Err(Fault::new(
                    Reason::CredentialMissing,
                    "send an api key as \"authorization: Bearer ...\" or use a client certificate",
                ));
            }
            Principal::User { platform_admin, .. } if self.platform_admins_only => {
                if *platform_admin {
                    return Ok(());
                }
                return Err(Fault::new(
                    Reason::RoleTooLow,
                    "only platform admins may do this; ask one of them",
                )
                .with("required_role", "platform_admin"));
            }
            Principal::User { role, .. } => match self.users {
                Some(needed) if *role >= needed => true,
                Some(needed) => return Err(role_too_low(needed)),
                None => false,
            },
            Principal::Service(name) => {
                self.services.iter().any(|allowed| *allowed == "*" || allowed == name)
            }
            Principal::Wolf(_) => self.wolves,
            Principal::Sandbox { .. } => self.sandboxes,
            Principal::Link { .. } => self.links,
        };
        if allowed { Ok(()) } else { Err(forbidden(principal)) }
    }
}

fn forbidden(principal: &Principal) -> Fault {
    Fault::new(
        Reason::CallerForbidden,
        format!("a caller of kind {} may not call this rpc", principal.kind()),
    )
    .with("caller_kind", principal.kind())
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct PolicyRow {
    /// The full path, `/wolfpack.registry.v1.WolfService/GetWolf`.
    pub method: &'static str,
    /// Who may call it.
    pub allow: Allow,
    /// Whether it streams.
    pub kind: RpcKind,
}

/// The rows that the kit itself adds: health and reflection are for everyone
/// and are answered without asking an authority.
pub(crate) const OPEN: &[PolicyRow] = &[
    open("/grpc.health.v1.Health/Check", RpcKind::Unary),
    open("/grpc.health.v1.Health/Watch", RpcKind::Stream),
    open("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", RpcKind::Stream),
    open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", RpcKind::Stream),
];

const fn open(method: &'static str, kind: RpcKind) -> PolicyRow {
    PolicyRow { method, allow: Allow::ANYONE, kind }
}

/// The rows by path.
#[derive(Debug)]
pub(crate) struct Table {
    rows: HashMap<&'static str, &'static PolicyRow>,
}

impl Table {
    pub(crate) fn new(rows: &'static [PolicyRow]) -> Self {
        Self { rows: OPEN.iter().chain(rows).map(|row| (row.method, row)).collect() }
    }

    pub(crate) fn get(&self, path: &str) -> Option<&'static PolicyRow> {
        self.rows.get(path).copied()
    }
}

/// Whether a row is one of the kit's own.
pub(crate) fn is_open(row: &PolicyRow) -> bool {
    OPEN.iter().any(|open| std::ptr::eq(open, row))
}

/// The rpcs of `services` (full names, `wolfpack.registry.v1.WolfService`) that
/// have no row. A service's test asserts that there is none.
///
/// # Errors
/// When the descriptor set does not decode, or a service is not in it.
pub fn missing_rows(
    descriptor_set: &[u8],
    services: &[&str],
    rows: &[PolicyRow],
) -> Result<Vec<String>, String> {
    let rpcs = rpcs_of(descriptor_set, services)?;
    Ok(rpcs
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| !rows.iter().any(|row| row.method == path))
        .collect())
}

/// The rows that name no rpc of `services`, name one twice or say the wrong
/// kind, each with what is wrong. A service's test asserts that there is none.
///
/// # Errors
/// As [`missing_rows`].
pub fn wrong_rows(
    descriptor_set: &[u8],
    services: &[&str],
    rows: &[PolicyRow],
) -> Result<Vec<String>, String> {
    let rpcs: HashMap<String, RpcKind> = rpcs_of(descriptor_set, services)?.into_iter().collect();
    let mut faults = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        match rpcs.get(row.method) {
            None => faults.push(format!("{}: no such rpc", row.method)),
            Some(kind) if kind.streams() != row.kind.streams() => {
                faults.push(format!("{}: it is {kind:?}, the row says {:?}", row.method, row.kind));
            }
            Some(_) if rows[..index].iter().any(|other| other.method == row.method) => {
                faults.push(format!("{}: two rows", row.method));
            }
            Some(_) => {}
        }
    }
    Ok(faults)
}

fn rpcs_of(descriptor_set: &[u8], services: &[&str]) -> Result<Vec<(String, RpcKind)>, String> {
    let set = FileDescriptorSet::decode(descriptor_set).map_err(|error| error.to_string())?;
    let mut rpcs = Vec::new();
    for name in services {
        let service = set
            .file
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
            .find(|(package, service)| format!("{package}.{}", service.name()) == **name)
            .map(|(_, service)| service)
            .ok_or_else(|| format!("{name} is not in the descriptor set"))?;
        for method in &service.method {
            let kind = if method.client_streaming() || method.server_streaming() {
                RpcKind::Stream
            } else {
                RpcKind::Unary
            };
            rpcs.push((format!("/{name}/{}", method.name()), kind));
        }
    }
    Ok(rpcs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::DESCRIPTOR_SET;
    use wolfpack_types::{ApiKeyId, ExecutionId, ProjectId, SandboxId, UserId, WolfId};

    fn user(role: Role, platform_admin: bool) -> Principal {
        Principal::User {
            user: UserId::new(),
            key: ApiKeyId::new(),
            project: ProjectId::new(),
            role,
            platform_admin,
            expires: None,
        }
    }

    fn everyone() -> Vec<Principal> {
        vec![
            user(Role::Viewer, false),
            user(Role::Developer, false),
            user(Role::Admin, false),
            user(Role::Viewer, true),
            Principal::Service("scheduler".into()),
            Principal::Service("registry".into()),
            Principal::Wolf(WolfId::new()),
            Principal::Sandbox {
                sandbox: SandboxId::new(),
                project: ProjectId::new(),
                execution: ExecutionId::new(),
            },
            Principal::Anonymous,
        ]
    }

    fn admitted(allow: Allow) -> Vec<usize> {
        everyone()
            .iter()
            .enumerate()
            .filter(|(_, p)| allow.check(p).is_ok())
            .map(|(i, _)| i)
            .collect()
    }

    #[test]
    fn each_word_of_a_row_admits_exactly_its_kind() {
        assert!(admitted(Allow::NOBODY).is_empty());
        assert_eq!(admitted(Allow::ANYONE).len(), everyone().len());
        assert_eq!(admitted(Allow { users: Some(Role::Developer), ..Allow::NOBODY }), [1, 2]);
        assert_eq!(admitted(Allow { platform_admins_only: true, ..Allow::NOBODY }), [3]);
        assert_eq!(
            admitted(Allow {
                users: Some(Role::Viewer),
                platform_admins_only: true,
                ..Allow::NOBODY
            }),
            [3]
        );
        assert_eq!(admitted(Allow { services: &["scheduler"], ..Allow::NOBODY }), [4]);
        assert_eq!(admitted(Allow { services: &["*"], ..Allow::NOBODY }), [4, 5]);
        assert_eq!(admitted(Allow { wolves: true, ..Allow::NOBODY }), [6]);
        assert_eq!(admitted(Allow { sandboxes: true, ..Allow::NOBODY }), [7]);
    }

    #[test]
    fn refusals_have_distinct_reasons() {
        let reason =
            |allow: Allow, principal: &Principal| allow.check(principal).unwrap_err().reason;
        let developers = Allow { users: Some(Role::Developer), ..Allow::NOBODY };
        assert_eq!(reason(developers, &Principal::Anonymous), Reason::CredentialMissing);
        assert_eq!(reason(developers, &user(Role::Viewer, true)), Reason::RoleTooLow);
        assert_eq!(reason(developers, &Principal::Wolf(WolfId::new())), Reason::CallerForbidden);
        assert_eq!(reason(Allow::NOBODY, &user(Role::Admin, true)), Reason::CallerForbidden);
    }

    #[test]
    fn missing_and_wrong_rows_are_found() {
        const SERVICE: &str = "grpc.health.v1.Health";
        let set = tonic_health::pb::FILE_DESCRIPTOR_SET;
        assert_eq!(missing_rows(set, &[SERVICE], OPEN).unwrap(), Vec::<String>::new());
        let missing = missing_rows(set, &[SERVICE], &OPEN[..1]).unwrap();
        assert!(missing.contains(&"/grpc.health.v1.Health/Watch".to_owned()), "{missing:?}");
        assert!(missing_rows(DESCRIPTOR_SET, &["no.such.Service"], &[]).is_err());
        let rows = [
            open("/grpc.health.v1.Health/Check", RpcKind::Stream),
            open("/grpc.health.v1.Health/Watch", RpcKind::Stream),
            open("/grpc.health.v1.Health/Watch", RpcKind::Stream),
            open("/grpc.health.v1.Health/Gone", RpcKind::Unary),
        ];
        assert_eq!(wrong_rows(set, &[SERVICE], &rows).unwrap().len(), 3);
    }
}
