//! Dials that the broker asked streams for, until they have one.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// What cancels each dial that waits for its stream; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Dials(Arc<Mutex<HashMap<Bytes, CancellationToken>>>);

impl Dials {
    /// Takes a dial in, to be cancelled by `cancel`. `None` for one that waits
    /// already: an id is good once.
    pub(super) fn begin(&self, id: Bytes, cancel: CancellationToken) -> Option<PendingDial> {
        use std::collections::hash_map::Entry;
        match self.0.lock().entry(id.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(cancel);
                Some(PendingDial { dials: self.clone(), id })
            }
        }
    }

    /// The broker took a dial back.
    pub(super) fn cancel(&self, id: &[u8]) {
        let cancel = self.0.lock().remove(id);
        if let Some(cancel) = cancel {
            cancel.cancel();
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// A dial that waits; it is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct PendingDial {
    dials: Dials,
    id: Bytes,
}

impl Drop for PendingDial {
    fn drop(&mut self) {
        self.dials.0.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_becomes_of_thousands_of_dials_none_is_kept() {
        let (dials, session) = (Dials::default(), CancellationToken::new());
        for at in 0..5000_u32 {
            let id = Bytes::copy_from_slice(&at.to_be_bytes());
            let cancel = session.child_token();
            let pending = dials.begin(id.clone(), cancel.clone()).unwrap();
            assert!(dials.begin(id.clone(), session.child_token()).is_none(), "once");
            assert_eq!(dials.len(), 1);
            if at % 3 == 0 {
                dials.cancel(&id);
                assert!(cancel.is_cancelled());
            }
            drop(pending);
            assert_eq!((dials.len(), session.is_cancelled()), (0, false));
        }
    }
}
