//! The one function that says what to do next.

use wolfpack_types::{Reason, SandboxState};

use crate::domain::boot::{Boot, Exit, Failure, GiveUp, ReleaseAs};
use crate::domain::facts::{AgentFact, ContainerFact, Facts, WolfFact};
use crate::domain::record::Record;
use crate::domain::step::Step;

/// What to do next for a sandbox with this row, given what is seen.
#[must_use]
pub fn decide(record: &Record, facts: &Facts) -> Step {
    match record.state {
        SandboxState::Pending => Step::BeginScheduling,
        SandboxState::Scheduling => scheduling(record, facts),
        SandboxState::Pulling | SandboxState::Starting | SandboxState::Running => {
            match &record.boot {
                Some(boot) => on_wolf(record.state, boot, facts),
                None => Step::Fail(Failure::new(Reason::Internal, "its placement is missing")),
            }
        }
        SandboxState::Lost => match &record.boot {
            Some(boot) => lost(boot, facts),
            None => Step::Fail(Failure::new(Reason::Internal, "its placement is missing")),
        },
        SandboxState::Deleting => clear_away(record, facts).unwrap_or(Step::MarkDeleted),
        SandboxState::Failed => clear_away(record, facts).unwrap_or(Step::Settled),
        SandboxState::Deleted => Step::Settled,
    }
}

fn scheduling(record: &Record, facts: &Facts) -> Step {
    if record.live_boot().is_some() {
        return match facts.wolf {
            WolfFact::Offline | WolfFact::Gone => Step::Abandon(GiveUp::AWAY),
            WolfFact::Unknown | WolfFact::Present if facts.overdue => Step::Abandon(GiveUp::SILENT),
            WolfFact::Unknown | WolfFact::Present => Step::CreateOnWolf,
        };
    }
    if let Some(step) = clear_away(record, facts) {
        return step;
    }
    if record.attempt >= facts.placements_allowed {
        let tried = record.attempt;
        return Step::Fail(Failure::new(
            record.final_refusal().unwrap_or(Reason::NoWolfFits),
            format!("{tried} placements were given up, the last because: {}", record.message),
        ));
    }
    if facts.overdue {
        let reason = record.final_refusal().unwrap_or(Reason::NoWolfFits);
        return Step::Fail(Failure::new(reason, record.message.clone()));
    }
    Step::Place
}

fn on_wolf(state: SandboxState, boot: &Boot, facts: &Facts) -> Step {
    match facts.wolf {
        WolfFact::Gone => return Step::Fail(wolf_gone(boot)),
        WolfFact::Offline => return Step::MarkLost,
        WolfFact::Unknown | WolfFact::Present => {}
    }
    if let ContainerFact::Exited(exit) = facts.container {
        return Step::Fail(exited(exit));
    }
    let pulling = state == SandboxState::Pulling;
    if facts.reservation_ended && !boot.confirmed {
        return if pulling {
            Step::Abandon(GiveUp::EXPIRED)
        } else {
            Step::Fail(Failure::new(
                Reason::ReservationNotLive,
                "its reservation ended before it could be bound; create it again",
            ))
        };
    }
    if !boot.confirmed {
        return if facts.overdue {
            Step::Fail(Failure::new(
                Reason::StartTimeout,
                "the scheduler did not bind its reservation in time; create it again when the scheduler answers",
            ))
        } else {
            Step::Confirm
        };
    }
    if !pulling && facts.container == ContainerFact::Absent {
        return Step::Fail(container_gone(boot));
    }
    match state {
        SandboxState::Running => Step::Settled,
        SandboxState::Starting if facts.agent == AgentFact::Ready => Step::MarkRunning,
        _ if facts.overdue => Step::Fail(Failure::new(
            Reason::StartTimeout,
            if pulling {
                "the container was not started in time; look at the wolf's engine and the size of the image"
            } else {
                "the agent in the sandbox did not become ready in time; its last output may say why"
            },
        )),
        SandboxState::Starting => Step::AwaitAgent,
        _ => Step::CreateOnWolf,
    }
}

