//! Wolves whose sandboxes are to be looked at.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;
use wolfpack_types::WolfId;

/// Wolves that are looked at together.
const BATCH: usize = 64;

/// Each wolf once, however often it changes before it is its turn; bounded by
/// the number of wolves.
#[derive(Default)]
pub(crate) struct ChangedWolves {
    waiting: Mutex<BTreeSet<WolfId>>,
    news: Notify,
}

impl ChangedWolves {
    /// A wolf came, went or listed its containers.
    pub(super) fn tell(&self, wolf: WolfId) {
        self.waiting.lock().insert(wolf);
        self.news.notify_one();
    }

    /// Waits for wolves that changed, and takes some; never none. One that
    /// changes from now on is told again. For one taker at a time.
    pub(super) async fn next(&self) -> Vec<WolfId> {
        loop {
            let taken: Vec<WolfId> = {
                let mut waiting = self.waiting.lock();
                let many = waiting.len().min(BATCH);
                (0..many).filter_map(|_| waiting.pop_first()).collect()
            };
            if !taken.is_empty() {
                return taken;
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn a_wolf_that_changes_often_is_looked_at_once() {
        let (changed, one, other) = (ChangedWolves::default(), WolfId::new(), WolfId::new());
        for _ in 0..1000 {
            changed.tell(one.clone());
            changed.tell(other.clone());
        }
        let mut taken = changed.next().now_or_never().unwrap();
        taken.sort();
        let mut told = vec![one.clone(), other];
        told.sort();
        assert_eq!(taken, told);
        assert!(changed.next().now_or_never().is_none());
        changed.tell(one.clone());
        assert_eq!(changed.next().now_or_never(), Some(vec![one]), "what comes later counts");
    }

    #[test]
    fn many_are_taken_in_parts_and_none_is_lost() {
        let changed = ChangedWolves::default();
        let told: BTreeSet<WolfId> = (0..BATCH * 2 + 1).map(|_| WolfId::new()).collect();
        told.iter().cloned().for_each(|wolf| changed.tell(wolf));
        let mut taken = BTreeSet::new();
        while let Some(some) = changed.next().now_or_never() {
            assert!(!some.is_empty() && some.len() <= BATCH);
            taken.extend(some);
        }
        assert_eq!(taken, told);
    }
}
