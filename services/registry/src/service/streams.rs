//! The heartbeat streams that are open here: a newer one of the same wolf ends
//! the older at once, instead of at its next beat.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wolfpack_types::WolfId;

type Open = HashMap<WolfId, (i64, CancellationToken)>;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct HeartbeatStreams(Arc<Mutex<Open>>);

/// An open stream; forgotten when dropped.
pub(crate) struct OpenStream {
    streams: HeartbeatStreams,
    wolf: WolfId,
    pub(crate) number: i64,
    /// Cancelled when a newer one took over.
    pub(crate) superseded: CancellationToken,
}

impl HeartbeatStreams {
    /// Notes a stream and ends the older one of the same wolf.
    pub(crate) fn open(&self, wolf: &WolfId, number: i64) -> OpenStream {
        let superseded = CancellationToken::new();
        let mut open = self.0.lock();
        match open.get(wolf) {
            // Two streams opened at once: the database gave the order.
            Some((newer, _)) if *newer > number => superseded.cancel(),
            _ => {
                let entry = (number, superseded.clone());
                if let Some((_, older)) = open.insert(wolf.clone(), entry) {
                    older.cancel();
                }
            }
        }
        drop(open);
        OpenStream { streams: self.clone(), wolf: wolf.clone(), number, superseded }
    }

    /// Ends the stream of a wolf unless it is newer than the number.
    pub(crate) fn end_before(&self, wolf: &WolfId, number: i64) {
        let mut open = self.0.lock();
        if open.get(wolf).is_some_and(|(older, _)| *older < number)
            && let Some((_, older)) = open.remove(wolf)
        {
            older.cancel();
        }
    }

    /// How many streams are open.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock();
        if open.get(&self.wolf).is_some_and(|(number, _)| *number == self.number) {
            open.remove(&self.wolf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stream_wins_in_whatever_order_they_open() {
        let streams = HeartbeatStreams::default();
        let wolf = WolfId::new();
        let first = streams.open(&wolf, 1);
        let third = streams.open(&wolf, 3);
        let second = streams.open(&wolf, 2);
        assert!(first.superseded.is_cancelled() && second.superseded.is_cancelled());
        assert!(!third.superseded.is_cancelled());
        drop((first, second));
        assert_eq!(streams.len(), 1);
        streams.end_before(&wolf, 3);
        assert!(!third.superseded.is_cancelled());
        streams.end_before(&wolf, 4);
        assert!(third.superseded.is_cancelled());
        assert_eq!(streams.len(), 0);
        drop(third);
    }
}