fn lost(boot: &Boot, facts: &Facts) -> Step {
    match facts.wolf {
        WolfFact::Gone => return Step::Fail(wolf_gone(boot)),
        WolfFact::Offline | WolfFact::Unknown => return Step::Wait,
        WolfFact::Present => {}
    }
    match facts.container {
        ContainerFact::Unknown => Step::Wait,
        ContainerFact::Exited(exit) => Step::Fail(exited(exit)),
        ContainerFact::Running if boot.ran => Step::Recover(SandboxState::Running),
        ContainerFact::Running => Step::Recover(SandboxState::Starting),
        ContainerFact::Absent | ContainerFact::Created if !boot.started => {
            Step::Recover(SandboxState::Pulling)
        }
        ContainerFact::Absent | ContainerFact::Created => Step::Fail(container_gone(boot)),
    }
}

/// The next thing to clear away of a boot that is over; `None` when nothing of
/// it is left. The container goes first: goods are free only when it is gone.
fn clear_away(record: &Record, facts: &Facts) -> Option<Step> {
    let boot = record.boot.as_ref()?;
    if boot.holds.container {
        return Some(match facts.wolf {
            WolfFact::Gone => Step::ForgetContainer,
            // Another placement need not wait for it: as an orphan it is
            // removed when the wolf is back.
            WolfFact::Offline if boot.abandoned.is_some() => Step::ForgetContainer,
            WolfFact::Offline if boot.holds.tokens => Step::Revoke,
            WolfFact::Offline => Step::Wait,
            WolfFact::Unknown | WolfFact::Present => Step::Remove,
        });
    }
    if boot.holds.reservation {
        let otherwise =
            if facts.wolf == WolfFact::Gone { ReleaseAs::Lost } else { ReleaseAs::Released };
        return Some(Step::Release(boot.abandoned.unwrap_or(otherwise)));
    }
    boot.holds.tokens.then_some(Step::Revoke)
}

fn exited(exit: Exit) -> Failure {
    let (reason, message) = if let Some(reason) = exit.ended_for {
        (reason, ended_by_wolf(reason))
    } else if exit.out_of_memory {
        (
            Reason::SandboxOutOfMemory,
            "the kernel ended it for lack of memory; ask for more".to_owned(),
        )
    } else if exit.restarted {
        (
            Reason::SandboxExited,
            "it ended with its wolf or the wolf's engine, which was restarted".to_owned(),
        )
    } else if let Some(code) = exit.code {
        (Reason::SandboxExited, format!("its main process ended with code {code}"))
    } else {
        (Reason::SandboxExited, "its main process ended".to_owned())
    };
    Failure { reason, message, exit_code: exit.code }
}

/// What its wolf ended it for, and what to do.
fn ended_by_wolf(reason: Reason) -> String {
    match reason {
        Reason::SandboxDiskExceeded => {
            "its wolf ended it for what it wrote to the disk; ask for more disk, or write less"
                .to_owned()
        }
        other => format!("its wolf ended it: {}", other.summary()),
    }
}

fn container_gone(boot: &Boot) -> Failure {
    Failure::new(
        Reason::ContainerGone,
        format!("its container is no longer on {}; create it again", boot.wolf.name()),
    )
}

