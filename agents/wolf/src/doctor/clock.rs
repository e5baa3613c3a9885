//! The clock, beside the gateway's.

use std::time::{Duration, SystemTime};

use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http::{Method, Request, header};
use wolfpack_rpc::{ClientTls, RpcChannel};

use super::check::Found;
use super::place::{Look, Place};

/// How long the gateway may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The `Date` of an answer is a whole second, and took time to come.
const UNSURE: Duration = Duration::from_secs(2);
/// From which difference on certificates and tokens are at risk, and from
/// which on they fail.
const SKEWED: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));
/// Open to anyone, and changes nothing.
const ASKED: &str = "/grpc.health.v1.Health/Check";

pub(super) async fn gateway(look: &Look) -> Found {
    let place = &look.place;
    if place.gateway.is_empty() {
        return Found::skip("no gateway is configured to compare the clock with");
    }
    let begun = SystemTime::now();
    match tokio::time::timeout(DEADLINE, date(place)).await {
        Ok(Ok(theirs)) => judged(begun, theirs),
        Ok(Err(Trouble::NotJoined)) => {
            Found::skip("this wolf has not joined: it does not know yet which gateway to trust")
        }
        Ok(Err(Trouble::Unreachable(why))) => Found::fail(
            format!("the gateway {} does not answer: {why}", place.gateway),
            "see that it runs and is reachable from here; a clock that is far off, or another \
             certificate authority, looks like this too",
        ),
        Err(_) => Found::fail(
            format!("the gateway {} does not answer within {DEADLINE:?}", place.gateway),
            "see that it runs, and that no firewall drops what goes there",
        ),
    }
}

enum Trouble {
    NotJoined,
    Unreachable(String),
}

async fn date(place: &Place) -> Result<SystemTime, Trouble> {
    let unreachable = |error: &dyn std::fmt::Display| Trouble::Unreachable(error.to_string());
    let tls = match &place.trust_roots {
        Some(file) => {
            let pem = tokio::fs::read(file).await.map_err(|_| Trouble::NotJoined)?;
            Some(ClientTls::roots_only(&pem).map_err(|error| unreachable(&error))?)
        }
        None => None,
    };
    if tls.is_none() && place.gateway.starts_with("https://") {
        return Err(Trouble::NotJoined);
    }
    let mut channel = RpcChannel::to_gateway(&place.gateway, tls.as_ref(), None)
        .map_err(|error| unreachable(&error))?;
    // An empty message: five octets of a gRPC frame.
    let request = Request::builder()
        .method(Method::POST)
        .uri(ASKED)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Body::new(http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]))))
        .map_err(|error| unreachable(&error))?;
    std::future::poll_fn(|cx| GrpcService::<Body>::poll_ready(&mut channel, cx))
        .await
        .map_err(|error| unreachable(&error))?;
    let answer = GrpcService::<Body>::call(&mut channel, request)
        .await
        .map_err(|error| unreachable(&error))?;
    let said = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    let said = said.ok_or_else(|| Trouble::Unreachable("its answer has no Date".to_owned()))?;
    chrono::DateTime::parse_from_rfc2822(said)
        .map(SystemTime::from)
        .map_err(|error| Trouble::Unreachable(format!("its Date {said:?}: {error}")))
}

fn judged(ours: SystemTime, theirs: SystemTime) -> Found {
    let (off, word) = match ours.duration_since(theirs) {
        Ok(off) => (off, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let sure = off.saturating_sub(UNSURE);
    let words = format!("this clock is {off:.0?} {word} the gateway's");
    let found = if sure >= SKEWED.1 {
        Found::fail(words, "certificates and tokens will be refused: run an NTP client")
    } else if sure >= SKEWED.0 {
        Found::warn(words, "run an NTP client")
    } else {
        Found::pass("this clock and the gateway's agree")
    };
    found.fact("off_seconds", off.as_secs())
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn clocks_that_are_off_are_told_either_way() {
        let now = SystemTime::now();
        let outcome = |ours, theirs| judged(ours, theirs).outcome;
        for (seconds, expected) in
            [(0, Outcome::Pass), (4, Outcome::Pass), (10, Outcome::Warn), (120, Outcome::Fail)]
        {
            let other = now + Duration::from_secs(seconds);
            assert_eq!(outcome(now, other), expected, "{seconds}");
            assert_eq!(outcome(other, now), expected, "-{seconds}");
        }
        assert!(judged(now, now + Duration::from_secs(120)).message.contains("behind"));
    }
}
