//! So many calls a second for each principal; for each address where nobody
//! is known.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use http::Request;
use tonic::body::Body;
use wolfpack_types::{Principal, Reason};

use crate::error::busy;
use crate::request::Caller;
use crate::server::body::refuse;
use crate::server::profile;
use crate::server::shared::{Peer, Shared, route};
use crate::server::stack::{Answer, Handle, Next};

/// Token buckets by caller.
pub(crate) struct Limiter {
    buckets: DefaultKeyedRateLimiter<Key>,
    clock: DefaultClock,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Principal(String),
    Address(IpAddr),
    Nobody,
}

impl Limiter {
    pub(crate) fn new(limit: profile::RateLimit) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(limit.per_second))
            .allow_burst(at_least_one(limit.burst));
        Self { buckets: DefaultKeyedRateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Forgets full buckets, so that memory follows the callers of the moment.
    pub(crate) fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

pub(crate) struct RateLimit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) next: Next,
}

impl Handle for RateLimit {
    fn handle(&self, request: Request<Body>) -> Answer {
        let route = route(&request);
        let (Some(limiter), Some(key)) = (&self.shared.limiter, key(&request)) else {
            return self.next.handle(request);
        };
        match limiter.buckets.check_key(&key) {
            Ok(()) => self.next.handle(request),
            Err(not_until) => {
                let fault = busy(
                    Reason::RateLimited,
                    "too many calls in a short time; slow down",
                    not_until.wait_time_from(limiter.clock.now()),
                );
                Box::pin(async move { refuse(&route, fault) })
            }
        }
    }
}

fn key(request: &Request<Body>) -> Option<Key> {
    match &request.extensions().get::<Caller>()?.principal {
        Principal::Service(_) => None,
        Principal::Anonymous => {
            let address = request.extensions().get::<Arc<Peer>>().and_then(|peer| peer.address);
            Some(address.map_or(Key::Nobody, |address| Key::Address(network(address.ip()))))
        }
        known => Some(Key::Principal(known.to_string())),
    }
}

/// An IPv6 host has a whole /64 of addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
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
        assert_eq!(key(&request(Principal::Service("x".into()))), None);
        assert_eq!(key(&request(Principal::Anonymous)), Some(Key::Nobody));
    }

    #[test]
    fn addresses_of_one_host_share_a_bucket() {
        let ip = |text: &str| network(text.parse().unwrap());
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
        assert_ne!(ip("10.0.0.1"), ip("10.0.0.2"));
    }
}
