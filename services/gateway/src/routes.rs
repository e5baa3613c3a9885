//! What is public, as data: services and who answers them. Rows and reflection
//! are made from it and the descriptor set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use wolfpack_proto::DESCRIPTOR_SET;
use wolfpack_rpc::policy::{Allow, PolicyRow, RpcKind};

pub use crate::upstream::Upstream;

/// A public service.
#[derive(Debug, Clone, Copy)]
pub struct PublicService {
    /// Its full name.
    pub name: &'static str,
    /// Its path with both slashes.
    pub prefix: &'static str,
    /// Who answers it.
    pub upstream: Upstream,
}

macro_rules! public {
    ($($name:literal => $upstream:ident),* $(,)?) => {
        /// The public services.
        pub const PUBLIC: &[PublicService] = &[$(PublicService {
            name: $name,
            prefix: concat!("/", $name, "/"),
            upstream: Upstream::$upstream,
        }),*];
    };
}

public! {
    "wolfpack.registry.v1.WolfService" => Registry,
    "wolfpack.registry.v1.IdentityService" => Registry,
    "wolfpack.scheduler.v1.SchedulerService" => Scheduler,
    "wolfpack.sandbox.v1.SandboxService" => SandboxManager,
    "wolfpack.sandbox.v1.SandboxIoService" => SandboxManager,
    "wolfpack.sandbox.v1.DesktopService" => SandboxManager,
    "wolfpack.sandbox.v1.ContainerService" => SandboxManager,
    "wolfpack.sandbox.v1.PortService" => SandboxManager,
    "wolfpack.sandbox.v1.ImageService" => SandboxManager,
    "wolfpack.sandbox.v1.DoctorService" => SandboxManager,
    "wolfpack.tunnel.v1.TunnelService" => TunnelBroker,
    "wolfpack.tunnel.v1.DialService" => TunnelBroker,
    "wolfpack.tunnel.v1.ExposureService" => TunnelBroker,
}

/// Rpcs that need no credential. Nothing else goes on without one.
pub const WITHOUT_CREDENTIAL: &[&str] = &["/wolfpack.registry.v1.IdentityService/JoinWolf"];

/// One row per public rpc. The rows let everyone pass: who may call what is
/// for the service behind to say.
///
/// # Panics
/// Never: the descriptor set is built with this program, and a test reads it.
#[must_use]
pub fn policy() -> &'static [PolicyRow] {
    static ROWS: OnceLock<Vec<PolicyRow>> = OnceLock::new();
    ROWS.get_or_init(rows)
}

fn rows() -> Vec<PolicyRow> {
    let set = descriptors();
    let mut rows = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            let Some(public) = PUBLIC.iter().find(|public| public.name == name) else { continue };
            for method in &service.method {
                let streams = method.client_streaming() || method.server_streaming();
                let path = format!("{}{}", public.prefix, method.name());
                rows.push(PolicyRow {
                    // Once per process, as many as there are rpcs.
                    method: Box::leak(path.into_boxed_str()),
                    allow: Allow::ANYONE,
                    kind: if streams { RpcKind::Stream } else { RpcKind::Unary },
                });
            }
        }
    }
    rows
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap_or_default()
}

/// The files of the public services and what they import, encoded as a
/// `google.protobuf.FileDescriptorSet`: what is internal is not described.
#[must_use]
pub fn public_descriptor_set() -> &'static [u8] {
    static SET: OnceLock<Vec<u8>> = OnceLock::new();
    SET.get_or_init(|| restricted(&descriptors()).encode_to_vec())
}

fn restricted(set: &FileDescriptorSet) -> FileDescriptorSet {
    let by_name: BTreeMap<&str, _> = set.file.iter().map(|file| (file.name(), file)).collect();
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<&str> = set
        .file
        .iter()
        .filter(|file| {
            file.service.iter().any(|service| {
                let name = format!("{}.{}", file.package(), service.name());
                PUBLIC.iter().any(|public| public.name == name)
            })
        })
        .map(prost_types::FileDescriptorProto::name)
        .collect();
    while let Some(name) = open.pop() {
        if wanted.insert(name.to_owned())
            && let Some(file) = by_name.get(name)
        {
            open.extend(file.dependency.iter().map(String::as_str));
        }
    }
    let file = set.file.iter().filter(|file| wanted.contains(file.name())).cloned().collect();
    FileDescriptorSet { file }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_rpc::policy::{missing_rows, wrong_rows};

    #[test]
    fn every_public_rpc_has_one_true_row_and_nothing_else_has() {
        let names: Vec<&str> = PUBLIC.iter().map(|public| public.name).collect();
        let none = Vec::<String>::new();
        assert_eq!(missing_rows(DESCRIPTOR_SET, &names, policy()).unwrap(), none);
        assert_eq!(wrong_rows(DESCRIPTOR_SET, &names, policy()).unwrap(), none);
        for open in WITHOUT_CREDENTIAL {
            assert!(policy().iter().any(|row| row.method == *open), "{open} is no rpc");
        }
    }

    #[test]
    fn internal_services_are_not_described() {
        let set = FileDescriptorSet::decode(public_descriptor_set()).unwrap();
        let services: BTreeSet<String> = set
            .file
            .iter()
            .flat_map(|file| {
                file.service.iter().map(|service| format!("{}.{}", file.package(), service.name()))
            })
            .collect();
        let public: BTreeSet<String> = PUBLIC.iter().map(|public| public.name.to_owned()).collect();
        assert_eq!(services, public);
        assert!(set.file.iter().all(|file| !file.package().starts_with("wolfpack.agent")));
    }
}