fn wolf_gone(boot: &Boot) -> Failure {
    Failure::new(
        Reason::ContainerGone,
        format!("{} left the fleet, and it with it; create it again", boot.wolf.name()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use wolfpack_types::{ExecutionId, ReservationId, WolfId};

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn facts() -> Facts {
        Facts { wolf: WolfFact::Present, placements_allowed: 3, ..Facts::default() }
    }

    fn placed() -> Record {
        let mut record = Record::new(now());
        record.begin_scheduling(now()).unwrap();
        record.placed(WolfId::new(), ReservationId::new(), ExecutionId::new(), now());
        record
    }

    fn running() -> Record {
        let mut record = placed();
        record.admitted(true, now()).unwrap();
        record.started(now()).unwrap();
        record.running(now()).unwrap();
        record
    }

    #[test]
    fn the_way_up_is_place_create_await_running() {
        let mut record = Record::new(now());
        assert_eq!(decide(&record, &facts()), Step::BeginScheduling);
        record.begin_scheduling(now()).unwrap();
        assert_eq!(decide(&record, &facts()), Step::Place);
        record.placed(WolfId::new(), ReservationId::new(), ExecutionId::new(), now());
        assert_eq!(decide(&record, &facts()), Step::CreateOnWolf);
        record.admitted(false, now()).unwrap();
        assert_eq!(decide(&record, &facts()), Step::Confirm);
        record.confirmed();
        assert_eq!(decide(&record, &facts()), Step::CreateOnWolf);
        record.started(now()).unwrap();
        assert_eq!(decide(&record, &facts()), Step::AwaitAgent);
        let ready = Facts { agent: AgentFact::Ready, ..facts() };
        assert_eq!(decide(&record, &ready), Step::MarkRunning);
        record.running(now()).unwrap();
        assert_eq!(decide(&record, &ready), Step::Settled);
    }

    #[test]
    fn a_reservation_that_is_not_bound_in_time_fails_it() {
        let mut record = placed();
        record.admitted(false, now()).unwrap();
        let late = Facts { overdue: true, ..facts() };
        for state in [SandboxState::Pulling, SandboxState::Starting] {
            assert_eq!(record.state, state);
            assert_eq!(decide(&record, &facts()), Step::Confirm);
            let Step::Fail(failure) = decide(&record, &late) else { panic!("must fail: {state}") };
            assert_eq!(failure.reason, Reason::StartTimeout);
            assert!(failure.message.contains("bind its reservation"), "{}", failure.message);
            if state == SandboxState::Pulling {
                record.started(now()).unwrap();
            }
        }
    }

    #[test]
    fn a_container_that_ended_fails_with_its_code_and_memory_has_its_own_reason() {
        for (out_of_memory, reason) in
            [(false, Reason::SandboxExited), (true, Reason::SandboxOutOfMemory)]
        {
            let exit = Exit { code: Some(137), out_of_memory, restarted: false, ended_for: None };
            let seen = Facts { container: ContainerFact::Exited(exit), ..facts() };
            let Step::Fail(failure) = decide(&running(), &seen) else { panic!("must fail") };
            assert_eq!((failure.reason, failure.exit_code), (reason, Some(137)));
        }
        // What the wolf did it for counts, whatever the kernel says beside.
        for out_of_memory in [false, true] {
            let ended_for = Some(Reason::SandboxDiskExceeded);
            let exit = Exit { code: Some(137), out_of_memory, restarted: false, ended_for };
            let seen = Facts { container: ContainerFact::Exited(exit), ..facts() };
            let Step::Fail(failure) = decide(&running(), &seen) else { panic!("must fail") };
            assert_eq!(failure.reason, Reason::SandboxDiskExceeded);
            assert!(failure.message.contains("more disk"), "{}", failure.message);
        }
        let exit = Exit { code: Some(137), out_of_memory: false, restarted: true, ended_for: None };
        let seen = Facts { container: ContainerFact::Exited(exit), ..facts() };
        let Step::Fail(failure) = decide(&running(), &seen) else { panic!("must fail") };
        assert!(failure.message.contains("restarted"), "{}", failure.message);
    }

    #[test]
    fn a_wolf_that_is_away_loses_it_and_its_return_brings_it_back_as_it_was() {
        let mut record = running();
        let away = Facts { wolf: WolfFact::Offline, ..facts() };
        assert_eq!(decide(&record, &away), Step::MarkLost);
        record.lost(now()).unwrap();
        assert_eq!(decide(&record, &away), Step::Wait);
        let back = Facts { container: ContainerFact::Running, ..facts() };
        assert_eq!(decide(&record, &back), Step::Recover(SandboxState::Running));
        let without = Facts { container: ContainerFact::Absent, ..facts() };
        assert!(
            matches!(decide(&record, &without), Step::Fail(f) if f.reason == Reason::ContainerGone)
        );
    }

    #[test]
    fn delete_waits_for_a_wolf_that_is_away_but_voids_the_tokens_at_once() {
        let mut record = running();
        record.delete(now()).unwrap();
        let away = Facts { wolf: WolfFact::Offline, ..facts() };
        assert_eq!(decide(&record, &away), Step::Revoke);
        record.revoked();
        assert_eq!(decide(&record, &away), Step::Wait);
        let gone = Facts { wolf: WolfFact::Gone, ..facts() };
        assert_eq!(decide(&record, &gone), Step::ForgetContainer);
        record.container_removed();
        assert_eq!(decide(&record, &gone), Step::Release(ReleaseAs::Lost));
        record.released();
        assert_eq!(decide(&record, &gone), Step::MarkDeleted);
    }

    #[test]
    fn a_refused_placement_is_released_as_refused_before_the_next() {
        let mut record = placed();
        record.abandon(GiveUp::REFUSED, "no room", now()).unwrap();
        assert_eq!(decide(&record, &facts()), Step::Release(ReleaseAs::Refused));
        record.released();
        assert_eq!(decide(&record, &facts()), Step::Revoke);
        record.revoked();
        assert_eq!(decide(&record, &facts()), Step::Place);
        record.attempt = 3;
        assert!(
            matches!(decide(&record, &facts()), Step::Fail(f) if f.reason == Reason::NoWolfFits)
        );
    }

    #[test]
    fn a_wolf_that_was_passed_over_is_asked_again_when_there_is_no_other() {
        for give_up in [GiveUp::REFUSED, GiveUp::SILENT] {
            let mut record = placed();
            let wolf = record.boot.as_ref().unwrap().wolf.clone();
            record.abandon(give_up, "not this one", now()).unwrap();
            assert_eq!(record.refused_by, [wolf]);
            assert!(record.no_wolf_yet("all others are full"));
            assert!(record.refused_by.is_empty());
            assert!(record.message.contains("all others are full"), "{}", record.message);
        }
        for give_up in [GiveUp::EXPIRED, GiveUp::AWAY] {
            let mut record = placed();
            record.abandon(give_up, "the wolf is not to blame", now()).unwrap();
            assert!(record.refused_by.is_empty());
        }
    }

    #[test]
    fn what_a_wolf_never_takes_is_tried_elsewhere_and_keeps_its_reason() {
        let mut record = placed();
        let wolf = record.boot.as_ref().unwrap().wolf.clone();
        record.refused(Reason::MountForbidden, "not below a folder", now()).unwrap();
        assert_eq!(record.refused_by, [wolf]);
        assert_eq!(record.final_refusal(), Some(Reason::MountForbidden));
        record.released();
        record.revoked();
        assert_eq!(decide(&record, &facts()), Step::Place);
        let late = Facts { overdue: true, ..facts() };
        assert!(
            matches!(decide(&record, &late), Step::Fail(f) if f.reason == Reason::MountForbidden)
        );
        record.placed(WolfId::new(), ReservationId::new(), ExecutionId::new(), now());
        record.admitted(true, now()).unwrap();
        assert_eq!(record.reason, None, "another one took it");
    }

    #[test]
    fn a_reservation_is_given_back_only_when_no_owner_of_the_row_can_use_it() {
        let id = ReservationId::new();
        let mut record = Record::new(now());
        record.begin_scheduling(now()).unwrap();
        assert!(record.may_use(&id, 0), "the next owner asks for the same attempt");
        assert!(!record.may_use(&id, 1), "another attempt has another one");
        let mut deleted = record.clone();
        deleted.delete(now()).unwrap();
        assert!(!deleted.may_use(&id, 0));
        let mut elsewhere = record.clone();
        elsewhere.placed(WolfId::new(), ReservationId::new(), ExecutionId::new(), now());
        assert!(!elsewhere.may_use(&id, 0));
        record.placed(WolfId::new(), id.clone(), ExecutionId::new(), now());
        record.admitted(true, now()).unwrap();
        assert!(record.may_use(&id, 0));
        record.delete(now()).unwrap();
        assert!(record.may_use(&id, 0), "it is given back with its boot");
    }
}
