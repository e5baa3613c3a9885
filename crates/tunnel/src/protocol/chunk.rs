//! How much of a connection one frame carries.

use std::time::Duration;

/// What a frame carries at first, bytes, and of the ways that are not the fastest for
/// good. With all heads, those of TLS too, it is less than 65,483 bytes, which is
/// what one segment of a loopback device takes: 64 KiB would be two of them, the
/// second of some 60 bytes.
pub const CHUNK: usize = 65_200;

/// How often it doubles.
const DOUBLINGS: u32 = 2;

/// The most that a frame carries when we make it, bytes; with its heads it is one
/// HTTP/2 frame of the largest size that our ends take, 256 KiB (ADR 23).
pub const MOST_CHUNK: usize = CHUNK << DOUBLINGS;

/// Nothing else is sent while a frame is: a larger one must not take a fast way longer
/// than this.
const FAST: Duration = Duration::from_millis(1);

/// Who waited this long is on a slow way.
const SLOW: Duration = Duration::from_millis(4);

/// The share of what a connection may send ahead that one frame may be. Two of them wait
/// where the reader stops: as much as may come ahead, in a process that bounds that.
const OF_WINDOW: usize = 2;

/// The chunk of one direction of a connection. It doubles while chunks are full and
/// pass within a millisecond each, and starts anew where one waits. So it comes to what
/// passes in about that time: system calls, frames and wake-ups cost a fast way less.
/// The kernel's own buffer takes chunks at once as long as it has room, so on a slow way
/// some grow, too, until one waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chunk {
    doublings: u32,
}

impl Chunk {
    /// What the next frame may carry, bytes: [`CHUNK`] to [`MOST_CHUNK`].
    #[must_use]
    pub fn bytes(self) -> usize {
        CHUNK << self.doublings
    }

    /// Whether it is larger than at first.
    #[must_use]
    pub fn has_grown(self) -> bool {
        self.doublings > 0
    }

    /// No larger than it may be where one connection may send `window` bytes ahead: that
    /// may have shrunk since the last frame.
    #[must_use]
    pub fn within(self, window: u32) -> Self {
        let most = (window as usize / OF_WINDOW / CHUNK).max(1).ilog2();
        Self { doublings: self.doublings.min(most) }
    }

    /// Takes note that a frame of `length` bytes was taken after some time, where one
    /// connection may send `window` bytes ahead. It was less than there was room for if
    /// the source is `drained`.
    pub fn passed(&mut self, length: usize, drained: bool, after: Duration, window: u32) {
        let doublings = if after >= SLOW {
            0
        } else if drained && length < self.bytes() / 2 {
            self.doublings.saturating_sub(1)
        } else if length >= self.bytes() && after < FAST {
            self.doublings + 1
        } else {
            self.doublings
        };
        *self = Self { doublings: doublings.min(DOUBLINGS) }.within(window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u32 = 1024 * 1024;
    const SOON: Duration = Duration::from_micros(100);

    fn after(frames: &[(usize, Duration)], window: u32) -> usize {
        let mut chunk = Chunk::default();
        for (length, after) in frames {
            chunk.passed(*length, *length < chunk.bytes(), *after, window);
        }
        chunk.bytes()
    }

    #[test]
    fn a_fast_way_has_large_frames() {
        assert_eq!(after(&[(CHUNK, SOON)], 2 * MIB), 2 * CHUNK);
        assert_eq!(after(&[(CHUNK, SOON), (2 * CHUNK, SOON)], 2 * MIB), MOST_CHUNK);
        let more = [(CHUNK, SOON), (2 * CHUNK, SOON), (MOST_CHUNK, SOON)];
        assert_eq!(after(&more, 16 * MIB), MOST_CHUNK);
    }

    #[test]
    fn who_waits_or_sends_little_has_small_ones() {
        let large = [(CHUNK, SOON), (2 * CHUNK, SOON)];
        assert_eq!(after(&[large.as_slice(), &[(MOST_CHUNK, SLOW)]].concat(), 2 * MIB), CHUNK);
        let little = [(1000, SOON), (1000, SOON)];
        assert_eq!(after(&[large.as_slice(), &little].concat(), 2 * MIB), CHUNK);
        assert_eq!(after(&[(CHUNK, FAST)], 2 * MIB), CHUNK, "it would take 2 ms then");
        let mut chunk = Chunk::default();
        chunk.passed(CHUNK, false, SOON, 2 * MIB);
        chunk.passed(1000, false, SOON, 2 * MIB);
        assert_eq!(chunk.bytes(), 2 * CHUNK, "there was no room for more");
    }

    #[test]
    fn where_many_share_the_budget_frames_stay_small() {
        let full = [(CHUNK, SOON), (2 * CHUNK, SOON), (MOST_CHUNK, SOON)];
        assert_eq!(after(&full, MIB / 2), MOST_CHUNK);
        assert_eq!(after(&full, MIB / 4), 2 * CHUNK);
        assert_eq!(after(&full, MIB / 8), CHUNK);
        assert_eq!(after(&full, MIB / 16), CHUNK);
    }

    #[test]
    fn one_that_grew_shrinks_with_the_window() {
        let mut chunk = Chunk::default();
        chunk.passed(CHUNK, false, SOON, 2 * MIB);
        chunk.passed(2 * CHUNK, false, SOON, 2 * MIB);
        assert!(chunk.has_grown());
        assert_eq!(chunk.within(2 * MIB).bytes(), MOST_CHUNK);
        assert_eq!(chunk.within(MIB / 4).bytes(), 2 * CHUNK);
        assert!(!chunk.within(MIB / 16).has_grown());
    }

    proptest! {
        #[test]
        fn it_keeps_its_bounds(
            frames in proptest::collection::vec(
                (0..=MOST_CHUNK, any::<bool>(), 0_u64..10_000, 0..16 * MIB), 0..64,
            )
        ) {
            let mut chunk = Chunk::default();
            for (length, drained, micros, window) in frames {
                let length = length.min(chunk.bytes());
                chunk.passed(length, drained, Duration::from_micros(micros), window);
                prop_assert!((CHUNK..=MOST_CHUNK).contains(&chunk.bytes()));
            }
        }
    }
}
