//! Turns for what waits long: for a wolf, an image or an agent.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wolfpack_types::WolfId;

use crate::config::ReconcileConfig;

/// One wolf may hold this part of all turns: many slow ones are needed to keep
/// the sandboxes of others waiting.
const PARTS: usize = 16;

/// The turns of the three kinds of steps that may take long.
pub(crate) struct LongTurns {
    pub(super) creates: Turns,
    pub(super) agents: Turns,
    pub(super) removals: Turns,
}

impl LongTurns {
    pub(crate) fn new(config: &ReconcileConfig) -> Self {
        Self {
            creates: Turns::new(config.creates),
            agents: Turns::new(config.agents),
            removals: Turns::new(config.removals),
        }
    }
}

/// So many turns over all wolves, and a part of them on each.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    per_wolf: usize,
    /// Of wolves that a turn is held or waited for, and of some before.
    wolves: Mutex<HashMap<WolfId, Weak<Semaphore>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _all: OwnedSemaphorePermit,
    _wolf: OwnedSemaphorePermit,
}

impl Turns {
    fn new(turns: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(turns)),
            per_wolf: turns.div_ceil(PARTS),
            wolves: Mutex::default(),
        }
    }

    /// Waits for a turn on a wolf; who asked first has it first. `None` never
    /// comes: the semaphores are not closed.
    pub(super) async fn take(&self, wolf: &WolfId) -> Option<Turn> {
        // The wolf's first, or those that wait for it would hold the others'.
        let of_wolf = self.of(wolf).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn { _all: of_all, _wolf: of_wolf })
    }

    fn of(&self, wolf: &WolfId) -> Arc<Semaphore> {
        let mut wolves = self.wolves.lock();
        if let Some(known) = wolves.get(wolf).and_then(Weak::upgrade) {
            return known;
        }
        wolves.retain(|_, turns| turns.strong_count() > 0);
        let fresh = Arc::new(Semaphore::new(self.per_wolf));
        wolves.insert(wolf.clone(), Arc::downgrade(&fresh));
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    /// A turn, if one is free.
    fn now(turns: &Turns, wolf: &WolfId) -> Option<Turn> {
        turns.take(wolf).now_or_never().flatten()
    }

    #[test]
    fn one_wolf_takes_no_more_than_its_part_and_leaves_the_rest() {
        let (turns, slow, fine) = (Turns::new(32), WolfId::new(), WolfId::new());
        let mut held = vec![now(&turns, &slow).unwrap(), now(&turns, &slow).unwrap()];
        assert!(now(&turns, &slow).is_none(), "a sixteenth of 32 is 2");
        assert!(now(&turns, &fine).is_some());
        held.pop();
        assert!(now(&turns, &slow).is_some());
    }

    #[test]
    fn over_all_wolves_there_are_no_more_than_was_said() {
        let (turns, wolves) = (Turns::new(3), [(); 4].map(|()| WolfId::new()));
        let held: Vec<_> = wolves[..3].iter().map(|wolf| now(&turns, wolf).unwrap()).collect();
        assert!(now(&turns, &wolves[3]).is_none());
        drop(held);
        assert!(now(&turns, &wolves[3]).is_some());
        assert!(now(&Turns::new(1), &wolves[0]).is_some(), "one turn is one wolf's");
    }

    #[tokio::test]
    async fn who_waits_for_a_slow_wolf_holds_no_turn_of_others() {
        let (turns, slow, fine) = (Arc::new(Turns::new(2)), WolfId::new(), WolfId::new());
        let held = turns.take(&slow).await.unwrap();
        let waits: Vec<_> = (0..8)
            .map(|_| {
                let (turns, slow) = (Arc::clone(&turns), slow.clone());
                tokio::spawn(async move { turns.take(&slow).await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(now(&turns, &fine).is_some());
        drop(held);
        for wait in waits {
            assert!(wait.await.unwrap());
        }
    }

    #[test]
    fn wolves_of_which_no_turn_is_held_are_forgotten() {
        let turns = Turns::new(2);
        for _ in 0..100 {
            assert!(now(&turns, &WolfId::new()).is_some());
        }
        assert!(turns.wolves.lock().len() <= 1);
    }
}
