//! So many calls a second for each address.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use wolfpack_types::{Fault, Reason};

use super::profile::RateLimit;
use super::shares::network;
use crate::error::busy;

/// Token buckets by address, for what nobody has authenticated yet. As large as
/// there were addresses since the last [`AddressRate::sweep`].
pub struct AddressRate {
    buckets: DefaultKeyedRateLimiter<Option<IpAddr>>,
    clock: DefaultClock,
}

impl AddressRate {
    /// Each address has `limit`; a zero in it counts as one.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(limit.per_second))
            .allow_burst(at_least_one(limit.burst));
        Self { buckets: DefaultKeyedRateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Takes one call of an address; those of a /64 of IPv6 share a bucket, and so
    /// do all that have none.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with when to try again.
    pub fn check(&self, address: Option<IpAddr>) -> Result<(), Fault> {
        self.take(address).map_err(too_many)
    }

    /// As [`AddressRate::check`]; the error is how long to wait.
    pub(crate) fn take(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        let now = self.clock.now();
        let taken = self.buckets.check_key(&address.map(network));
        taken.map_err(|not_until| not_until.wait_time_from(now))
    }

    /// Forgets full buckets, so that memory follows the callers of the moment; to
    /// be called now and then.
    pub fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

/// What whoever is too fast is told.
pub(crate) fn too_many(wait: Duration) -> Fault {
    busy(Reason::RateLimited, "too many calls in a short time; slow down", wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_rate_and_its_neighbours_have_theirs() {
        let rate = AddressRate::new(RateLimit { per_second: 1, burst: 3 });
        let ip = |text: &str| Some(text.parse().unwrap());
        let passed = (0..100).filter(|_| rate.check(ip("2001:db8::1")).is_ok()).count();
        assert!((3..=4).contains(&passed), "{passed}");
        let fault = rate.check(ip("2001:db8::ffff")).unwrap_err();
        assert_eq!(fault.reason, Reason::RateLimited, "the same host");
        assert!(fault.retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)), "{fault:?}");
        for other in [ip("2001:db8:0:1::1"), ip("10.0.0.1"), None] {
            assert!(rate.check(other).is_ok(), "{other:?}");
        }
    }

    #[test]
    fn who_is_quiet_is_forgotten() {
        let rate = AddressRate::new(RateLimit { per_second: 1000, burst: 1 });
        for host in 0..100 {
            rate.check(Some(IpAddr::from([10, 0, 0, host]))).unwrap();
        }
        assert!(rate.buckets.len() >= 100, "or this test shows nothing");
        // One call a millisecond comes back.
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !rate.buckets.is_empty() {
            assert!(std::time::Instant::now() < end, "{} are remembered", rate.buckets.len());
            std::thread::yield_now();
            rate.sweep();
        }
    }
}
