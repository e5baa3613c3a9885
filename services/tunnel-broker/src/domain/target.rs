//! Targets as callers write them, and what to do about one that is not offered.

use wolfpack_types::{Endpoint, Fault, Reason, Target};

/// Reads a target.
///
/// # Errors
/// `REQUEST_INVALID` for what no agent can ever offer: other characters, or `tcp`
/// without a port.
pub fn read(text: &str) -> Result<Target, Fault> {
    let target = Target::parse(text).ok();
    let target = target.filter(|one| one.service() != Target::TCP || one.tcp_port().is_some());
    target.ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Fault::new(
            Reason::RequestInvalid,
            format!(
                "{shown:?} is not a target; write tcp: and a port from 1 to 65535, such as tcp:8080, or a name that the agent offers, such as {} of a wolf",
                Target::WOLF_API
            ),
        )
        .violates("target", "must be a name, or tcp: and a port from 1 to 65535")
    })
}

/// The agent of an endpoint does not offer a target: says where it is allowed.
#[must_use]
pub fn not_offered(endpoint: &Endpoint, target: &Target) -> Fault {
    let words = match (endpoint, target.service()) {
        (Endpoint::Wolf(_), Target::TCP) => format!(
            "the agent of this wolf does not offer {target}; add the port to targets.tcp in the wolf's configuration and start its agent again"
        ),
        (Endpoint::Wolf(_), Target::WOLF_API | Target::MOONLIGHT_WEB) => format!(
            "the agent of this wolf does not offer {target}; set targets.{} in the wolf's configuration and start its agent again",
            target.service().replace('-', "_")
        ),
        (Endpoint::Sandbox(_), Target::TCP) => format!(
            "the agent of this sandbox does not offer {target}: the sandbox shares its wolf's engine, or targets.sandbox_tcp in the wolf's configuration allows no port; create a sandbox that does not share the engine, or allow the port there, which counts from the sandbox's next boot"
        ),
        _ => format!(
            "the agent does not offer {target}; dial one of its targets, which `wolfpack tunnel get` shows, or update the agent"
        ),
    };
    Fault::new(Reason::TargetForbidden, words).about(endpoint.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_types::{SandboxId, WolfId};

    #[test]
    fn what_no_agent_can_offer_is_no_target() {
        for good in ["desktop", "wolf-api", "tcp:1", "tcp:65535", "sandbox-agent:a", "tcpx"] {
            assert_eq!(read(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(1000);
        for bad in ["", "tcp", "tcp:", "tcp:0", "tcp:x", "tcp:080", "tcp:65536", "TCP:22", &long] {
            let fault = read(bad).unwrap_err();
            assert_eq!(fault.reason, Reason::RequestInvalid, "{bad}");
            assert!(fault.message.contains("such as tcp:8080"), "{fault}");
            assert!(fault.message.len() < 400, "{fault}");
            assert_eq!(fault.violations[0].field, "target");
        }
    }

    #[test]
    fn what_is_not_offered_is_allowed_where_the_words_say() {
        let wolf = Endpoint::Wolf(WolfId::new());
        let sandbox = Endpoint::Sandbox(SandboxId::new());
        for (endpoint, target, setting) in [
            (&wolf, "tcp:22", "targets.tcp "),
            (&wolf, "wolf-api", "targets.wolf_api "),
            (&wolf, "moonlight-web", "targets.moonlight_web "),
            (&wolf, "runtime", "wolfpack tunnel get"),
            (&sandbox, "tcp:22", "targets.sandbox_tcp "),
            (&sandbox, "desktop", "wolfpack tunnel get"),
        ] {
            let fault = not_offered(endpoint, &Target::parse(target).unwrap());
            assert_eq!(fault.reason, Reason::TargetForbidden);
            assert!(fault.message.contains(setting), "{target}: {fault}");
            assert!(fault.message.contains(target), "{fault}");
        }
    }
}
