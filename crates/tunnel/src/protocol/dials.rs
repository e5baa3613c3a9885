//! Dials that wait for their stream: bounded, each good once and for a while.

use std::time::Instant;

use subtle::ConstantTimeEq as _;

/// The proof that a stream answers a dial: 128 random bits.
#[derive(Clone, Copy)]
pub struct DialId([u8; 16]);

impl DialId {
    /// An id of these bits, which must be random.
    #[must_use]
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// Its bytes on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for DialId {
    /// Says nothing: an id is a secret while it is good.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DialId(..)")
    }
}

#[derive(Debug)]
struct Entry<T> {
    id: DialId,
    expires: Instant,
    value: T,
}

/// The pending dials of one session. A table belongs to one session, so an id
/// of another session is never found.
#[derive(Debug)]
pub struct DialTable<T> {
    entries: Vec<Entry<T>>,
    limit: usize,
}

impl<T> DialTable<T> {
    /// A table of at most `limit` dials.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), limit }
    }

    /// How many dials wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a dial that is good until `expires`.
    ///
    /// # Errors
    /// Gives the value back when the table is full of dials that are still good.
    pub fn insert(
        &mut self,
        id: DialId,
        now: Instant,
        expires: Instant,
        value: T,
    ) -> Result<(), T> {
        self.expire(now);
        if self.entries.len() >= self.limit {
            return Err(value);
        }
        self.entries.push(Entry { id, expires, value });
        Ok(())
    }

    /// Takes a dial out: it is good once. Compares in constant time with every
    /// entry, so the time tells nothing about the ids.
    pub fn take(&mut self, id: &[u8], now: Instant) -> Option<T> {
        self.expire(now);
        let mut found = None;
        for (at, entry) in self.entries.iter().enumerate() {
            if bool::from(entry.id.0.as_slice().ct_eq(id)) {
                found = Some(at);
            }
        }
        found.map(|at| self.entries.swap_remove(at).value)
    }

    /// Takes every dial out, for a session that ends.
    pub fn drain(&mut self) -> Vec<T> {
        self.entries.drain(..).map(|entry| entry.value).collect()
    }

    /// Drops the dials whose time is over.
    pub fn expire(&mut self, now: Instant) {
        self.entries.retain(|entry| entry.expires > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn an_id_is_good_once_and_for_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut table = DialTable::new(2);
        table.insert(DialId::from_random([1; 16]), now, later, "a").unwrap();
        table.insert(DialId::from_random([2; 16]), now, later, "b").unwrap();
        assert_eq!(table.insert(DialId::from_random([3; 16]), now, later, "c"), Err("c"));
        assert_eq!(table.take(&[1; 16], now), Some("a"));
        assert_eq!(table.take(&[1; 16], now), None, "replayed");
        assert_eq!(table.take(&[9; 16], now), None, "forged");
        assert_eq!(table.take(&[2; 15], now), None, "short");
        assert_eq!(table.take(&[], now), None, "empty");
        assert_eq!(table.take(&[2; 16], later), None, "late");
        assert!(table.is_empty());
    }

    proptest! {
        /// Against a plain map as the model.
        #[test]
        fn behaves_like_a_bounded_map(steps in prop::collection::vec((0_u8..8, 0_u8..3, 0_u64..4), 0..80)) {
            let mut now = Instant::now();
            let mut table = DialTable::new(4);
            let mut model: BTreeMap<u8, (Instant, u8)> = BTreeMap::new();
            for (key, action, seconds) in steps {
                now += Duration::from_secs(seconds);
                model.retain(|_, (expires, _)| *expires > now);
                let expires = now + Duration::from_secs(5);
                if action == 0 && !model.contains_key(&key) {
                    let fits = model.len() < 4;
                    prop_assert_eq!(table.insert(DialId::from_random([key; 16]), now, expires, key).is_ok(), fits);
                    if fits {
                        model.insert(key, (expires, key));
                    }
                } else if action == 1 {
                    prop_assert_eq!(table.take(&[key; 16], now), model.remove(&key).map(|(_, value)| value));
                }
                table.expire(now);
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }
}
