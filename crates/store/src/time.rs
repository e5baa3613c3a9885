//! Instants as both engines keep them: microseconds, UTC.

use chrono::{DateTime, SubsecRound as _, TimeZone as _, Utc};

/// Cuts what PostgreSQL would drop, so that a value read back equals the one
/// that was written on either engine. Do it before every write.
#[must_use]
pub fn micros(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(6)
}

/// An instant of microseconds since 1970; the nearest bound of what can be
/// shown when it lies outside.
#[must_use]
pub fn from_micros(micros: i64) -> DateTime<Utc> {
    match Utc.timestamp_micros(micros) {
        chrono::LocalResult::Single(time) => time,
        _ if micros < 0 => DateTime::<Utc>::MIN_UTC,
        _ => DateTime::<Utc>::MAX_UTC,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_are_cut_not_rounded() {
        let time = Utc.timestamp_opt(5, 123_456_999).unwrap();
        assert_eq!(micros(time).timestamp_subsec_nanos(), 123_456_000);
        assert_eq!(from_micros(time.timestamp_micros()), micros(time));
        assert_eq!(from_micros(i64::MAX), DateTime::<Utc>::MAX_UTC);
    }
}
