//! How much is held at a time: in all, and for one address, so that one
//! container cannot take the names of all others away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// A bound on what is held.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    held: Arc<Mutex<Held>>,
    total: usize,
    each: usize,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    each: HashMap<IpAddr, usize>,
}

/// One that is held, until it is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    of: IpAddr,
    held: Arc<Mutex<Held>>,
}

impl Limit {
    pub(super) fn new((total, each): (usize, usize)) -> Self {
        Self { held: Arc::default(), total, each }
    }

    /// One more for this address, unless it is too much.
    pub(super) fn enter(&self, of: IpAddr) -> Option<Pass> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.each.get(&of).copied().unwrap_or(0);
        if held.total >= self.total || own >= self.each {
            return None;
        }
        held.total += 1;
        held.each.insert(of, own + 1);
        Some(Pass { of, held: self.held.clone() })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total -= 1;
        let own = held.each.get(&self.of).copied().unwrap_or(0);
        if own > 1 {
            held.each.insert(self.of, own - 1);
        } else {
            held.each.remove(&self.of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_and_what_ends_makes_room() {
        let limit = Limit::new((3, 2));
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = limit.enter(greedy).unwrap();
        let _second = limit.enter(greedy).unwrap();
        assert!(limit.enter(greedy).is_none());
        let third = limit.enter(other).unwrap();
        assert!(limit.enter(other).is_none(), "three in all");
        drop((first, third));
        assert!(limit.enter(greedy).is_some());
        drop(_second);
        assert_eq!(limit.held.lock().unwrap().total, 0);
        assert!(limit.held.lock().unwrap().each.is_empty());
    }
}
