//! Moments as the database keeps them: whole microseconds since 1970, UTC. One
//! form on both engines, that compares and subtracts without rounding.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// This moment and a span after it; the end of time when that is too far.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This moment less a span; the beginning of time when that is too far.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The span since an earlier moment; zero when that moment is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As a protobuf timestamp.
    #[must_use]
    pub fn to_proto(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.0.div_euclid(1_000_000),
            nanos: i32::try_from(self.0.rem_euclid(1_000_000) * 1000).unwrap_or(0),
        }
    }

    /// Whole seconds since the epoch, as tokens have them; zero before it.
    #[must_use]
    pub fn unix_seconds(self) -> u64 {
        u64::try_from(self.0.div_euclid(1_000_000)).unwrap_or(0)
    }
}

impl From<SystemTime> for Micros {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(span) => Self(0).plus(span),
            Err(before) => Self(0).minus(before.duration()),
        }
    }
}

impl From<Micros> for SystemTime {
    fn from(time: Micros) -> Self {
        let span = Duration::from_micros(time.0.unsigned_abs());
        if time.0 < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span }
    }
}

impl From<chrono::DateTime<chrono::Utc>> for Micros {
    fn from(time: chrono::DateTime<chrono::Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn proto_form_is_normal_and_keeps_every_microsecond(value in any::<i32>(), micros in 0i64..1_000_000) {
            let moment = Micros(i64::from(value) * 1_000_000 + micros);
            let proto = moment.to_proto();
            prop_assert!((0..1_000_000_000).contains(&proto.nanos));
            prop_assert_eq!(proto.seconds * 1_000_000 + i64::from(proto.nanos) / 1000, moment.0);
        }

        #[test]
        fn spans_never_go_below_zero(a in any::<i64>(), b in any::<i64>()) {
            let span = Micros(a).since(Micros(b));
            prop_assert_eq!(span.is_zero(), a <= b);
        }
    }
}
