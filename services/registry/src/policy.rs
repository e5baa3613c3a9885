//! Who may call what.

use wolfpack_rpc::policy::{Allow, PolicyRow, RpcKind};
use wolfpack_types::Role;

// Never the gateway: what it passes on without a bearer is nobody's.
const EVERY_SERVICE: &[&str] = &["registry", "scheduler", "tunnel-broker", "sandbox-manager"];
const FLEET_READERS: &[&str] = &["scheduler", "sandbox-manager", "tunnel-broker"];
const MANAGER: &[&str] = &["sandbox-manager"];

const VIEWERS: Allow = Allow { users: Some(Role::Viewer), ..Allow::NOBODY };
const ADMINS: Allow = Allow { users: Some(Role::Admin), ..Allow::NOBODY };
const PLATFORM_ADMINS: Allow =
    Allow { users: Some(Role::Admin), platform_admins_only: true, ..Allow::NOBODY };
const WOLVES: Allow = Allow { wolves: true, ..Allow::NOBODY };
const SANDBOXES: Allow = Allow { sandboxes: true, ..Allow::NOBODY };
const SERVICES: Allow = Allow { services: EVERY_SERVICE, ..Allow::NOBODY };
const READERS: Allow =
    Allow { users: Some(Role::Viewer), services: FLEET_READERS, wolves: true, ..Allow::NOBODY };
const FOR_MANAGER: Allow = Allow { services: MANAGER, ..Allow::NOBODY };

const fn unary(method: &'static str, allow: Allow) -> PolicyRow {
    PolicyRow { method, allow, kind: RpcKind::Unary }
}

const fn stream(method: &'static str, allow: Allow) -> PolicyRow {
    PolicyRow { method, allow, kind: RpcKind::Stream }
}

/// The services of the registry, by their full names.
pub const SERVICE_NAMES: &[&str] =
    &["wolfpack.registry.v1.WolfService", "wolfpack.registry.v1.IdentityService"];

/// One row per rpc; what has no row is denied.
pub const POLICY: &[PolicyRow] = &[
    unary("/wolfpack.registry.v1.WolfService/RegisterWolf", WOLVES),
    stream("/wolfpack.registry.v1.WolfService/Heartbeat", WOLVES),
    unary("/wolfpack.registry.v1.WolfService/GetWolf", READERS),
    unary("/wolfpack.registry.v1.WolfService/ListWolves", READERS),
    stream("/wolfpack.registry.v1.WolfService/WatchWolves", READERS),
    unary("/wolfpack.registry.v1.IdentityService/WhoAmI", VIEWERS),
    unary("/wolfpack.registry.v1.IdentityService/CreateUser", PLATFORM_ADMINS),
    unary("/wolfpack.registry.v1.IdentityService/CreateProject", PLATFORM_ADMINS),
    unary("/wolfpack.registry.v1.IdentityService/ListProjects", VIEWERS),
    unary("/wolfpack.registry.v1.IdentityService/SetProjectMember", ADMINS),
    unary("/wolfpack.registry.v1.IdentityService/CreateApiKey", VIEWERS),
    unary("/wolfpack.registry.v1.IdentityService/ListApiKeys", VIEWERS),
    unary("/wolfpack.registry.v1.IdentityService/RevokeApiKey", VIEWERS),
    unary("/wolfpack.registry.v1.IdentityService/CreateJoinToken", ADMINS),
    unary("/wolfpack.registry.v1.IdentityService/JoinWolf", Allow::ANYONE),
    unary("/wolfpack.registry.v1.IdentityService/RenewWolfCertificate", WOLVES),
    unary("/wolfpack.registry.v1.IdentityService/MintSandboxToken", FOR_MANAGER),
    unary("/wolfpack.registry.v1.IdentityService/MintLink", FOR_MANAGER),
    unary("/wolfpack.registry.v1.IdentityService/RefreshSandboxToken", SANDBOXES),
    unary("/wolfpack.registry.v1.IdentityService/RevokeSandboxTokens", FOR_MANAGER),
    unary("/wolfpack.registry.v1.IdentityService/GetSigningKeys", SERVICES),
    stream("/wolfpack.registry.v1.IdentityService/WatchRevocations", SERVICES),
    unary("/wolfpack.registry.v1.IdentityService/Introspect", SERVICES),
];

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::DESCRIPTOR_SET;
    use wolfpack_rpc::policy::{missing_rows, wrong_rows};

    #[test]
    fn every_rpc_has_its_row() {
        let none = Vec::<String>::new();
        assert_eq!(missing_rows(DESCRIPTOR_SET, SERVICE_NAMES, POLICY).unwrap(), none);
        assert_eq!(wrong_rows(DESCRIPTOR_SET, SERVICE_NAMES, POLICY).unwrap(), none);
    }
}
