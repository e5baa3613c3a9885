//! The book of running tasks, and their metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, UpDownCounter};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Policy;
use crate::telemetry::Telemetry;

/// Tasks by number. A child's tasks are in its own book and, counted, in that
/// of every ancestor: the ancestor waits for them and aborts them.
#[derive(Default)]
pub(super) struct Tasks {
    book: Mutex<Book>,
    changed: Notify,
}

#[derive(Default)]
struct Book {
    next: u64,
    running: BTreeMap<u64, Entry>,
    children: Vec<Weak<Tasks>>,
    closed: bool,
}

struct Entry {
    name: &'static str,
    abort: Option<AbortHandle>,
}

/// Leaves the book when the task's future is dropped, however it ended.
pub(super) struct Guard {
    tasks: Arc<Tasks>,
    id: u64,
}

impl Guard {
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.tasks.book.lock().running.remove(&self.id);
        self.tasks.changed.notify_waiters();
    }
}

impl Tasks {
    pub(super) fn child(&self) -> Arc<Self> {
        let child = Arc::new(Self::default());
        let mut book = self.book.lock();
        child.book.lock().closed = book.closed;
        book.children.retain(|child| child.strong_count() > 0);
        book.children.push(Arc::downgrade(&child));
        child
    }

    /// Enters a task; `None` once closed.
    pub(super) fn enter(self: &Arc<Self>, name: &'static str) -> Option<Guard> {
        let mut book = self.book.lock();
        if book.closed {
            return None;
        }
        let id = book.next;
        book.next += 1;
        book.running.insert(id, Entry { name, abort: None });
        Some(Guard { tasks: Arc::clone(self), id })
    }

    /// Notes how to abort it; it may have ended meanwhile.
    pub(super) fn started(&self, id: u64, abort: AbortHandle) {
        if let Some(entry) = self.book.lock().running.get_mut(&id) {
            entry.abort = Some(abort);
        }
    }

    pub(super) fn running(&self) -> usize {
        let (own, children) = self.look();
        own.len() + children.iter().map(|child| child.running()).sum::<usize>()
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        let (mut names, children) = self.look();
        names.extend(children.iter().flat_map(|child| child.names()));
        names.sort_unstable();
        names
    }

    /// Aborts all that run, and names them.
    pub(super) fn abort(&self) -> Vec<&'static str> {
        let names = self.names();
        let (_, children) = self.look();
        children.iter().for_each(|child| drop(child.abort()));
        for entry in self.book.lock().running.values() {
            if let Some(abort) = &entry.abort {
                abort.abort();
            }
        }
        names
    }

    /// Lets no more tasks in, here and in children.
    pub(super) fn close(&self) {
        let (_, children) = self.look();
        self.book.lock().closed = true;
        children.iter().for_each(|child| child.close());
    }

    /// Resolves when nothing runs here and in children.
    pub(super) async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            let (own, children) = self.look();
            if own.is_empty() {
                match children.iter().find(|child| child.running() > 0) {
                    None => return,
                    Some(child) => Box::pin(child.empty()).await,
                }
            } else {
                changed.await;
            }
        }
    }

    fn look(&self) -> (Vec<&'static str>, Vec<Arc<Self>>) {
        let book = self.book.lock();
        let names = book.running.values().map(|entry| entry.name).collect();
        (names, book.children.iter().filter_map(Weak::upgrade).collect())
    }
}

#[derive(Clone)]
pub(super) struct Metrics {
    running: UpDownCounter<i64>,
    restarts: Counter<u64>,
    panics: Counter<u64>,
}

impl Metrics {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let meter = telemetry.meter();
        Self {
            running: meter
                .i64_up_down_counter("wolfpack.tasks.running")
                .with_description("Supervised tasks that run now.")
                .build(),
            restarts: meter
                .u64_counter("wolfpack.tasks.restarts")
                .with_description("Tasks made anew after they ended.")
                .build(),
            panics: meter
                .u64_counter("wolfpack.tasks.panics")
                .with_description("Tasks that panicked.")
                .build(),
        }
    }

    pub(super) fn restarted(&self, task: &'static str) {
        self.restarts.add(1, &[KeyValue::new("task", task)]);
    }

    pub(super) fn panicked(&self, task: &'static str) {
        self.panics.add(1, &[KeyValue::new("task", task)]);
    }

    /// Counts a task while the answer lives.
    pub(super) fn running(&self, task: &'static str, policy: Policy) -> impl Drop + Send + use<> {
        let labels = [KeyValue::new("task", task), KeyValue::new("policy", policy.as_str())];
        self.running.add(1, &labels);
        Counted { running: self.running.clone(), labels }
    }
}

struct Counted {
    running: UpDownCounter<i64>,
    labels: [KeyValue; 2],
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.running.add(-1, &self.labels);
    }
}
