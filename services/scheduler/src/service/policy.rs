//! Who may call what.

use wolfpack_rpc::policy::{Allow, PolicyRow, RpcKind};
use wolfpack_types::Role;

const MANAGER: Allow = Allow { services: &["sandbox-manager"], ..Allow::NOBODY };

/// One row per rpc.
pub const POLICY: &[PolicyRow] = &[
    PolicyRow {
        method: "/wolfpack.scheduler.v1.SchedulerService/Place",
        allow: MANAGER,
        kind: RpcKind::Unary,
    },
    PolicyRow {
        method: "/wolfpack.scheduler.v1.SchedulerService/ConfirmReservation",
        allow: MANAGER,
        kind: RpcKind::Unary,
    },
    PolicyRow {
        method: "/wolfpack.scheduler.v1.SchedulerService/ReleaseReservation",
        allow: MANAGER,
        kind: RpcKind::Unary,
    },
    PolicyRow {
        method: "/wolfpack.scheduler.v1.SchedulerService/Explain",
        // Never the gateway: what it passes on without a bearer is nobody's.
        allow: Allow {
            users: Some(Role::Viewer),
            services: &["sandbox-manager", "registry"],
            ..Allow::NOBODY
        },
        kind: RpcKind::Unary,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::DESCRIPTOR_SET;
    use wolfpack_rpc::policy::{missing_rows, wrong_rows};

    #[test]
    fn every_rpc_has_one_true_row() {
        let services = ["wolfpack.scheduler.v1.SchedulerService"];
        let none = Vec::<String>::new();
        assert_eq!(missing_rows(DESCRIPTOR_SET, &services, POLICY).unwrap(), none);
        assert_eq!(wrong_rows(DESCRIPTOR_SET, &services, POLICY).unwrap(), none);
    }
}
