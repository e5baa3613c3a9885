//! Randomness that only spreads things over time, so that a simulation can
//! repeat it. Never use it for what must not be guessed.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// A source of jitter; clones of a seeded one share its sequence.
#[derive(Debug, Clone, Default)]
pub struct Jitter(Option<Arc<Mutex<StdRng>>>);

impl Jitter {
    /// The same sequence for the same seed; the default one never repeats.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// The next number in `0.0..1.0`.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        match &self.0 {
            Some(seeded) => seeded.lock().random(),
            None => rand::random(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_the_default_does_not() {
        let some = |jitter: Jitter| -> Vec<f64> { (0..8).map(|_| jitter.fraction()).collect() };
        assert_eq!(some(Jitter::seeded(7)), some(Jitter::seeded(7)));
        assert_ne!(some(Jitter::seeded(7)), some(Jitter::seeded(8)));
        assert_ne!(some(Jitter::default()), some(Jitter::default()));
        assert!(some(Jitter::seeded(1)).iter().all(|number| (0.0..1.0).contains(number)));
    }
}
