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

use crate::engine::{Container, ContainerState, EngineError, EngineInfo, ImageConfig};

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
    }
}

pub(super) fn gateway(network: &NetworkInspect) -> Option<Ipv4Addr> {
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
    fn never_started_has_no_time() {
        assert_eq!(time("0001-01-01T00:00:00Z"), None);
        assert!(time("2026-11-23T15:42:00.123456789Z").is_some());
        assert_eq!(time("soon"), None);
    }
}
