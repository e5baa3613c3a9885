//! Names in certificates: `spiffe://wolfpack/svc/{name}` and
//! `spiffe://wolfpack/wolf/{id}`, as a URI in the subject alternative names.

use crate::id::WolfId;
use crate::principal::Principal;

/// The trust domain of every certificate our CA signs.
pub const TRUST_DOMAIN: &str = "wolfpack";

/// The URI of a service.
#[must_use]
pub fn service(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/svc/{name}")
}

/// The URI of a wolf.
#[must_use]
pub fn wolf(id: &WolfId) -> String {
    format!("spiffe://{TRUST_DOMAIN}/wolf/{id}")
}

/// The principal a URI names; `None` for any other URI.
#[must_use]
pub fn parse(uri: &str) -> Option<Principal> {
    let path = uri.strip_prefix("spiffe://")?.strip_prefix(TRUST_DOMAIN)?;
    if let Some(id) = path.strip_prefix("/wolf/") {
        return WolfId::parse(id).ok().map(Principal::Wolf);
    }
    let name = path.strip_prefix("/svc/")?;
    let valid = (1..=64).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    valid.then(|| Principal::Service(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_uris_are_principals() {
        let id = WolfId::new();
        assert_eq!(parse(&wolf(&id)), Some(Principal::Wolf(id)));
        assert_eq!(parse(&service("scheduler")), Some(Principal::Service("scheduler".into())));
        for bad in [
            "spiffe://wolfpack2/svc/scheduler",
            "spiffe://wolfpack/svc/a/b",
            "spiffe://wolfpack/svc/",
            "https://wolfpack/svc/scheduler",
            "spiffe://wolfpack/wolf/../svc/x",
            "spiffe://wolfpack.evil/svc/scheduler",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
