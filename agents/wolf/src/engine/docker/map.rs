//! From the engine's models to ours.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::SystemTime;

use bollard::errors::Error as BollardError;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, ImageInspect, NetworkInspect, SystemInfo,
    SystemInfoCgroupVersionEnum,
};

use crate::engine::{
    Container, ContainerState, EngineError, EngineInfo, ImageConfig, Network, Sibling,
};

/// Whether containers on a bridge reach one another.
pub(super) const ICC: &str = "com.docker.network.bridge.enable_icc";
/// What a bridge's interface is called, when somebody named it.
const BRIDGE: &str = "com.docker.network.bridge.name";
/// What the engine calls the file system below its data.
const BACKING: &str = "Backing Filesystem";
/// How much of a network's id is in the name of its interface.
const BRIDGE_ID: usize = 12;

/// The error of a failed call.
pub(super) fn error(error: BollardError) -> EngineError {
    match error {
        BollardError::DockerResponseServerError { status_code, message } => {
            let message = EngineError::words(&message);
            match status_code {
                404 => EngineError::NotFound(message),
                409 => EngineError::Conflict(message),
                status => EngineError::Refused { status, message },
            }
        }
        BollardError::DockerStreamError { error } => {
            EngineError::Stream(EngineError::words(&error))
        }
        error @ (BollardError::IOError { .. }
        | BollardError::HyperResponseError { .. }
        | BollardError::HyperLegacyError { .. }
        | BollardError::SocketNotFoundError(_)
        | BollardError::RequestTimeoutError) => EngineError::Unreachable(Box::new(error)),
        other => EngineError::Unreadable(EngineError::words(&other.to_string())),
    }
}

pub(super) fn info(info: SystemInfo) -> EngineInfo {
    let data_root = info.docker_root_dir.map(PathBuf::from);
    let remaps = info
        .security_options
        .iter()
        .flatten()
        .any(|option| option.split(',').any(|part| part == "name=userns"));
    // With remapped users the engine keeps its data under `ROOT/UID.GID`.
    let remapped_root = data_root.as_deref().filter(|_| remaps).and_then(|root| {
        let (uid, gid) = root.file_name()?.to_str()?.split_once('.')?;
        Some((uid.parse().ok()?, gid.parse().ok()?))
    });
    EngineInfo {
        version: info.server_version.unwrap_or_default(),
        storage_driver: info.driver.unwrap_or_default(),
        cgroup_version: match info.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_1) => 1,
            Some(SystemInfoCgroupVersionEnum::_2) => 2,
            Some(SystemInfoCgroupVersionEnum::EMPTY) | None => 0,
        },
        cpus: info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).filter(|cpus| *cpus > 0),
        data_root,
        remapped_root,
        backing_filesystem: info
            .driver_status
            .into_iter()
            .flatten()
            .find(|pair| pair.first().is_some_and(|key| key == BACKING))
            .and_then(|pair| pair.into_iter().nth(1)),
        cdi_folders: info.cdi_spec_dirs.into_iter().flatten().map(PathBuf::from).collect(),
    }
}

/// A container that a sandbox started; `None` for one without an id.
pub(super) fn sibling(summary: ContainerSummary) -> Option<Sibling> {
    let names = summary.names.unwrap_or_default();
    Some(Sibling {
        id: summary.id?,
        names: names.iter().map(|name| name.trim_start_matches('/').to_owned()).collect(),
        image: summary.image.unwrap_or_default(),
        state: summary.state.map(|state| state.to_string()).unwrap_or_default(),
        create_time: summary
            .created
            .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0))
            .map(SystemTime::from),
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
    })
}

/// The network, when it is one that we would have made with these labels.
pub(super) fn network(
    name: &str,
    found: &NetworkInspect,
    labels: &BTreeMap<String, String>,
) -> Result<Network, EngineError> {
    let option = |key: &str| found.options.as_ref().and_then(|options| options.get(key));
    let label = |key: &str| found.labels.as_ref().and_then(|labels| labels.get(key));
    let unfit = |why| EngineError::Unfit { name: name.to_owned(), why };
    let rules = [
        (
            labels.iter().all(|(key, value)| label(key) == Some(value)),
            "does not have this wolf's label",
        ),
        (found.driver.as_deref() == Some("bridge"), "is not a bridge"),
        (option(ICC).is_some_and(|icc| icc == "false"), "lets its containers reach one another"),
        (found.enable_ipv6 != Some(true), "has IPv6"),
    ];
    if let Some((_, why)) = rules.iter().find(|(holds, _)| !holds) {
        return Err(unfit(why));
    }
    let gateway = gateway(found).ok_or_else(|| unfit("has no IPv4 gateway"))?;
    let id = found.id.as_deref().unwrap_or_default();
    let bridge = match option(BRIDGE) {
        Some(named) => named.clone(),
        None => format!("br-{}", id.get(..BRIDGE_ID).unwrap_or(id)),
    };
    Ok(Network { name: name.to_owned(), gateway, bridge })
}

fn gateway(network: &NetworkInspect) -> Option<Ipv4Addr> {
    let configs = network.ipam.as_ref()?.config.as_ref()?;
    // Some engines say it as an address with a prefix.
    let addresses = configs.iter().filter_map(|config| config.gateway.as_deref());
    addresses.filter_map(|text| text.split('/').next()).find_map(|text| text.parse().ok())
}

