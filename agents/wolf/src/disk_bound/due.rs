//! When a sandbox's files are worth another walk. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::decide::limit;

/// While the disk is short: that often, and at most one part of the time in so
/// many.
const SHORT: (Duration, u32) = (Duration::from_secs(2), 3);
/// Of one that is beyond its bound.
const BEYOND: (Duration, u32) = (Duration::from_secs(5), 5);
/// Of one that used half of its bound.
const CALM: (Duration, u32) = (Duration::from_secs(15), 20);
/// Of one that used little of it.
const QUIET: (Duration, u32) = (Duration::from_secs(300), 20);
/// So little written on the whole disk is no reason to hurry, in bytes.
const LITTLE: u64 = 32 << 20;

/// The disk that all write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk {
    /// Bytes that are free.
    pub(super) free: u64,
    /// Bytes that stay free.
    pub(super) reserve: u64,
    /// Below it every byte counts.
    pub(super) short: u64,
    /// Its name in files' metadata.
    pub(super) device: u64,
}

/// The last walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) ended: Instant,
    pub(super) took: Duration,
    /// Bytes that were found.
    pub(super) used: u64,
    /// Bytes that were free on the disk when it began.
    pub(super) free: u64,
}

/// Whether to walk again. Without a bound it only matters how much there is
/// once the disk is short. Else the free space tells whether so much was
/// written since, by whomever, that the bound may be reached.
pub(super) fn due(last: Option<&Last>, now: Instant, disk: Disk, bound: u64) -> bool {
    let short = disk.free < disk.short;
    if bound == 0 && !short {
        return false;
    }
    let Some(last) = last else { return true };
    let since = now.duration_since(last.ended);
    let written = last.free.saturating_sub(disk.free);
    let margin = limit(bound).saturating_sub(last.used);
    let hurries = written > LITTLE && written > margin / 2;
    let (pause, share) = if short {
        SHORT
    } else if last.used > bound {
        BEYOND
    } else if last.used > bound / 2 {
        CALM
    } else {
        QUIET
    };
    since >= pause.max(last.took.saturating_mul(share))
        || (hurries && since >= last.took.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: u64 = 1 << 30;

    #[test]
    fn what_is_small_on_a_roomy_disk_is_left_alone_until_enough_was_written() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let disk = |free| Disk { free, reserve: 2 * G, short: 4 * G, device: 1 };
        let quick =
            |used| Last { ended: now, took: Duration::from_millis(10), used, free: 100 * G };
        let bound = 8 * G;
        assert!(due(None, now, disk(100 * G), bound), "nothing is known");
        let small = quick(G);
        assert!(!due(Some(&small), later(60), disk(100 * G), bound), "it is small");
        assert!(due(Some(&small), later(300), disk(100 * G), bound), "not for ever");
        assert!(!due(Some(&small), later(60), disk(96 * G), bound), "the bound is far");
        assert!(due(Some(&small), later(1), disk(95 * G), bound), "it may be half way there");
        let half = quick(5 * G);
        assert!(!due(Some(&half), later(14), disk(100 * G), bound));
        assert!(due(Some(&half), later(15), disk(100 * G), bound));
        let beyond = quick(9 * G);
        assert!(due(Some(&beyond), later(5), disk(100 * G), bound));
        assert!(due(Some(&small), later(2), disk(4 * G - 1), bound), "the disk is short");
        assert!(!due(Some(&small), later(1), disk(100 * G - LITTLE), 1), "that is little");
    }

    #[test]
    fn without_a_bound_only_a_short_disk_counts() {
        let now = Instant::now();
        let disk = |free| Disk { free, reserve: 2 * G, short: 4 * G, device: 1 };
        assert!(!due(None, now, disk(100 * G), 0));
        assert!(due(None, now, disk(3 * G), 0));
        let last = Last { ended: now, took: Duration::ZERO, used: G, free: 3 * G };
        assert!(!due(Some(&last), now + Duration::from_secs(1), disk(3 * G), 0));
        assert!(due(Some(&last), now + Duration::from_secs(2), disk(3 * G), 0));
    }

    #[test]
    fn a_walk_that_takes_long_is_not_made_all_the_time() {
        let now = Instant::now();
        let last = Last { ended: now, took: Duration::from_secs(20), used: 6 * G, free: 100 * G };
        let disk = |free| Disk { free, reserve: 2 * G, short: 4 * G, device: 1 };
        let after =
            |seconds, free| due(Some(&last), now + Duration::from_secs(seconds), disk(free), 8 * G);
        assert!(!after(399, 100 * G));
        assert!(after(400, 100 * G));
        assert!(!after(39, 50 * G), "not even when all may be written");
        assert!(after(40, 50 * G));
        assert!(!after(39, G) && after(60, G));
    }
}
