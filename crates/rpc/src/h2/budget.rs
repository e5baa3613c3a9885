//! How far ahead peers may send, all of them together: a bound on the bytes that
//! readers who stop can pin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// No stream gets less: below it a frame does not fit.
const LEAST: u32 = 64 * 1024;
/// How long windows stay small once they were made smaller: to change them is a frame and
/// its answer on every connection, and who opens and closes a few in turn shall not
/// cause that more often.
const SMALL_FOR: Duration = Duration::from_secs(10);
/// More in flight than any way needs.
const MOST: u32 = 16 * 1024 * 1024;

/// One for each process that takes part in tunnels. Each stream that carries a
/// connection here holds it; the more there are, the less each may send ahead: the
/// window of all streams is halved whenever twice as many are held, from the
/// largest down to 64 KiB. A stalled reader keeps what it was given before, so
/// the steps are chosen for the worst order of events: with `h` halvings
/// `bytes / (1 + h / 2)` is what is shared out. Beyond as many streams as have
/// 64 KiB of that each, each more pins 64 KiB more; the bound on connections ends that.
///
/// It counts payload that is received. What is sent has a bound of its own for each
/// stream; h2 keeps a few hundred bytes for each frame, which tells with frames of
/// a few bytes; what an agent sends on streams that are only parked, against the
/// protocol, ends them with the first whole message, and is dropped with them.
///
/// Clones are the same budget.
#[derive(Debug, Clone)]
pub struct ByteBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: u64,
    largest: AtomicU32,
    held: AtomicUsize,
    window: watch::Sender<u32>,
    /// When it was last made smaller; used under the lock of `window`.
    shrunk: Mutex<Option<Instant>>,
}

impl ByteBudget {
    /// A budget of so many bytes, of which one stream may have `largest`.
    #[must_use]
    pub fn new(bytes: u64, largest: u32) -> Self {
        let largest = largest.max(LEAST);
        Self(Arc::new(Shared {
            bytes,
            largest: AtomicU32::new(largest),
            held: AtomicUsize::new(0),
            window: watch::Sender::new(largest),
            shrunk: Mutex::default(),
        }))
    }

    /// Changes what one stream may have when there are few, bytes: 64 KiB to 16 MiB.
    pub fn set_largest(&self, largest: u32) {
        self.0.largest.store(largest.clamp(LEAST, MOST), Ordering::Relaxed);
        self.settle();
    }

    /// Counts one connection until it is dropped.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.0.held.fetch_add(1, Ordering::Relaxed);
        self.settle();
        Hold(self.clone())
    }

    /// What one stream may send ahead now, bytes.
    #[must_use]
    pub fn window(&self) -> u32 {
        *self.0.window.borrow()
    }

    /// Connections that hold it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Moves the window to where it belongs; it grows again only well below the
    /// step, or one connection more and less would change it each time, and not soon
    /// after it was made smaller. To be called now and then, too: the last event may
    /// have come too early.
    pub(crate) fn settle(&self) {
        self.0.window.send_if_modified(|window| {
            // Read under the lock: the last one to come sees all.
            let held = self.held() as u64;
            let mut wanted = self.0.window_for(held);
            if wanted > *window {
                let soon = self.0.shrunk.lock().is_some_and(|at| at.elapsed() < SMALL_FOR);
                let grown = self.0.window_for(held + held / 4).max(*window);
                wanted = if soon { *window } else { grown };
            }
            if wanted < *window {
                *self.0.shrunk.lock() = Some(Instant::now());
            }
            std::mem::replace(window, wanted) != wanted
        });
    }

    /// Resolves to the window once it is another than `known`.
    pub(crate) async fn changed(self, known: u32) -> u32 {
        let mut window = self.0.window.subscribe();
        match window.wait_for(|window| *window != known).await {
            Ok(window) => *window,
            // It cannot be gone: we hold it.
            Err(_) => known,
        }
    }
}

impl Default for ByteBudget {
    /// That of an agent: 256 MiB, of which one stream may have 2 MiB until its
    /// broker says otherwise.
    fn default() -> Self {
        Self::new(256 * 1024 * 1024, 2 * 1024 * 1024)
    }
}

