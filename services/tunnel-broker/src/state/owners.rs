//! Whose each endpoint is, as far as this broker has heard.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::RwLock;
use wolfpack_types::{ProjectId, SandboxId, WolfId};

use crate::domain::access::Owner;

/// How long the project of a sandbox is remembered after its tunnel went.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// The most sandboxes that are remembered; those that were not asked for the
/// longest make room.
const MOST: u64 = 65_536;

/// Owners of wolves, by the registry's word, and of sandboxes that were
/// attached, by their tokens'. A sandbox that has been away for longer, or since
/// before this broker began, is nobody's until it attaches.
#[derive(Debug)]
pub(super) struct Owners {
    wolves: RwLock<HashMap<WolfId, Owner>>,
    sandboxes: Cache<SandboxId, ProjectId>,
}

impl Default for Owners {
    fn default() -> Self {
        Self::remembering(REMEMBERED, MOST)
    }
}

impl Owners {
    fn remembering(time: Duration, most: u64) -> Self {
        Self {
            wolves: RwLock::default(),
            sandboxes: Cache::builder().time_to_live(time).max_capacity(most).build(),
        }
    }

    pub(super) fn of_wolf(&self, wolf: &WolfId) -> Owner {
        self.wolves.read().get(wolf).cloned().unwrap_or(Owner::Unknown)
    }

    /// Learns whose a wolf is; the owner when that is news.
    pub(super) fn set_wolf(&self, wolf: &WolfId, owner: Option<Owner>) -> Option<Owner> {
        let known = match &owner {
            Some(owner) => self.wolves.write().insert(wolf.clone(), owner.clone()),
            None => self.wolves.write().remove(wolf),
        };
        owner.filter(|owner| known.as_ref() != Some(owner))
    }

    /// Forgets wolves that are not among `all`, and gives them.
    pub(super) fn keep_wolves(&self, all: &HashSet<WolfId>) -> Vec<WolfId> {
        self.wolves
            .write()
            .extract_if(|wolf, _| !all.contains(wolf))
            .map(|(wolf, _)| wolf)
            .collect()
    }

    /// Whose a sandbox was when it was here last.
    pub(super) fn of_sandbox(&self, sandbox: &SandboxId) -> Owner {
        self.sandboxes.get(sandbox).map_or(Owner::Unknown, Owner::Project)
    }

    /// A sandbox goes away.
    pub(super) fn remember(&self, sandbox: &SandboxId, project: &ProjectId) {
        self.sandboxes.insert(sandbox.clone(), project.clone());
    }

    /// A sandbox is gone for good.
    pub(super) fn forget(&self, sandbox: &SandboxId) {
        self.sandboxes.invalidate(sandbox);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_are_remembered_for_a_while_and_not_without_bound() {
        let (sandbox, project) = (SandboxId::new(), ProjectId::new());
        let owners = Owners::default();
        assert_eq!(owners.of_sandbox(&sandbox), Owner::Unknown);
        owners.remember(&sandbox, &project);
        assert_eq!(owners.of_sandbox(&sandbox), Owner::Project(project.clone()));
        owners.forget(&sandbox);
        assert_eq!(owners.of_sandbox(&sandbox), Owner::Unknown);

        let owners = Owners::remembering(Duration::ZERO, MOST);
        owners.remember(&sandbox, &project);
        assert_eq!(owners.of_sandbox(&sandbox), Owner::Unknown, "its time is over");

        let owners = Owners::remembering(REMEMBERED, 8);
        for _ in 0..1000 {
            owners.remember(&SandboxId::new(), &project);
        }
        owners.sandboxes.run_pending_tasks();
        assert!(owners.sandboxes.entry_count() <= 8);
    }
}
