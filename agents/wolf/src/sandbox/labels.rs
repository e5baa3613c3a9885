//! The labels of a sandbox's container. They are the agent's memory: after a
//! restart all it held is read back from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wolfpack_types::capacity::{EncoderGrant, Grant, Holding};
use wolfpack_types::{DockerMode, ExecutionId, ProjectId, ReservationId, SandboxId, WolfId};

/// The sandbox's id.
pub const SANDBOX: &str = "wolfpack.sandbox";
/// The id of the project that owns it.
pub const PROJECT: &str = "wolfpack.project";
/// The boot's id.
pub const EXECUTION: &str = "wolfpack.execution";
/// The reservation's id.
pub const RESERVATION: &str = "wolfpack.reservation";
/// The epoch of the manager's owner that asked for it.
pub const OWNER_EPOCH: &str = "wolfpack.owner_epoch";
/// The wolf's id; what the agent lists and watches by.
pub const WOLF: &str = "wolfpack.wolf";
/// What the sandbox holds of the wolf, as JSON.
pub const GOODS: &str = "wolfpack.goods";

/// What it has of Docker; absent for nothing.
pub const DOCKER: &str = "wolfpack.docker";
/// On what a sandbox started on its wolf's engine: the sandbox's id.
pub const SIBLING_OF: &str = "dev.wolfpack.sibling-of";
/// Beside it: the id of the wolf whose sandbox it is.
pub const SIBLING_WOLF: &str = "dev.wolfpack.wolf";

/// Who a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The wolf it is on.
    pub wolf: WolfId,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Its project.
    pub project: ProjectId,
    /// The boot.
    pub execution: ExecutionId,
    /// What holds its goods.
    pub reservation: ReservationId,
    /// Epoch of the manager's owner that asked for it.
    pub owner_epoch: i64,
}

/// What a sandbox holds of its wolf, with the limits that follow from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Goods {
    /// The amounts.
    pub holding: Holding,
    /// The most processes and threads at a time; zero for the default.
    pub pids: u32,
}

/// [`Goods`] as they are written in a label.
#[derive(Serialize, Deserialize)]
struct GoodsLabel {
    cpu_milli: u64,
    memory_bytes: u64,
    #[serde(default)]
    disk_bytes: u64,
    #[serde(default)]
    pids: u32,
    #[serde(default)]
    desktop: bool,
    #[serde(default)]
    gpus: Vec<String>,
    #[serde(default)]
    gpu_share_milli: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoder: Option<EncoderGrant>,
}