impl Shared {
    /// What the windows of all may come to at each step.
    fn share(&self, largest: u32) -> u64 {
        let halvings = u64::from(largest.div_ceil(LEAST).next_power_of_two().ilog2());
        self.bytes * 2 / (2 + halvings)
    }

    fn window_for(&self, held: u64) -> u32 {
        let mut window = self.largest.load(Ordering::Relaxed);
        let share = self.share(window);
        while window > LEAST && held.saturating_mul(u64::from(window)) > share {
            window = (window / 2).max(LEAST);
        }
        window
    }
}

/// A connection that counts.
#[derive(Debug)]
pub struct Hold(ByteBudget);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.held.fetch_sub(1, Ordering::Relaxed);
        self.0.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u32 = 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn a_few_have_all_and_thousands_have_the_least() {
        let budget = ByteBudget::new(512 * u64::from(MIB), MIB);
        let mut held: Vec<_> = (0..170).map(|_| budget.hold()).collect();
        assert_eq!(budget.window(), MIB);
        held.extend((0..4000).map(|_| budget.hold()));
        assert_eq!(budget.window(), LEAST);
        held.clear();
        tokio::time::advance(SMALL_FOR).await;
        budget.settle();
        assert_eq!((budget.window(), budget.held()), (MIB, 0));
        budget.set_largest(64 * MIB);
        assert_eq!(budget.window(), 16 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn many_more_and_many_less_change_it_once_in_a_while() {
        let budget = ByteBudget::new(30 * u64::from(MIB), MIB);
        let mut changes = budget.0.window.subscribe();
        let mut count = 0;
        for _ in 0..100 {
            let held: Vec<_> = (0..1000).map(|_| budget.hold()).collect();
            count += u32::from(changes.has_changed().unwrap());
            changes.mark_unchanged();
            drop(held);
            count += u32::from(changes.has_changed().unwrap());
            changes.mark_unchanged();
            tokio::time::advance(SMALL_FOR / 50).await;
        }
        // 20 s: smaller, larger after 10 s, and smaller again.
        assert!((2..=5).contains(&count), "{count}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_and_one_less_changes_it_once() {
        let budget = ByteBudget::new(30 * u64::from(MIB), MIB);
        let held: Vec<_> = (0..10).map(|_| budget.hold()).collect();
        let mut changes = budget.0.window.subscribe();
        for _ in 0..5 {
            drop(budget.hold());
        }
        assert!(changes.has_changed().unwrap(), "or this test shows nothing");
        assert_eq!(*changes.borrow_and_update(), MIB / 2);
        drop(budget.hold());
        assert!(!changes.has_changed().unwrap());
        drop(held);
        assert_eq!(budget.window(), MIB / 2, "not so soon");
        tokio::time::advance(SMALL_FOR).await;
        drop(budget.hold());
        assert_eq!(budget.window(), MIB);
    }

    proptest! {
        /// Each stream stalls with the largest window that it ever had.
        #[test]
        fn what_stalled_readers_pin_is_within_the_budget(
            mib in 16_u64..1024,
            largest in LEAST..16 * MIB,
            steps in proptest::collection::vec((any::<bool>(), 1_usize..400), 1..40),
        ) {
            let bytes = mib * u64::from(MIB);
            let budget = ByteBudget::new(bytes, largest);
            let mut held: Vec<(Hold, u32)> = Vec::new();
            for (more, count) in steps {
                for _ in 0..count {
                    if more {
                        held.push((budget.hold(), 0));
                    } else {
                        // Those that came last go first: the oldest have the most.
                        held.pop();
                    }
                    let window = budget.window();
                    held.iter_mut().for_each(|(_, most)| *most = window.max(*most));
                }
                let pinned: u64 = held.iter().map(|(_, most)| u64::from(*most)).sum();
                let least = u64::from(LEAST);
                let beyond = (held.len() as u64).saturating_sub(budget.0.share(largest) / least);
                prop_assert!(pinned <= bytes + beyond * least + u64::from(largest));
            }
        }
    }
}
