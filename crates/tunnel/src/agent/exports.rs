//! What an agent offers; nothing else is ever dialed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use wolfpack_types::{Fault, Reason, Target};

use super::listener::TunnelIo;
use super::target::TargetDialer;

/// How one target is served.
#[derive(Clone)]
pub(super) enum Export {
    /// By the program itself.
    Listener(mpsc::Sender<TunnelIo>),
    /// By a socket that is dialed.
    Dialed(Arc<dyn TargetDialer>),
}

/// Exact targets and families (`name:*`) with who serves them.
#[derive(Default)]
pub(super) struct Exports {
    by_offer: BTreeMap<String, Export>,
}

impl Exports {
    /// Adds an offer; the last one of the same name counts.
    pub(super) fn add(&mut self, offer: String, export: Export) {
        self.by_offer.insert(offer, export);
    }

    /// The offers for a `Hello`.
    pub(super) fn offers(&self) -> Vec<String> {
        self.by_offer.keys().cloned().collect()
    }

    /// Who serves a target that was asked for.
    pub(super) fn find(&self, asked: &str) -> Result<(Target, Export), Fault> {
        let forbidden = || {
            let words = "the agent does not offer this target; dial one that it lists, or allow it in the agent's configuration";
            Fault::new(Reason::TargetForbidden, words)
        };
        let target = Target::parse(asked).map_err(|_| forbidden())?;
        let export = self.by_offer.get(asked).cloned().or_else(|| {
            target.argument()?;
            self.by_offer.get(&format!("{}:*", target.service())).cloned()
        });
        Ok((target, export.ok_or_else(forbidden)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_offered_is_found() {
        let mut exports = Exports::default();
        let empty = exports.find("runtime").map(|_| ()).unwrap_err();
        assert_eq!(empty.reason, Reason::TargetForbidden);
        let (sender, _receiver) = mpsc::channel(1);
        exports.add("runtime".into(), Export::Listener(sender.clone()));
        exports.add("sandbox-agent:*".into(), Export::Listener(sender));
        assert!(exports.find("runtime").is_ok());
        assert!(exports.find("sandbox-agent:abc").is_ok());
        for other in [
            "runtime2",
            "runtime:x",
            "sandbox-agent",
            "sandbox-agent:*",
            "",
            "sandbox-agent:a/b",
            "tcp:22",
        ] {
            assert!(exports.find(other).is_err(), "{other}");
        }
        assert_eq!(exports.offers(), ["runtime", "sandbox-agent:*"]);
    }
}
