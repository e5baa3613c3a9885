//! The life of a sandbox: the one table of legal transitions.

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SandboxState {
    /// Accepted; nothing was done yet.
    Pending,
    /// Looking for a wolf.
    Scheduling,
    /// The wolf admitted it and fetches the image if it lacks it.
    Pulling,
    /// The container was made; waiting for the sandbox's agent.
    Starting,
    /// Ready for use.
    Running,
    /// Being deleted.
    Deleting,
    /// Gone; the row is kept for a while.
    Deleted,
    /// Ended by itself or could not start.
    Failed,
    /// Its wolf is away.
    Lost,
}

impl SandboxState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Scheduling,
        Self::Pulling,
        Self::Starting,
        Self::Running,
        Self::Deleting,
        Self::Deleted,
        Self::Failed,
        Self::Lost,
    ];

    /// Its name in the store and in tables: lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Scheduling => "scheduling",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether a sandbox may go from here to `next`. Delete is legal from every
    /// state but the last; staying is not a transition.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Deleted, _) => false,
            (Self::Deleting, next) => next == Self::Deleted,
            (_, Self::Deleting) => true,
            (Self::Pending, next) => matches!(next, Self::Scheduling | Self::Failed),
            // A refused reservation sends it back to look for another wolf.
            (Self::Scheduling, next) => matches!(next, Self::Pulling | Self::Failed),
            (Self::Pulling, next) => {
                matches!(next, Self::Scheduling | Self::Starting | Self::Failed | Self::Lost)
            }
            (Self::Starting, next) => matches!(next, Self::Running | Self::Failed | Self::Lost),
            (Self::Running, next) => matches!(next, Self::Failed | Self::Lost),
            (Self::Lost, next) => {
                matches!(next, Self::Pulling | Self::Starting | Self::Running | Self::Failed)
            }
            (Self::Failed, _) => false,
        }
    }

    /// Whether nothing happens any more without a user's call.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Running | Self::Deleted | Self::Failed)
    }

    /// Whether it may hold goods of a wolf.
    #[must_use]
    pub fn may_hold_goods(self) -> bool {
        !matches!(self, Self::Pending | Self::Deleted)
    }
}

impl std::fmt::Display for SandboxState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_state() -> impl Strategy<Value = SandboxState> {
        prop::sample::select(SandboxState::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn delete_is_legal_everywhere_but_at_the_end(state in any_state()) {
            let ended = matches!(state, SandboxState::Deleting | SandboxState::Deleted);
            prop_assert_eq!(state.may_become(SandboxState::Deleting), !ended);
        }

        #[test]
        fn every_walk_can_still_reach_deleted(walk in prop::collection::vec(any_state(), 0..20)) {
            let mut at = SandboxState::Pending;
            for next in walk {
                if at.may_become(next) {
                    at = next;
                }
            }
            let reaches = at == SandboxState::Deleted
                || at.may_become(SandboxState::Deleted)
                || at.may_become(SandboxState::Deleting);
            prop_assert!(reaches, "{at} is a dead end");
        }

        #[test]
        fn nothing_follows_deleted_and_nothing_skips_deleting(state in any_state()) {
            prop_assert!(!SandboxState::Deleted.may_become(state));
            prop_assert_eq!(state.may_become(SandboxState::Deleted), state == SandboxState::Deleting);
            prop_assert!(!state.may_become(state));
        }
    }

    #[test]
    fn names_round_trip() {
        for state in SandboxState::ALL {
            assert_eq!(SandboxState::parse(state.as_str()), Some(state));
        }
    }
}
