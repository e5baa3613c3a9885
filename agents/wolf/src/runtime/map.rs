//! Between the proto's messages and ours.

use std::time::SystemTime;

use wolfpack_proto::agent::v1::{
    ContainerState as ProtoState, ContainerStatus, CreateSandboxRequest, Pulling,
};
use wolfpack_proto::sandbox::v1::{LayerProgress, Mount};
use wolfpack_proto::scheduler::v1::{Reservation, ReservationState as ProtoReservationState};
use wolfpack_proto::types::v1::DockerMode as ProtoDockerMode;
use wolfpack_types::capacity::{EncoderGrant, Grant, Holding};
use wolfpack_types::{
    DockerMode, ExecutionId, Fault, ProjectId, Reason, ReservationId, ReservationState, SandboxId,
    WolfId,
};

use crate::admission::{Claim, Reserved};
use crate::engine::{ContainerState, PullProgress};
use crate::lifecycle::{CreateRequest, Observed};
use crate::mounts::MountRequest;
use crate::sandbox::Goods;

/// A request as the lifecycle takes it.
pub(super) fn create_request(request: CreateSandboxRequest) -> Result<CreateRequest, Fault> {
    let spec = request.spec.ok_or_else(|| missing("spec"))?;
    let reservation = request.reservation.ok_or_else(|| missing("reservation"))?;
    let docker = match spec.docker() {
        ProtoDockerMode::Unspecified | ProtoDockerMode::None => DockerMode::None,
        ProtoDockerMode::Nested => DockerMode::Nested,
        ProtoDockerMode::Shared => DockerMode::Shared,
    };
    let mount = |mount: Mount| MountRequest {
        source: mount.source.into(),
        target: mount.target,
        read_only: mount.read_only,
    };
    let mounts = spec.mounts.into_iter().map(mount).collect();
    Ok(CreateRequest {
        claim: Claim {
            sandbox: SandboxId::from_name(&request.sandbox)?,
            project: ProjectId::from_name(&request.project)?,
            execution: ExecutionId::parse(&request.execution_id)?,
            owner_epoch: request.owner_epoch,
            reservation: reserved(reservation)?,
        },
        image: spec.image,
        command: spec.command,
        env: spec.env,
        desktop: spec.desktop,
        docker,
        mounts,
        token: request.sandbox_token.into(),
    })
}

fn missing(field: &str) -> Fault {
    Fault::new(Reason::RequestInvalid, format!("{field} is missing; send it"))
        .violates(field, "is missing")
}

fn reserved(reservation: Reservation) -> Result<Reserved, Fault> {
    let state = match reservation.state() {
        ProtoReservationState::Unspecified => return Err(missing("reservation.state")),
        ProtoReservationState::Reserved => ReservationState::Reserved,
        ProtoReservationState::Bound => ReservationState::Bound,
        ProtoReservationState::Released => ReservationState::Released,
        ProtoReservationState::Expired => ReservationState::Expired,
        ProtoReservationState::Refused => ReservationState::Refused,
        ProtoReservationState::Lost => ReservationState::Lost,
    };
    let resources = reservation.resources.unwrap_or_default();
    let share_milli = if reservation.gpu_ids.is_empty() { 0 } else { reservation.gpu_share_milli };
    let encoder = (reservation.encoder_sessions > 0).then(|| EncoderGrant {
        device: reservation.encoder_gpu_id.clone(),
        sessions: reservation.encoder_sessions,
    });
    Ok(Reserved {
        id: ReservationId::from_name(&reservation.name)?,
        state,
        sandbox: SandboxId::from_name(&reservation.sandbox)?,
        project: ProjectId::from_name(&reservation.project)?,
        wolf: WolfId::from_name(&reservation.wolf)?,
        goods: Goods {
            holding: Holding {
                cpu_milli: resources.cpu_milli.unwrap_or(0).into(),
                memory_bytes: resources.memory_bytes.unwrap_or(0),
                disk_bytes: resources.disk_bytes.unwrap_or(0),
                desktop: reservation.desktop,
                grant: Grant { devices: reservation.gpu_ids, share_milli, encoder },
            },
            pids: resources.pids.unwrap_or(0),
        },
        expire_time: reservation.expire_time.map(time).transpose()?,
        epoch: reservation.epoch,
    })
}

fn time(timestamp: prost_types::Timestamp) -> Result<SystemTime, Fault> {
    SystemTime::try_from(timestamp).map_err(|error| {
        Fault::new(Reason::RequestInvalid, "reservation.expire_time is not a time").caused_by(error)
    })
}

/// How far a pull is, as the proto says it.
pub(super) fn pulling(pull: PullProgress) -> Pulling {
    let layer = |layer: crate::engine::LayerProgress| LayerProgress {
        id: layer.id,
        state: layer.state,
        current_bytes: layer.current_bytes,
        total_bytes: layer.total_bytes,
    };
    Pulling {
        message: pull.message,
        current_bytes: pull.current_bytes,
        total_bytes: pull.total_bytes,
        bytes_per_second: pull.bytes_per_second,
        layers: pull.layers.into_iter().map(layer).collect(),
    }
}

/// A container as the proto says it.
pub(super) fn status(observed: &Observed) -> ContainerStatus {
    let identity = &observed.identity;
    let container = &observed.container;
    let state = match container.state {
        ContainerState::Created => ProtoState::Created,
        ContainerState::Running => ProtoState::Running,
        ContainerState::Exited => ProtoState::Exited,
    };
    ContainerStatus {
        sandbox: identity.sandbox.name(),
        execution_id: identity.execution.to_string(),
        project: identity.project.name(),
        reservation: identity.reservation.name(),
        container_id: container.id.clone(),
        state: state.into(),
        exit_code: container.exit_code,
        out_of_memory: container.out_of_memory,
        start_time: container.start_time.map(Into::into),
        message: observed.message.clone(),
        reason: observed.reason.map(|reason| reason.to_string()).unwrap_or_default(),
    }
}

/// A container that is no longer there.
pub(super) fn removed(observed: &Observed) -> ContainerStatus {
    ContainerStatus { state: ProtoState::Removed.into(), ..status(observed) }
}
