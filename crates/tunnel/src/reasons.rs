//! Reasons that cross a tunnel as text.

use wolfpack_proto::tunnel::v1::Reset;
use wolfpack_types::{Fault, Reason};

/// In the metadata of `HANDSHAKES_LIMITED`: its hint is the agent's turn, and no
/// plain "later".
pub const TURN: &str = "turn";

/// Reasons an agent may give for a connection; anything else it says is read as
/// a reset, so that an agent cannot make a caller believe, say, that its key is
/// invalid.
fn of_an_agent(name: &str) -> Option<Reason> {
    Reason::parse(name).filter(|reason| {
        matches!(
            reason,
            Reason::TargetForbidden
                | Reason::TargetUnreachable
                | Reason::ConnectionReset
                | Reason::DialTimeout
                | Reason::DialsLimited
                | Reason::TunnelLost
                | Reason::Cancelled
        )
    })
}

/// The fault of a reset frame. Its words are cut to 256 characters.
#[must_use]
pub fn from_reset(reset: &Reset) -> Fault {
    named(&reset.reason, &reset.message)
}

/// The fault of a reason and words that an agent sent.
#[must_use]
pub fn named(reason: &str, message: &str) -> Fault {
    let words: String = message.chars().filter(|c| !c.is_control()).take(256).collect();
    let words = if words.is_empty() {
        "the other side broke the connection; dial again".to_owned()
    } else {
        words
    };
    Fault::new(of_an_agent(reason).unwrap_or(Reason::ConnectionReset), words)
}

/// The reset frame of a fault.
#[must_use]
pub fn to_reset(fault: &Fault) -> Reset {
    Reset { reason: fault.reason.as_str().to_owned(), message: fault.message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_cannot_speak_for_others() {
        assert_eq!(named("TARGET_UNREACHABLE", "x").reason, Reason::TargetUnreachable);
        for other in ["API_KEY_INVALID", "INTERNAL", "nonsense", ""] {
            assert_eq!(named(other, "x").reason, Reason::ConnectionReset, "{other}");
        }
        assert_eq!(named("", &"é\n".repeat(500)).message, "é".repeat(256));
    }
}
