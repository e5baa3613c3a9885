//! When the disk is short, and what may be removed then; pure.

use std::time::{Duration, SystemTime};

use super::disk::{Space, bytes};
use super::uses::Uses;
use crate::config::ImagesConfig;
use crate::engine::images::StoredImage;

/// The amounts of free disk at which something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Below it uploads and pulls are refused, too.
    pub(super) reserve: u64,
    /// Below it nothing new is placed here, and images make room.
    pub(super) short: u64,
    /// From it on all is well again.
    pub(super) enough: u64,
}

impl Marks {
    pub(super) fn of(config: &ImagesConfig, total: u64) -> Self {
        let reserve = config.reserve(total);
        let short = reserve.saturating_mul(2);
        Self { reserve, short, enough: short.saturating_add(reserve / 4) }
    }

    /// Whether the disk is short, when it was so before.
    pub(super) fn is_short(self, free: u64, before: bool) -> bool {
        free < if before { self.enough } else { self.short }
    }
}

/// Why nothing new should be placed here.
pub(super) fn words(space: Space, marks: Marks) -> String {
    let full = if space.free < marks.reserve { ", less than the reserve" } else { "" };
    format!(
        "{} of {} are free{full}; new sandboxes come from {} on: remove images or sandboxes, or \
         give the engine a larger disk",
        bytes(space.free),
        bytes(space.total),
        bytes(marks.enough)
    )
}

/// The images that may be removed, the one that was of use longest ago first.
pub(super) fn removable<'a>(
    images: &'a [StoredImage],
    uses: &Uses,
    config: &ImagesConfig,
    held: impl Fn(&[String]) -> bool,
) -> Vec<(SystemTime, &'a StoredImage)> {
    let mut found: Vec<_> = images
        .iter()
        .filter(|image| image.containers == 0)
        .filter(|image| !image.references.iter().any(|name| config.pins(name)))
        .filter(|image| !held(&image.references))
        .filter_map(|image| Some((uses.idle_since(&image.id)?, image)))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id)));
    found
}

/// Whether an image that was of use then is no longer kept.
pub(super) fn is_old(idle_since: SystemTime, keep: Duration, now: SystemTime) -> bool {
    !keep.is_zero() && now.duration_since(idle_since).is_ok_and(|idle| idle > keep)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn image(id: &str, name: &str, containers: u32) -> StoredImage {
        StoredImage {
            id: id.into(),
            references: vec![name.into()],
            size_bytes: 1,
            created: None,
            containers,
        }
    }

    #[test]
    fn a_disk_that_was_short_must_recover_a_little_first() {
        let config = ImagesConfig { reserve_bytes: 100, reserve_percent: 0, ..Default::default() };
        let marks = Marks::of(&config, 10_000);
        assert_eq!((marks.reserve, marks.short, marks.enough), (100, 200, 225));
        assert!(!marks.is_short(200, false));
        assert!(marks.is_short(199, false));
        assert!(marks.is_short(224, true));
        assert!(!marks.is_short(225, true));
    }

    #[test]
    fn what_is_used_pinned_held_or_somebody_elses_stays() {
        let mut uses = Uses::default();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (id, when) in [("new", 50), ("old", 10), ("stands", 1), ("pinned", 1), ("held", 1)] {
            uses.brought(id, at(when));
        }
        uses.used("theirs", at(1));
        uses.used("old", at(20));
        let images = [
            image("new", "n:1", 0),
            image("old", "o:1", 0),
            image("stands", "s:1", 1),
            image("pinned", "wolfpack/p:1", 0),
            image("held", "h:1", 0),
            image("theirs", "t:1", 0),
        ];
        let held = |names: &[String]| names.contains(&"h:1".to_owned());
        let found = removable(&images, &uses, &ImagesConfig::default(), held);
        let ids: Vec<_> = found.iter().map(|(since, image)| (*since, image.id.as_str())).collect();
        assert_eq!(ids, [(at(20), "old"), (at(50), "new")]);
    }

    #[test]
    fn nothing_is_old_when_all_is_kept() {
        let hour = Duration::from_secs(3_600);
        let now = UNIX_EPOCH + 3 * hour;
        assert!(is_old(UNIX_EPOCH, hour, now));
        assert!(!is_old(now, hour, now));
        assert!(!is_old(UNIX_EPOCH, Duration::ZERO, now));
    }
}