pub(super) fn image(image: ImageInspect) -> ImageConfig {
    let config = image.config.unwrap_or_default();
    let split = |pair: String| match pair.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (pair, String::new()),
    };
    ImageConfig {
        id: image.id.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default().into_iter().map(split).collect(),
        user: config.user.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
    }
}

/// A container as a list shows it; `None` for one that is being removed.
pub(super) fn summary(summary: ContainerSummary) -> Option<Container> {
    let state = match summary.state? {
        ContainerSummaryStateEnum::CREATED => ContainerState::Created,
        ContainerSummaryStateEnum::RUNNING
        | ContainerSummaryStateEnum::PAUSED
        | ContainerSummaryStateEnum::STOPPING
        | ContainerSummaryStateEnum::RESTARTING => ContainerState::Running,
        ContainerSummaryStateEnum::EXITED
        | ContainerSummaryStateEnum::DEAD
        | ContainerSummaryStateEnum::EMPTY => ContainerState::Exited,
        ContainerSummaryStateEnum::REMOVING => return None,
    };
    Some(Container {
        id: summary.id?,
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        state,
        exit_code: None,
        out_of_memory: false,
        start_time: None,
        finish_time: None,
    })
}

pub(super) fn container(inspected: ContainerInspectResponse) -> Result<Container, EngineError> {
    let missing = |what: &str| EngineError::Unreadable(format!("a container without {what}"));
    let id = inspected.id.ok_or_else(|| missing("an id"))?;
    let found = inspected.state.ok_or_else(|| missing("a state"))?;
    let state = match found.status {
        Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::STOPPING
            | ContainerStateStatusEnum::RESTARTING,
        ) => ContainerState::Running,
        Some(
            ContainerStateStatusEnum::EXITED
            | ContainerStateStatusEnum::DEAD
            | ContainerStateStatusEnum::REMOVING
            | ContainerStateStatusEnum::EMPTY,
        )
        | None => ContainerState::Exited,
    };
    let labels: BTreeMap<_, _> =
        inspected.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect();
    let exit_code = found.exit_code.and_then(|code| i32::try_from(code).ok());
    Ok(Container {
        id,
        labels,
        state,
        exit_code: exit_code.filter(|_| state == ContainerState::Exited),
        out_of_memory: found.oom_killed.unwrap_or(false),
        start_time: found.started_at.as_deref().and_then(time),
        finish_time: found
            .finished_at
            .as_deref()
            .and_then(time)
            .filter(|_| state == ContainerState::Exited),
    })
}

/// An RFC 3339 time; the engine writes year 1 for "never".
fn time(text: &str) -> Option<SystemTime> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    (time.timestamp() > 0).then(|| SystemTime::from(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remapping_engine_says_who_root_is() {
        let with = |options: &[&str], root: &str| {
            info(SystemInfo {
                security_options: Some(options.iter().map(|&option| option.to_owned()).collect()),
                docker_root_dir: Some(root.to_owned()),
                ..SystemInfo::default()
            })
            .remapped_root
        };
        let remapping = ["name=seccomp,profile=default", "name=userns"];
        assert_eq!(with(&remapping, "/var/lib/docker/100000.100001"), Some((100_000, 100_001)));
        assert_eq!(with(&["name=seccomp"], "/var/lib/docker/100000.100000"), None);
        assert_eq!(with(&remapping, "/var/lib/docker"), None);
    }

    #[test]
    fn only_a_bridge_as_we_make_it_is_taken() {
        let labels = BTreeMap::from([("wolfpack.wolf".to_owned(), "w1".to_owned())]);
        let ours = serde_json::json!({
            "Id": "0123456789abcdef", "Driver": "bridge", "EnableIPv6": false,
            "Labels": {"wolfpack.wolf": "w1", "more": "x"}, "Options": {ICC: "false"},
            "IPAM": {"Config": [{"Gateway": "172.20.0.1/16"}]},
        });
        let taken = |found: &serde_json::Value| {
            let found = serde_json::from_value(found.clone()).unwrap();
            network("n", &found, &labels).map_err(|error| error.to_string())
        };
        let network = taken(&ours).unwrap();
        assert_eq!(
            (network.bridge.as_str(), network.gateway.octets()),
            ("br-0123456789ab", [172, 20, 0, 1])
        );
        for (field, value, why) in [
            ("Labels", serde_json::json!({"wolfpack.wolf": "w2"}), "label"),
            ("Labels", serde_json::Value::Null, "label"),
            ("Options", serde_json::json!({}), "reach one another"),
            ("Options", serde_json::json!({ICC: "true"}), "reach one another"),
            ("Driver", serde_json::json!("macvlan"), "not a bridge"),
            ("EnableIPv6", serde_json::json!(true), "IPv6"),
            ("IPAM", serde_json::json!({"Config": []}), "gateway"),
        ] {
            let mut other = ours.clone();
            other[field] = value;
            let told = taken(&other).unwrap_err();
            assert!(told.contains(why) && told.contains("docker network rm n"), "{told}");
        }
        let mut named = ours;
        named["Options"][BRIDGE] = "br0".into();
        assert_eq!(taken(&named).unwrap().bridge, "br0");
    }

    #[test]
    fn never_started_has_no_time() {
        assert_eq!(time("0001-01-01T00:00:00Z"), None);
        assert!(time("2026-11-23T15:42:00.123456789Z").is_some());
        assert_eq!(time("soon"), None);
    }
}
