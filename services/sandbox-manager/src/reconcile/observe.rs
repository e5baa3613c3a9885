//! Gathering facts.

use chrono::TimeDelta;
use wolfpack_types::SandboxState;

use crate::config::ReconcileConfig;
use crate::domain::{AgentFact, ContainerFact, Facts, WolfFact};
use crate::fleet::{Fleet, Sighting};
use crate::store::Sandbox;

/// Facts from the caches alone; `None` when one of them must be asked for.
pub(super) fn glance(fleet: &Fleet, row: &Sandbox, base: Facts) -> Option<Facts> {
    let Some(boot) = row.record.boot.as_ref() else { return Some(base) };
    let wolf = fleet.wolves.glance(&boot.wolf);
    let container = match fleet.containers.glance(&boot.wolf, &row.id, &boot.execution) {
        Sighting::There(fact) => fact,
        Sighting::Unknown if row.record.state != SandboxState::Lost => ContainerFact::Unknown,
        Sighting::Unknown if wolf == WolfFact::Offline => ContainerFact::Unknown,
        Sighting::Unknown | Sighting::Missing => return None,
    };
    if wolf == WolfFact::Unknown {
        return None;
    }
    Some(Facts { wolf, container, ..base })
}

/// Facts, asking the registry or the wolf where the caches do not know enough.
pub(super) async fn look(fleet: &Fleet, row: &Sandbox, base: Facts) -> Facts {
    let Some(boot) = row.record.boot.as_ref() else { return base };
    let wolf = fleet.wolves.look(&boot.wolf).await;
    let sighting = fleet.containers.glance(&boot.wolf, &row.id, &boot.execution);
    let container = match sighting {
        Sighting::There(fact) => fact,
        _ if !asks_for_container(row, &sighting, wolf) => ContainerFact::Unknown,
        // A watch may lag behind: only the wolf's own list is proof of absence.
        _ => match fleet.containers.ask(&boot.wolf, &row.id, &boot.execution).await {
            Ok(fact) => fact,
            Err(error) => {
                tracing::debug!(sandbox = %row.id, %error, "the wolf does not list its containers");
                ContainerFact::Unknown
            }
        },
    };
    Facts { wolf, container, ..base }
}

fn asks_for_container(row: &Sandbox, sighting: &Sighting, wolf: WolfFact) -> bool {
    let reachable = matches!(wolf, WolfFact::Present | WolfFact::Unknown);
    match row.record.state {
        SandboxState::Starting | SandboxState::Running => {
            reachable && *sighting == Sighting::Missing
        }
        SandboxState::Lost => wolf == WolfFact::Present,
        _ => false,
    }
}

/// How long a row may stay in its state; `None` for ever.
pub(super) fn allowed(row: &Sandbox, config: &ReconcileConfig) -> Option<TimeDelta> {
    let allowed = match row.record.state {
        SandboxState::Scheduling if row.record.live_boot().is_some() => config.admit,
        SandboxState::Scheduling => config.wait_for_wolf,
        SandboxState::Pulling => config.pull,
        SandboxState::Starting => config.start,
        _ => return None,
    };
    TimeDelta::from_std(allowed).ok()
}

/// What is left of that time; `None` for ever.
pub(super) fn left(
    row: &Sandbox,
    config: &ReconcileConfig,
    now: chrono::DateTime<chrono::Utc>,
) -> Option<TimeDelta> {
    let since = match row.record.live_boot() {
        Some(boot) if row.record.state == SandboxState::Scheduling => boot.placed_at,
        _ => row.record.since()?,
    };
    Some(since + allowed(row, config)? - now)
}

/// What does not have to be looked for.
pub(super) fn base(
    row: &Sandbox,
    config: &ReconcileConfig,
    now: chrono::DateTime<chrono::Utc>,
    agent_ready: bool,
    reservation_ended: bool,
) -> Facts {
    Facts {
        agent: if agent_ready { AgentFact::Ready } else { AgentFact::NotReady },
        reservation_ended,
        overdue: left(row, config, now).is_some_and(|left| left <= TimeDelta::zero()),
        placements_allowed: config.placements,
        ..Facts::default()
    }
}
