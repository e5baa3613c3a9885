//! Which containers on a wolf belong to nobody.

use wolfpack_types::{ExecutionId, SandboxState, WolfId};

/// What a row says about the boot that it claims; read after the container was
/// seen. A boot's row is committed before its container can come to be, so a
/// fresh container is never without its claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The row's state.
    pub state: SandboxState,
    /// Where its boot is.
    pub wolf: WolfId,
    /// Its boot.
    pub execution: ExecutionId,
    /// Whether the row still accounts for a container of that boot.
    pub holds_container: bool,
}

/// Whether a container of boot `execution` on `wolf` belongs to no row and may
/// be removed. What a row still accounts for is left to that row.
#[must_use]
pub fn is_orphan(wolf: &WolfId, execution: &str, claim: Option<&Claim>) -> bool {
    !claim.is_some_and(|claim| {
        claim.holds_container
            && claim.state != SandboxState::Deleted
            && &claim.wolf == wolf
            && claim.execution.as_str() == execution
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_boot_a_row_accounts_for_is_kept() {
        let (wolf, execution) = (WolfId::new(), ExecutionId::new());
        let claim = Claim {
            state: SandboxState::Running,
            wolf: wolf.clone(),
            execution: execution.clone(),
            holds_container: true,
        };
        assert!(!is_orphan(&wolf, execution.as_str(), Some(&claim)));
        assert!(is_orphan(&wolf, execution.as_str(), None));
        assert!(is_orphan(&wolf, ExecutionId::new().as_str(), Some(&claim)));
        assert!(is_orphan(&WolfId::new(), execution.as_str(), Some(&claim)));
        let given_up = Claim { holds_container: false, ..claim.clone() };
        assert!(is_orphan(&wolf, execution.as_str(), Some(&given_up)));
        let deleted = Claim { state: SandboxState::Deleted, ..claim };
        assert!(is_orphan(&wolf, execution.as_str(), Some(&deleted)));
    }
}
