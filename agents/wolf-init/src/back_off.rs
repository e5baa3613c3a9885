//! How long a child that ended stays away.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(30);
/// One that ran this long begins anew.
const STEADY: Duration = Duration::from_secs(60);

/// Doubles with every end that comes soon.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    soon: u32,
}

impl BackOff {
    /// The pause after a child that ran for `ran`.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= STEADY {
            self.soon = 0;
        }
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.soon)).min(LONGEST);
        self.soon = self.soon.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew() {
        let mut back_off = BackOff::default();
        let pauses: Vec<u128> =
            (0..4).map(|_| back_off.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800]);
        for _ in 0..60 {
            back_off.after(Duration::from_secs(1));
        }
        assert_eq!(back_off.after(Duration::from_secs(1)), LONGEST);
        assert_eq!(back_off.after(STEADY), FIRST);
    }
}
