//! So many calls a second for each principal. Where nobody is known: for each
//! bearer that is passed on from an address, and so many more for the address,
//! as many may share it.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use http::{Request, header};
use tonic::body::Body;
use wolfpack_types::Principal;

use crate::request::Caller;
use crate::server::address_rate::{AddressRate, too_many};
use crate::server::body::refuse;
use crate::server::profile;
use crate::server::shared::{Peer, Shared, route};
use crate::server::shares::network;
use crate::server::stack::{Answer, Handle, Next};

/// Buckets that the bearers of one address fall into: enough to keep those of
/// a machine full of sandboxes apart, few enough that made-up ones fill no
/// memory.
const BEARERS: u64 = 4096;

/// How many times what one caller may ask for an address may.
const PER_ADDRESS: u32 = 8;

/// Token buckets by caller.
pub(crate) struct Limiter {
    buckets: DefaultKeyedRateLimiter<Key>,
    addresses: AddressRate,
    // Its keys are this process's secret: which bearers share a bucket cannot
    // be worked out, and a bucket tells nothing of its bearers.
    hasher: RandomState,
    clock: DefaultClock,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Principal(String),
    /// Nobody who is known here: the address, if there is one, and the bearer's
    /// bucket in it, if it sent one.
    Stranger(Option<IpAddr>, Option<u64>),
}

impl Limiter {
    pub(crate) fn new(limit: profile::RateLimit) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(limit.per_second))
            .allow_burst(at_least_one(limit.burst));
        Self {
            buckets: DefaultKeyedRateLimiter::keyed(quota),
            addresses: AddressRate::new(profile::RateLimit {
                per_second: limit.per_second.saturating_mul(PER_ADDRESS),
                burst: limit.burst.saturating_mul(PER_ADDRESS),
            }),
            hasher: RandomState::new(),
            clock: DefaultClock::default(),
        }
    }

    /// Forgets full buckets, so that memory follows the callers of the moment.
    pub(crate) fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
        self.addresses.sweep();
    }

    /// Takes one call from a caller's bucket, then from its address's: who has
    /// used up its own takes nothing from its neighbours. The error is how long
    /// to wait.
    fn take(&self, key: &Key) -> Result<(), Duration> {
        let now = self.clock.now();
        self.buckets.check_key(key).map_err(|not_until| not_until.wait_time_from(now))?;
        let Key::Stranger(address, _) = key else { return Ok(()) };
        self.addresses.take(*address)
    }

    fn key(&self, request: &Request<Body>) -> Option<Key> {
        match &request.extensions().get::<Caller>()?.principal {
            Principal::Service(_) => None,
            Principal::Anonymous => {
                let address = request.extensions().get::<Arc<Peer>>().and_then(|peer| peer.address);
                let bearer = request.headers().get(header::AUTHORIZATION);
                let bearer = bearer.map(|value| self.hasher.hash_one(value.as_bytes()) % BEARERS);
                Some(Key::Stranger(address.map(|address| network(address.ip())), bearer))
            }
            known => Some(Key::Principal(known.to_string())),
        }
    }
}

pub(crate) struct RateLimit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) next: Next,
}

impl Handle for RateLimit {
    fn handle(&self, request: Request<Body>) -> Answer {
        let route = route(&request);
        let Some(limiter) = &self.shared.limiter else { return self.next.handle(request) };
        let Some(key) = limiter.key(&request) else { return self.next.handle(request) };
        match limiter.take(&key) {
            Ok(()) => self.next.handle(request),
            Err(wait) => Box::pin(async move { refuse(&route, too_many(wait)) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_a_principals_own_and_services_have_none() {
        let limiter = Limiter::new(profile::RateLimit { per_second: 1, burst: 2 });
        let (a, b) = (Key::Principal("users/a".into()), Key::Principal("users/b".into()));
        assert!(limiter.buckets.check_key(&a).is_ok());
        assert!(limiter.buckets.check_key(&a).is_ok());
        assert!(limiter.buckets.check_key(&a).is_err());
        assert!(limiter.buckets.check_key(&b).is_ok());

        let request = |principal| {
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(Caller {
                principal,
                request_id: String::new(),
                deadline: None,
            });
            request
        };
        assert_eq!(limiter.key(&request(Principal::Service("x".into()))), None);
        let nobody = limiter.key(&request(Principal::Anonymous));
        assert_eq!(nobody, Some(Key::Stranger(None, None)));
    }

    #[test]
    fn a_noisy_bearer_leaves_room_for_others_of_its_address_and_made_up_ones_do_not_help() {
        let limiter = Limiter::new(profile::RateLimit { per_second: 1, burst: 10 });
        let from = |bearer: &str| {
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(Caller {
                principal: Principal::Anonymous,
                request_id: String::new(),
                deadline: None,
            });
            let address = "10.0.0.1:7".parse().unwrap();
            request.extensions_mut().insert(Arc::new(Peer::unknown(Some(address))));
            request.headers_mut().insert("authorization", bearer.parse().unwrap());
            limiter.key(&request).unwrap()
        };
        let noisy = from("Bearer noisy");
        // A quiet one that does not share the noisy one's bucket by chance.
        let quiet = (0..).map(|n| from(&format!("Bearer {n}"))).find(|key| *key != noisy).unwrap();
        let passed = (0..1000).filter(|_| limiter.take(&noisy).is_ok()).count();
        assert!((10..=11).contains(&passed), "{passed}");
        assert!(limiter.take(&quiet).is_ok(), "a neighbour is not refused");

        let passed = (0..10_000)
            .filter(|n| limiter.take(&from(&format!("Bearer made-up-{n}"))).is_ok())
            .count();
        assert!(passed <= 80, "an address has eight times as much, not {passed}");
        assert!(limiter.buckets.len() as u64 <= BEARERS + 2, "{}", limiter.buckets.len());
    }
}
