//! Who may call what of this service.

use wolfpack_rpc::policy::{Allow, PolicyRow, RpcKind};
use wolfpack_types::Role;

/// The services it serves.
pub const SERVICES: &[&str] = &[
    "wolfpack.sandbox.v1.SandboxService",
    "wolfpack.sandbox.v1.SandboxIoService",
    "wolfpack.sandbox.v1.DesktopService",
];

const VIEWERS: Allow = Allow { users: Some(Role::Viewer), ..Allow::NOBODY };
const DEVELOPERS: Allow = Allow { users: Some(Role::Developer), ..Allow::NOBODY };

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
            let reads = ["GetSandbox", "ListSandboxes", "WatchSandboxes", "StreamLogs"];
            let expected = if reads.contains(&name) { Role::Viewer } else { Role::Developer };
            assert_eq!(row.allow.users, Some(expected), "{name}");
            assert!(!row.allow.anyone && !row.allow.sandboxes && !row.allow.wolves);
        }
    }
}
