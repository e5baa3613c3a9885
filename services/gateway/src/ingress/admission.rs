//! How many requests may be under way: all together, and to one sandbox.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wolfpack_types::{Fault, Reason, SandboxId};

/// The places there are.
pub(super) struct Admission {
    all: Arc<Semaphore>,
    sandboxes: Arc<Sandboxes>,
}

struct Sandboxes {
    most: usize,
    /// As small as what is held: a sandbox without any is forgotten.
    held: Mutex<HashMap<SandboxId, usize>>,
}

/// The place of a request, and of the connection it has in the sandbox, until
/// it is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    sandboxes: Arc<Sandboxes>,
    of: SandboxId,
}

impl Admission {
    pub(super) fn new(all: usize, per_sandbox: usize) -> Self {
        let sandboxes = Sandboxes { most: per_sandbox, held: Mutex::default() };
        Self { all: Arc::new(Semaphore::new(all)), sandboxes: Arc::new(sandboxes) }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// `OVERLOADED` when there is none, with when to try again.
    pub(super) fn take(&self, sandbox: &SandboxId) -> Result<Place, Fault> {
        let full = |words| {
            Fault::new(Reason::Overloaded, words)
                .about(sandbox.name())
                .retry_in(Duration::from_secs(1))
        };
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(|_| {
            full("the gateway carries as many requests as it may; try again in a moment")
        })?;
        let mut held = self.sandboxes.held.lock();
        match held.get_mut(sandbox) {
            Some(count) if *count >= self.sandboxes.most => {
                return Err(full(
                    "the sandbox has as many requests under way as it may; try again in a moment",
                ));
            }
            Some(count) => *count += 1,
            None => drop(held.insert(sandbox.clone(), 1)),
        }
        drop(held);
        let (sandboxes, of) = (Arc::clone(&self.sandboxes), sandbox.clone());
        Ok(Place { _permit: permit, sandboxes, of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.sandboxes.held.lock();
        if let Some(count) = held.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_has_its_share_and_all_have_theirs() {
        let admission = Admission::new(3, 2);
        let (a, b) = (SandboxId::new(), SandboxId::new());
        let first = admission.take(&a).unwrap();
        let second = admission.take(&a).unwrap();
        assert_eq!(admission.take(&a).err().unwrap().reason, Reason::Overloaded);
        let third = admission.take(&b).unwrap();
        assert!(admission.take(&b).is_err(), "three are all");
        drop(first);
        drop(admission.take(&a).unwrap());
        drop((second, third));
        assert!(admission.sandboxes.held.lock().is_empty(), "nobody is remembered for nothing");
        assert_eq!(admission.all.available_permits(), 3);
    }
}
