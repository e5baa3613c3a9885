//! A bound on the bytes of all connections of a tunnel.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use super::link::Direction;
use crate::protocol::Pace;

/// A rate for each direction, which all links that hold it share.
#[derive(Debug)]
pub struct Throttle {
    began: Instant,
    ways: [Pace; 2],
}

impl Throttle {
    /// So many bytes a second up, and as many down.
    #[must_use]
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { began: Instant::now(), ways: [(); 2].map(|()| Pace::new(bytes_per_second)) }
    }

    /// Takes note of bytes that passed; how long to wait before more may.
    pub fn charge(&self, direction: Direction, bytes: usize) -> Option<Duration> {
        self.ways[direction.index()].charge(bytes as u64, self.began.elapsed())
    }
}
