//! Who a tunnel leads to, and what is dialed there.

use std::fmt;

use crate::id::{ParseIdError, SandboxId, WolfId};

/// What a tunnel is named by: the agent at its far end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `wolves/{id}`.
    Wolf(WolfId),
    /// `sandboxes/{id}`.
    Sandbox(SandboxId),
}

impl Endpoint {
    /// Reads `wolves/{id}` or `sandboxes/{id}`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(name: &str) -> Result<Self, ParseIdError> {
        if name.starts_with("sandboxes/") {
            SandboxId::from_name(name).map(Self::Sandbox)
        } else {
            WolfId::from_name(name).map(Self::Wolf)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wolf(id) => write!(f, "wolves/{id}"),
            Self::Sandbox(id) => write!(f, "sandboxes/{id}"),
        }
    }
}

/// A service that an agent is willing to dial: `name` or `name:argument`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(String);

impl Target {
    /// A wolf's `WolfRuntimeService`.
    pub const RUNTIME: &'static str = "runtime";
    /// A sandbox's `SandboxAgentService`, over its own tunnel.
    pub const AGENT: &'static str = "agent";
    /// A wolf's games-on-whales Wolf: its HTTP API, as it is.
    pub const WOLF_API: &'static str = "wolf-api";
    /// A wolf's moonlight-web: HTTP and WebSockets, as they are.
    pub const MOONLIGHT_WEB: &'static str = "moonlight-web";
    /// The family `sandbox-agent:{id}`: a sandbox's agent, over its wolf's tunnel.
    pub const SANDBOX_AGENT: &'static str = "sandbox-agent";

    /// The family `tcp:{port}`: ports of the endpoint, as they are.
    pub const TCP: &'static str = "tcp";

    /// Reads a target.
    ///
    /// # Errors
    /// When it is not `name` or `name:argument` of the allowed characters.
    pub fn parse(value: &str) -> Result<Self, ParseIdError> {
        let (name, argument) = match value.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (value, None),
        };
        let name_ok = (1..=64).contains(&name.len())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        let argument_ok = argument.is_none_or(|argument| {
            (1..=128).contains(&argument.len())
                && argument
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        });
        if name_ok && argument_ok {
            Ok(Self(value.to_owned()))
        } else {
            Err(ParseIdError { value: value.chars().take(80).collect(), expected: "a target" })
        }
    }

    /// The target `sandbox-agent:{id}` of the wolf that runs the sandbox.
    #[must_use]
    pub fn sandbox_agent(sandbox: &SandboxId) -> Self {
        Self(format!("{}:{sandbox}", Self::SANDBOX_AGENT))
    }

    /// The target `tcp:{port}`: a port on the loopback of the endpoint.
    #[must_use]
    pub fn tcp(port: u16) -> Self {
        Self(format!("{}:{port}", Self::TCP))
    }

    /// The part before the colon.
    #[must_use]
    pub fn service(&self) -> &str {
        self.0.split_once(':').map_or(self.0.as_str(), |(service, _)| service)
    }

    /// The part after the colon.
    #[must_use]
    pub fn argument(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, argument)| argument)
    }

    /// The whole of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an offer (`runtime`, or `sandbox-agent:*` for a family) covers it.
    #[must_use]
    pub fn is_offered_by(&self, offer: &str) -> bool {
        match offer.strip_suffix(":*") {
            Some(family) => self.service() == family && self.argument().is_some(),
            None => offer == self.0,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_match_exactly_or_by_family() {
        let agent = Target::parse("sandbox-agent:abc").unwrap();
        assert!(agent.is_offered_by("sandbox-agent:*"));
        assert!(!agent.is_offered_by("sandbox-agent"));
        assert!(!agent.is_offered_by("sandbox-agent:ab"));
        assert!(!Target::parse("sandbox-agent").unwrap().is_offered_by("sandbox-agent:*"));
        assert!(Target::parse("runtime").unwrap().is_offered_by("runtime"));
        assert!(!Target::parse("runtime2").unwrap().is_offered_by("runtime"));
    }

    #[test]
    fn odd_targets_are_refused() {
        for bad in ["", ":", "a:", ":b", "a b", "a:b:c", "A", "a:../x"] {
            let parsed = Target::parse(bad);
            assert!(parsed.is_err() || bad == "a:../x" && parsed.is_err(), "{bad:?}");
        }
    }

    #[test]
    fn endpoints_round_trip() {
        for name in ["wolves/a", "sandboxes/b-1"] {
            assert_eq!(Endpoint::parse(name).unwrap().to_string(), name);
        }
        assert!(Endpoint::parse("users/a").is_err());
    }
}
