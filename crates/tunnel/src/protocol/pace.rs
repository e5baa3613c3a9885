//! A rate in bytes that many connections share.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of a second's bytes so much may pass at once after a rest: ticks of a timer
/// then cost no throughput.
const BURST: Duration = Duration::from_millis(100);

const SECOND: u128 = 1_000_000_000;

/// Says how long whoever passed bytes must wait before passing more, so that
/// all together keep to a rate. Bytes are charged after they passed: nothing is
/// ever held back in a buffer, and a frame that is larger than the burst passes
/// too. One atomic word; no lock.
///
/// Over any time `t` at most `rate * (t + 100 ms)` bytes pass, and one frame
/// more of each connection.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: NonZeroU64,
    /// When all that passed will be paid for, in nanoseconds of the caller's
    /// clock.
    paid: AtomicU64,
}

impl Pace {
    /// A pace of so many bytes a second.
    #[must_use]
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, paid: AtomicU64::new(0) }
    }

    /// Takes note of `bytes` that passed `now`, a time since an instant that is
    /// the same for every call. How long to wait before more may pass; `None`
    /// for not at all.
    pub fn charge(&self, bytes: u64, now: Duration) -> Option<Duration> {
        let cost = (u128::from(bytes) * SECOND).div_ceil(u128::from(self.bytes_per_second.get()));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let now = nanos(now);
        let pay = |paid: u64| paid.max(now).saturating_add(cost);
        let paid = self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| Some(pay(paid)))
            .map_or(now, pay);
        let ahead = paid - now;
        let wait = ahead.saturating_sub(nanos(BURST));
        (wait > 0).then(|| Duration::from_nanos(wait))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(rate: u64) -> Pace {
        Pace::new(NonZeroU64::new(rate).unwrap())
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let pace = pace(1000);
        assert_eq!(pace.charge(100, Duration::ZERO), None, "100 ms at once");
        assert_eq!(pace.charge(50, Duration::ZERO), Some(Duration::from_millis(50)));
        // After a rest all of the burst is there again, and no more than that.
        assert_eq!(pace.charge(100, Duration::from_secs(60)), None);
        assert_eq!(pace.charge(1, Duration::from_secs(60)), Some(Duration::from_millis(1)));
        // What is larger than the burst passes, and is waited for.
        let huge = pace.charge(5000, Duration::from_secs(120)).unwrap();
        assert_eq!(huge, Duration::from_millis(4900));
    }

    #[test]
    fn no_count_of_bytes_and_no_rate_overflows() {
        let slow = pace(1);
        assert!(slow.charge(u64::MAX, Duration::MAX).is_none_or(|wait| wait > Duration::ZERO));
        assert!(slow.charge(u64::MAX, Duration::from_secs(1)).is_some());
        let fast = pace(u64::MAX);
        assert_eq!(fast.charge(u64::MAX / 100, Duration::ZERO), None);
    }

    /// Some connections that all want to pass frames without a pause; gives the
    /// bytes that passed until each time that one did.
    fn run(rate: u64, frames: &[Vec<u64>], until: Duration) -> Vec<(Duration, u64)> {
        let pace = pace(rate);
        let mut next = vec![(Duration::ZERO, 0_usize); frames.len()];
        let (mut passed, mut total) = (Vec::new(), 0);
        loop {
            let (at, _) = next.iter().enumerate().min_by_key(|(_, (when, _))| *when).unwrap();
            let (now, frame) = next[at];
            if now > until {
                return passed;
            }
            let bytes = frames[at][frame % frames[at].len()];
            total += bytes;
            passed.push((now, total));
            let wait = pace.charge(bytes, now).unwrap_or(Duration::from_nanos(1));
            next[at] = (now + wait, frame + 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// However many connections share it, and whatever their frames: never
        /// more than the rate, its burst and a frame of each, and never much
        /// less while they all want more.
        #[test]
        fn together_they_keep_to_the_rate(
            rate in 10_000..10_000_000_u64,
            frames in prop::collection::vec(prop::collection::vec(1_000..40_000_u64, 1..4), 1..6),
        ) {
            let until = Duration::from_secs(4);
            let passed = run(rate, &frames, until);
            let most: u64 = frames.iter().map(|own| own.iter().max().unwrap()).sum();
            let upto = |time: Duration| (time + BURST).as_secs_f64() * rate as f64 + most as f64;
            for (at, total) in &passed {
                prop_assert!(*total as f64 <= upto(*at) + 1.0, "{total} by {at:?}");
            }
            let total = passed.last().unwrap().1 as f64;
            prop_assert!(total >= until.as_secs_f64() * rate as f64 * 0.99 - most as f64);
        }
    }
}
