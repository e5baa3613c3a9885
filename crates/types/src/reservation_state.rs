//! The life of a reservation: the one table of legal transitions.

/// Where a reservation is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReservationState {
    /// Held for a sandbox to come; the only state that expires.
    Reserved,
    /// The wolf admitted it; held until it is released.
    Bound,
    /// Given back.
    Released,
    /// Was not confirmed in time.
    Expired,
    /// The wolf refused it.
    Refused,
    /// Its wolf is gone.
    Lost,
}

impl ReservationState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Reserved, Self::Bound, Self::Released, Self::Expired, Self::Refused, Self::Lost];

    /// Its name in the store: lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Bound => "bound",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether it holds goods.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Reserved | Self::Bound)
    }

    /// Whether a reservation may go from here to `next`.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Reserved => next != Self::Reserved,
            Self::Bound => matches!(next, Self::Released | Self::Refused | Self::Lost),
            Self::Released | Self::Expired | Self::Refused | Self::Lost => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reserved_expires_and_ended_stays_ended() {
        for state in ReservationState::ALL {
            assert_eq!(
                state.may_become(ReservationState::Expired),
                state == ReservationState::Reserved
            );
            assert_eq!(ReservationState::parse(state.as_str()), Some(state));
            for next in ReservationState::ALL {
                assert!(state.is_live() || !state.may_become(next));
            }
        }
    }
}
