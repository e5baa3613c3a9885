//! Rows as the API says them.

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::types::v1 as types;
use wolfpack_types::DockerMode;

use crate::domain::{Transition, docker_of};
use crate::store::{Sandbox, api_state, timestamp};

/// A sandbox as clients see it.
pub(crate) fn sandbox(row: &Sandbox) -> pb::Sandbox {
    pb::Sandbox {
        name: row.id.name(),
        project: row.project.name(),
        display_name: row.asked.display_name.clone(),
        labels: row.asked.labels.clone(),
        spec: Some(row.asked.spec.clone()),
        status: Some(status(row)),
        creator: row.creator.clone(),
        create_time: Some(timestamp(row.created_at)),
        update_time: Some(timestamp(row.updated_at)),
        etag: row.etag(),
    }
}

fn status(row: &Sandbox) -> pb::SandboxStatus {
    let record = &row.record;
    // A placement that was given up is not where the sandbox is.
    let boot = record.live_boot();
    let goods = row.goods.as_ref().filter(|_| boot.is_some());
    pb::SandboxStatus {
        state: api_state(record.state).into(),
        reason: record.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        message: record.message.clone(),
        last_transition_time: record.since().map(timestamp),
        wolf: boot.map(|boot| boot.wolf.name()).unwrap_or_default(),
        execution_id: boot.map(|boot| boot.execution.to_string()).unwrap_or_default(),
        reservation: boot.map(|boot| boot.reservation.name()).unwrap_or_default(),
        gpu_ids: goods.map(|goods| goods.gpu_ids.clone()).unwrap_or_default(),
        transitions: record.transitions.iter().map(transition).collect(),
        // What a healthy sandbox said at its end is for StreamLogs to tell.
        last_logs: record.reason.map(|_| record.last_logs.clone()).unwrap_or_default(),
        exit_code: record.exit_code,
        docker: Some(docker(row)),
        pull: record.pull.clone(),
    }
}

/// What it has of Docker, plainly.
fn docker(row: &Sandbox) -> pb::DockerStatus {
    let mode = docker_of(&row.asked.spec);
    let said = match mode {
        DockerMode::None => types::DockerMode::None,
        DockerMode::Nested => types::DockerMode::Nested,
        DockerMode::Shared => types::DockerMode::Shared,
    };
    pb::DockerStatus { mode: said.into(), isolation: mode.isolation().to_owned() }
}

fn transition(transition: &Transition) -> pb::StateTransition {
    pb::StateTransition {
        state: api_state(transition.state).into(),
        time: Some(timestamp(transition.time)),
    }
}
