//! Which sandboxes to look at. Each is looked at by one task at a time; a wake
//! in between makes it look once more.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use wolfpack_types::{SandboxId, WolfId};

use crate::reconcile::Reconciler;
use crate::store::Sandbox;

/// Wakes the reconciler; cheap to clone. Bounded by the number of sandboxes,
/// since one that waits to be looked at is in it once.
#[derive(Clone, Default)]
pub(crate) struct Queue {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    active: Mutex<HashMap<SandboxId, Active>>,
    reconciler: OnceLock<Weak<Reconciler>>,
}

struct Active {
    poke: Arc<Notify>,
    again: bool,
    /// The version of the row that its task wrote last.
    version: i64,
}

impl Queue {
    /// Who looks. Wakes before this are dropped; the first resync makes up for
    /// them.
    pub(crate) fn serve(&self, reconciler: &Arc<Reconciler>) {
        let _ = self.inner.reconciler.set(Arc::downgrade(reconciler));
    }

    /// Looks at a sandbox soon.
    pub(crate) fn wake(&self, id: &SandboxId) {
        let Some(reconciler) = self.inner.reconciler.get().and_then(Weak::upgrade) else { return };
        let poke = {
            let mut active = self.inner.active.lock();
            if let Some(entry) = active.get_mut(id) {
                entry.again = true;
                entry.poke.notify_one();
                return;
            }
            let poke = Arc::new(Notify::new());
            let entry = Active { poke: Arc::clone(&poke), again: false, version: 0 };
            active.insert(id.clone(), entry);
            poke
        };
        reconciler.look_at(id.clone(), poke);
    }

    /// A row was written, by whomever: looks at it unless its own task did that.
    pub(crate) fn written(&self, sandbox: &Sandbox) {
        let own = self
            .inner
            .active
            .lock()
            .get(&sandbox.id)
            .is_some_and(|entry| entry.version >= sandbox.version);
        if !own && !sandbox.is_over() {
            self.wake(&sandbox.id);
        }
    }

    /// A wolf came, went or listed its containers: looks at all it concerns.
    pub(crate) fn wolf_changed(&self, wolf: WolfId) {
        if let Some(reconciler) = self.inner.reconciler.get().and_then(Weak::upgrade) {
            reconciler.changed.tell(wolf);
        }
    }

    /// Much may have changed: looks at every row.
    pub(crate) fn all_changed(&self) {
        if let Some(reconciler) = self.inner.reconciler.get().and_then(Weak::upgrade) {
            reconciler.all.notify_one();
        }
    }

    /// Notes that the task of a sandbox has written this version.
    pub(super) fn wrote(&self, id: &SandboxId, version: i64) {
        if let Some(entry) = self.inner.active.lock().get_mut(id) {
            entry.version = version;
        }
    }

    /// The task of a sandbox has nothing to do. Answers whether it was woken
    /// meanwhile and must look again; otherwise its place is free.
    pub(super) fn finish(&self, id: &SandboxId) -> bool {
        let mut active = self.inner.active.lock();
        match active.get_mut(id) {
            Some(entry) if entry.again => {
                entry.again = false;
                true
            }
            _ => {
                active.remove(id);
                false
            }
        }
    }

    /// Wakes so far are taken note of: the row is about to be read.
    pub(super) fn reading(&self, id: &SandboxId) {
        if let Some(entry) = self.inner.active.lock().get_mut(id) {
            entry.again = false;
        }
    }
}