/// Writes identity and goods as labels.
#[must_use]
pub fn write(identity: &Identity, goods: &Goods, docker: DockerMode) -> BTreeMap<String, String> {
    let label = GoodsLabel {
        cpu_milli: goods.holding.cpu_milli,
        memory_bytes: goods.holding.memory_bytes,
        disk_bytes: goods.holding.disk_bytes,
        pids: goods.pids,
        desktop: goods.holding.desktop,
        gpus: goods.holding.grant.devices.clone(),
        gpu_share_milli: goods.holding.grant.share_milli,
        encoder: goods.holding.grant.encoder.clone(),
    };
    [
        (WOLF, identity.wolf.to_string()),
        (SANDBOX, identity.sandbox.to_string()),
        (PROJECT, identity.project.to_string()),
        (EXECUTION, identity.execution.to_string()),
        (RESERVATION, identity.reservation.to_string()),
        (OWNER_EPOCH, identity.owner_epoch.to_string()),
        (GOODS, serde_json::json!(label).to_string()),
    ]
    .into_iter()
    .chain((docker != DockerMode::None).then(|| (DOCKER, docker.to_string())))
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The labels of what a sandbox has beside its container: its network, its
/// volume.
#[must_use]
pub fn belongings(identity: &Identity) -> BTreeMap<String, String> {
    [
        (WOLF, identity.wolf.to_string()),
        (SANDBOX, identity.sandbox.to_string()),
        (PROJECT, identity.project.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// What a container has of Docker, by its labels.
#[must_use]
pub fn docker(labels: &BTreeMap<String, String>) -> DockerMode {
    labels.get(DOCKER).and_then(|mode| DockerMode::parse(mode)).unwrap_or_default()
}

/// Reads back what [`write`] wrote; `None` for a container that is not one of
/// ours or whose labels were damaged.
#[must_use]
pub fn read(labels: &BTreeMap<String, String>) -> Option<(Identity, Goods)> {
    let get = |key: &str| labels.get(key).map(String::as_str);
    let identity = Identity {
        wolf: WolfId::parse(get(WOLF)?).ok()?,
        sandbox: SandboxId::parse(get(SANDBOX)?).ok()?,
        project: ProjectId::parse(get(PROJECT)?).ok()?,
        execution: ExecutionId::parse(get(EXECUTION)?).ok()?,
        reservation: ReservationId::parse(get(RESERVATION)?).ok()?,
        owner_epoch: get(OWNER_EPOCH)?.parse().ok()?,
    };
    let label: GoodsLabel = serde_json::from_str(get(GOODS)?).ok()?;
    let goods = Goods {
        holding: Holding {
            cpu_milli: label.cpu_milli,
            memory_bytes: label.memory_bytes,
            disk_bytes: label.disk_bytes,
            desktop: label.desktop,
            grant: Grant {
                devices: label.gpus,
                share_milli: label.gpu_share_milli,
                encoder: label.encoder,
            },
        },
        pids: label.pids,
    };
    Some((identity, goods))
}

/// How much of the wolf's id a container's name has.
const WOLF_IN_NAME: usize = 8;

/// The end of every name that this wolf gives to what a sandbox has.
#[must_use]
pub fn wolf_suffix(wolf: &WolfId) -> String {
    let wolf = wolf.as_str();
    format!("-{}", &wolf[wolf.len().saturating_sub(WOLF_IN_NAME)..])
}

/// The name of a sandbox's container, and of its network and its volume. Two wolves may share an engine, and a
/// sandbox that moves may be on both for a moment, so it has the wolf in it.
#[must_use]
pub fn container_name(wolf: &WolfId, sandbox: &SandboxId) -> String {
    format!("wolfpack-{sandbox}{}", wolf_suffix(wolf))
}

/// The sandbox whose things have this name, when it is one of this wolf's.
#[must_use]
pub fn sandbox_of_name(wolf: &WolfId, name: &str) -> Option<SandboxId> {
    let id = name.strip_prefix("wolfpack-")?.strip_suffix(&wolf_suffix(wolf))?;
    SandboxId::parse(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> Identity {
        Identity {
            wolf: WolfId::new(),
            sandbox: SandboxId::new(),
            project: ProjectId::new(),
            execution: ExecutionId::new(),
            reservation: ReservationId::new(),
            owner_epoch: 7,
        }
    }

    #[test]
    fn a_name_says_whose_it_is() {
        let (wolf, sandbox) = (WolfId::new(), SandboxId::new());
        let name = container_name(&wolf, &sandbox);
        assert_eq!(sandbox_of_name(&wolf, &name), Some(sandbox));
        assert_eq!(sandbox_of_name(&WolfId::parse("other").unwrap(), &name), None);
        assert_eq!(sandbox_of_name(&wolf, "bridge"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            cpu_milli: u64, memory_bytes: u64, disk_bytes: u64, pids: u32, desktop: bool,
            devices in prop::collection::vec("[ -~]{1,40}", 0..4), share_milli in 0u32..=1000,
            encoder in prop::option::of(("[ -~]{1,40}", any::<u32>())),
        ) {
            let identity = identity();
            let goods = Goods {
                holding: Holding {
                    cpu_milli, memory_bytes, disk_bytes, desktop,
                    grant: Grant {
                        devices,
                        share_milli,
                        encoder: encoder
                            .map(|(device, sessions)| EncoderGrant { device, sessions }),
                    },
                },
                pids,
            };
            let labels = write(&identity, &goods, DockerMode::Nested);
            prop_assert_eq!(docker(&labels), DockerMode::Nested);
            prop_assert!(labels.keys().all(|key| key.starts_with("wolfpack.")));
            prop_assert_eq!(read(&labels), Some((identity, goods)));
        }

        #[test]
        fn damaged_labels_are_not_ours(lost in 0usize..7, value in "[A-Z ]{0,3}") {
            let mut labels = write(&identity(), &Goods::default(), DockerMode::None);
            prop_assert_eq!(docker(&labels), DockerMode::None);
            let key = labels.keys().nth(lost).cloned().unwrap_or_default();
            labels.insert(key.clone(), value);
            prop_assert_eq!(read(&labels), None);
            labels.remove(&key);
            prop_assert_eq!(read(&labels), None);
        }
    }
}
