//! Who may call what at the broker.

use wolfpack_rpc::{Allow, PolicyRow, RpcKind};
use wolfpack_types::Role;

const AGENTS: Allow = Allow { wolves: true, sandboxes: true, ..Allow::NOBODY };
const WOLVES: Allow = Allow { wolves: true, ..Allow::NOBODY };
// Never the gateway: what it passes on without a bearer is nobody's.
const FLEET: &[&str] = &["registry", "scheduler", "sandbox-manager"];
const READERS: Allow = Allow { users: Some(Role::Viewer), services: FLEET, ..Allow::NOBODY };
const USERS: Allow =
    Allow { users: Some(Role::Developer), services: &["sandbox-manager"], ..Allow::NOBODY };
const DIALERS: Allow = Allow { links: true, ..USERS };

/// Every rpc that the broker serves.
pub const POLICY: &[PolicyRow] = &[
    PolicyRow { method: wolfpack_tunnel::grpc::ATTACH_PATH, allow: AGENTS, kind: RpcKind::Stream },
    PolicyRow { method: wolfpack_tunnel::grpc::CARRY_PATH, allow: AGENTS, kind: RpcKind::Relay },
    PolicyRow { method: wolfpack_tunnel::grpc::DIAL_PATH, allow: DIALERS, kind: RpcKind::Stream },
    PolicyRow {
        method: "/wolfpack.tunnel.v1.TunnelService/GetTunnel",
        allow: READERS,
        kind: RpcKind::Unary,
    },
    // Whose tunnel it is says what role it takes.
    PolicyRow {
        method: "/wolfpack.tunnel.v1.TunnelService/CloseTunnel",
        allow: READERS,
        kind: RpcKind::Unary,
    },
    PolicyRow {
        method: "/wolfpack.tunnel.v1.TunnelService/ListTunnels",
        allow: READERS,
        kind: RpcKind::Unary,
    },
    PolicyRow {
        method: "/wolfpack.tunnel.v1.TunnelService/WatchTunnels",
        allow: READERS,
        kind: RpcKind::Stream,
    },
    PolicyRow {
        method: "/wolfpack.tunnel.v1.ExposureService/CreateExposure",
        allow: USERS,
        kind: RpcKind::Unary,
    },
    PolicyRow {
        method: "/wolfpack.tunnel.v1.ExposureService/GetExposure",
        allow: READERS,
        kind: RpcKind::Unary,
    },
    PolicyRow {
        method: "/wolfpack.tunnel.v1.ExposureService/ListExposures",
        allow: READERS,
        kind: RpcKind::Unary,
    },
    PolicyRow {
        method: "/wolfpack.tunnel.v1.ExposureService/DeleteExposure",
        allow: USERS,
        kind: RpcKind::Unary,
    },
    PolicyRow { method: REGISTER_WOLF, allow: WOLVES, kind: RpcKind::Unary },
    PolicyRow { method: HEARTBEAT, allow: WOLVES, kind: RpcKind::Stream },
    PolicyRow { method: RENEW_CERTIFICATE, allow: WOLVES, kind: RpcKind::Unary },
];

/// Passed on to the registry from the agent port.
pub const REGISTER_WOLF: &str = "/wolfpack.registry.v1.WolfService/RegisterWolf";
/// Passed on to the registry from the agent port.
pub const HEARTBEAT: &str = "/wolfpack.registry.v1.WolfService/Heartbeat";
/// Passed on to the registry from the agent port.
pub const RENEW_CERTIFICATE: &str = "/wolfpack.registry.v1.IdentityService/RenewWolfCertificate";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_dial_and_do_nothing_else() {
        let theirs: Vec<&str> =
            POLICY.iter().filter(|row| row.allow.links).map(|row| row.method).collect();
        assert_eq!(theirs, [wolfpack_tunnel::grpc::DIAL_PATH]);
    }

    #[test]
    fn every_rpc_of_our_services_has_a_row() {
        let services = [
            "wolfpack.tunnel.v1.AgentTunnelService",
            "wolfpack.tunnel.v1.DialService",
            "wolfpack.tunnel.v1.TunnelService",
            "wolfpack.tunnel.v1.ExposureService",
        ];
        let missing =
            wolfpack_rpc::policy::missing_rows(wolfpack_proto::DESCRIPTOR_SET, &services, POLICY)
                .unwrap();
        assert_eq!(missing, Vec::<String>::new());
    }
}
