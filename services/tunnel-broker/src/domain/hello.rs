//! What an agent says of itself, checked.

use std::time::SystemTime;

use wolfpack_proto::tunnel::v1::Hello;
use wolfpack_tunnel::protocol::AHEAD_MICROS;
use wolfpack_types::{Endpoint, Fault, Principal, Reason, Target};

/// The most offers of an agent.
const MAX_OFFERS: usize = 256;

/// A `Hello` that may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// The endpoint; it is the caller's own.
    pub endpoint: Endpoint,
    /// The process, 1 to 64 characters.
    pub instance: String,
    /// When it started by its own clock, in microseconds since 1970.
    pub started_micros: Option<i64>,
    /// Its version, cut to 64 characters.
    pub version: String,
    /// What it offers.
    pub targets: Vec<String>,
    /// The most connections it takes; at least one.
    pub max_connections: u32,
}

/// Checks a `Hello` against who sent it.
///
/// # Errors
/// `ENDPOINT_FORBIDDEN` for an endpoint that is not the caller's own,
/// `REQUEST_INVALID` for fields that break a rule.
pub fn check(caller: &Principal, hello: Hello) -> Result<Introduction, Fault> {
    let forbidden = || {
        Fault::new(
            Reason::EndpointForbidden,
            "an agent may attach only as itself; check its certificate or token",
        )
    };
    let endpoint = Endpoint::parse(&hello.endpoint).map_err(|_| forbidden())?;
    let own = match (caller, &endpoint) {
        (Principal::Wolf(own), Endpoint::Wolf(claimed)) => own == claimed,
        (Principal::Sandbox { sandbox, .. }, Endpoint::Sandbox(claimed)) => sandbox == claimed,
        _ => false,
    };
    if !own {
        return Err(forbidden());
    }
    let mut invalid = Fault::new(
        Reason::RequestInvalid,
        "the hello breaks a rule; fix the fields that are named",
    );
    if hello.instance_id.is_empty() || hello.instance_id.len() > 64 {
        invalid = invalid.violates("hello.instance_id", "must be 1 to 64 characters");
    }
    if hello.targets.len() > MAX_OFFERS {
        invalid = invalid.violates("hello.targets", "must be at most 256");
    } else if let Some(bad) = hello.targets.iter().position(|offer| !is_offer(offer)) {
        invalid = invalid.violates(
            format!("hello.targets[{bad}]"),
            "must be a target or a family such as name:*",
        );
    }
    if !invalid.violations.is_empty() {
        return Err(invalid);
    }
    Ok(Introduction {
        endpoint,
        instance: hello.instance_id,
        started_micros: hello.start_time.and_then(micros).filter(|at| credible(*at)),
        version: hello.agent_version.chars().take(64).collect(),
        targets: hello.targets,
        max_connections: hello.max_connections.max(1),
    })
}

/// Whether a process can have started then: not in the future, by more than
/// clocks differ.
fn credible(started_micros: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    started_micros <= now.saturating_add(AHEAD_MICROS)
}

/// A time in microseconds since 1970; none for one that is no time.
fn micros(time: prost_types::Timestamp) -> Option<i64> {
    let since = SystemTime::try_from(time).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok()
}

fn is_offer(offer: &str) -> bool {
    match offer.strip_suffix(":*") {
        Some(family) => !family.contains(':') && Target::parse(family).is_ok(),
        None => Target::parse(offer).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wolfpack_types::{ExecutionId, ProjectId, SandboxId, WolfId};

    fn hello(endpoint: &str) -> Hello {
        Hello {
            endpoint: endpoint.to_owned(),
            instance_id: "one".into(),
            targets: vec!["runtime".into(), "sandbox-agent:*".into()],
            ..Hello::default()
        }
    }

    #[test]
    fn an_agent_attaches_only_as_itself() {
        let (a, b) = (WolfId::new(), WolfId::new());
        let wolf = Principal::Wolf(a.clone());
        let sandbox = Principal::Sandbox {
            sandbox: SandboxId::parse(a.as_str()).unwrap(),
            project: ProjectId::new(),
            execution: ExecutionId::new(),
        };
        assert!(check(&wolf, hello(&a.name())).is_ok());
        assert!(check(&sandbox, hello(&format!("sandboxes/{a}"))).is_ok());
        for (caller, endpoint) in [
            (&wolf, b.name()),
            (&wolf, format!("sandboxes/{a}")),
            (&sandbox, a.name()),
            (&Principal::Anonymous, a.name()),
            (&Principal::Service("registry".into()), a.name()),
            (&wolf, String::new()),
        ] {
            assert_eq!(
                check(caller, hello(&endpoint)).unwrap_err().reason,
                Reason::EndpointForbidden,
                "{endpoint}"
            );
        }
    }

    #[test]
    fn every_broken_rule_is_named() {
        let id = WolfId::new();
        let mut bad = hello(&id.name());
        bad.instance_id = String::new();
        bad.targets.push("a b".into());
        let fault = check(&Principal::Wolf(id), bad).unwrap_err();
        let fields: Vec<&str> =
            fault.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["hello.instance_id", "hello.targets[2]"]);
    }

    #[test]
    fn a_start_is_read_in_microseconds_and_an_odd_one_is_none() {
        let time = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        assert_eq!(micros(time(1_700_000_000, 1_500)), Some(1_700_000_000_000_001));
        for odd in [time(-1, 0), time(i64::MIN, -1), time(i64::MAX, 0)] {
            assert_eq!(micros(odd), None, "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn odd_offers_never_pass(offer in ".{0,40}") {
            if is_offer(&offer) {
                prop_assert!(offer.bytes().all(|b| b.is_ascii_alphanumeric() || b":*._-".contains(&b)));
            }
        }
    }
}
