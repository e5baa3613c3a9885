//! Images that are being made use of.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Names that must not be removed now.
#[derive(Clone, Default)]
pub(super) struct Holds {
    names: Arc<Mutex<HashMap<String, usize>>>,
}

/// Keeps an image from being removed until it is dropped.
#[must_use]
pub struct InUse {
    name: String,
    holds: Holds,
}

impl Holds {
    pub(super) fn hold(&self, name: &str) -> InUse {
        *self.names.lock().entry(name.to_owned()).or_default() += 1;
        InUse { name: name.to_owned(), holds: self.clone() }
    }

    /// Whether one of these names is held.
    pub(super) fn holds(&self, names: &[String]) -> bool {
        let held = self.names.lock();
        names.iter().any(|name| held.contains_key(name))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut held = self.holds.names.lock();
        if let Some(count) = held.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_lets_go() {
        let holds = Holds::default();
        let names = ["a:1".to_owned()];
        let (one, two) = (holds.hold("a:1"), holds.hold("a:1"));
        drop(one);
        assert!(holds.holds(&names));
        drop(two);
        assert!(!holds.holds(&names));
    }
}
