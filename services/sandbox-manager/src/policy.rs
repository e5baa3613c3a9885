//! Who may call what of this service.

use wolfpack_rpc::policy::{Allow, PolicyRow, RpcKind};
use wolfpack_types::Role;

/// The services it serves.
pub const SERVICES: &[&str] = &[
    "wolfpack.sandbox.v1.SandboxService",
    "wolfpack.sandbox.v1.SandboxIoService",
    "wolfpack.sandbox.v1.DesktopService",
    "wolfpack.sandbox.v1.ImageService",
    "wolfpack.sandbox.v1.DoctorService",
    "wolfpack.sandbox.v1.ContainerService",
    "wolfpack.sandbox.v1.PortService",
];

const VIEWERS: Allow = Allow { users: Some(Role::Viewer), ..Allow::NOBODY };
const DEVELOPERS: Allow = Allow { users: Some(Role::Developer), ..Allow::NOBODY };

const ADMINS: Allow = Allow { users: Some(Role::Admin), ..Allow::NOBODY };

const fn row(method: &'static str, allow: Allow, kind: RpcKind) -> PolicyRow {
    PolicyRow { method, allow, kind }
}

/// One row per rpc; what has none is denied. Looking at a desktop shows what is
/// typed there, so it needs more than reading does.
pub const POLICY: &[PolicyRow] = &[
    row("/wolfpack.sandbox.v1.SandboxService/CreateSandbox", DEVELOPERS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.SandboxService/GetSandbox", VIEWERS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.SandboxService/ListSandboxes", VIEWERS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.SandboxService/WatchSandboxes", VIEWERS, RpcKind::Stream),
    row("/wolfpack.sandbox.v1.SandboxService/DeleteSandbox", DEVELOPERS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.SandboxIoService/Exec", DEVELOPERS, RpcKind::Stream),
    row("/wolfpack.sandbox.v1.SandboxIoService/StreamLogs", VIEWERS, RpcKind::Stream),
    row("/wolfpack.sandbox.v1.DesktopService/GetScreenshot", DEVELOPERS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.DesktopService/GetClipboard", DEVELOPERS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.DesktopService/SetClipboard", DEVELOPERS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.PortService/CreateLink", DEVELOPERS, RpcKind::Unary),
    // Of the project's own wolves; of shared ones only platform admins.
    row("/wolfpack.sandbox.v1.ImageService/ListImages", ADMINS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.ImageService/LoadImage", ADMINS, RpcKind::Stream),
    row("/wolfpack.sandbox.v1.ImageService/RemoveImage", ADMINS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.DoctorService/CheckWolf", ADMINS, RpcKind::Stream),
    row("/wolfpack.sandbox.v1.ContainerService/ListContainers", VIEWERS, RpcKind::Unary),
];

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::DESCRIPTOR_SET;
    use wolfpack_rpc::policy::{missing_rows, wrong_rows};

    #[test]
    fn every_rpc_has_exactly_one_row() {
        assert_eq!(missing_rows(DESCRIPTOR_SET, SERVICES, POLICY).unwrap(), Vec::<String>::new());
        assert_eq!(wrong_rows(DESCRIPTOR_SET, SERVICES, POLICY).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_changes_or_enters_a_sandbox_needs_a_developer() {
        for row in POLICY {
            let name = row.method.rsplit('/').next().unwrap();
            let reads =
                ["GetSandbox", "ListSandboxes", "WatchSandboxes", "StreamLogs", "ListContainers"];
            let wolves = ["ListImages", "LoadImage", "RemoveImage", "CheckWolf"];
            let expected = match name {
                name if reads.contains(&name) => Role::Viewer,
                name if wolves.contains(&name) => Role::Admin,
                _ => Role::Developer,
            };
            assert_eq!(row.allow.users, Some(expected), "{name}");
            assert!(!row.allow.anyone && !row.allow.sandboxes && !row.allow.wolves);
        }
    }
}
