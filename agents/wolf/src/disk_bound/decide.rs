//! Which sandboxes are ended for what they wrote. Pure.

/// The tolerance: a part of the bound, within limits. The watch in a sandbox
/// stops its containers at the bound itself; what it needs for that is no
/// reason to end the sandbox.
const TOLERANCE: u64 = 4;
const LEAST: u64 = 256 << 20;
const MOST: u64 = 4 << 30;
/// Less than this is not worth ending anybody for, in bytes.
const WORTH: u64 = 64 << 20;

/// What a sandbox uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// Bytes it may use; 0 for no bound.
    pub(super) bound: u64,
    /// Bytes it uses: in its volumes or beside them, whichever is more.
    pub(super) most: u64,
    /// Whether it has files that cannot be counted: too deep, or unreadable.
    pub(super) hidden: bool,
}

/// Why a sandbox is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It is far beyond its bound.
    Bound,
    /// The disk is below its reserve, and it has the most.
    Space,
}

impl Rule {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Space => "space",
        }
    }
}

/// Where a sandbox with this bound is ended; `u64::MAX` without one.
pub(super) fn limit(bound: u64) -> u64 {
    if bound == 0 { u64::MAX } else { bound.saturating_add((bound / TOLERANCE).clamp(LEAST, MOST)) }
}

/// Which of them are ended, by their place in the list, and why.
///
/// Everybody beyond the limit of its bound is. When the disk is `full`, below
/// its reserve, and nobody's data is on its way out (`settling`), one more is:
/// the one that is furthest beyond its bound; when nobody is, of those whose
/// files could not all be counted or that have no bound, the one with the most.
pub(super) fn decide(uses: &[Use], full: bool, settling: bool) -> Vec<(usize, Rule)> {
    let beyond = uses.iter().enumerate().filter(|(_, it)| it.most > limit(it.bound));
    let ended: Vec<_> = beyond.map(|(at, _)| (at, Rule::Bound)).collect();
    if !full || settling || !ended.is_empty() {
        return ended;
    }
    let rank = |it: &Use| {
        if it.bound > 0 && it.most > it.bound {
            Some((1, it.most - it.bound))
        } else if (it.bound == 0 || it.hidden) && it.most > WORTH {
            Some((0, it.most))
        } else {
            None
        }
    };
    let ranked = uses.iter().enumerate().filter_map(|(at, it)| Some((rank(it)?, at)));
    ranked.max().map(|(_, at)| (at, Rule::Space)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const G: u64 = 1 << 30;

    fn of(bound: u64, most: u64) -> Use {
        Use { bound, most, hidden: false }
    }

    #[test]
    fn a_tolerance_is_a_quarter_within_limits() {
        assert_eq!(limit(0), u64::MAX);
        assert_eq!(limit(1), 1 + LEAST);
        assert_eq!(limit(8 * G), 10 * G);
        assert_eq!(limit(100 * G), 104 * G);
        assert_eq!(limit(u64::MAX), u64::MAX);
    }

    #[test]
    fn the_largest_offender_goes_first_and_those_without_a_bound_after_them() {
        let uses = [of(4 * G, 3 * G), of(8 * G, 9 * G), of(2 * G, 2 * G + G / 4), of(0, 50 * G)];
        assert_eq!(decide(&uses, false, false), []);
        assert_eq!(decide(&uses, true, true), [], "what was ended is on its way out");
        assert_eq!(decide(&uses, true, false), [(1, Rule::Space)]);
        assert_eq!(decide(&uses[2..], true, false), [(0, Rule::Space)]);
        assert_eq!(decide(&uses[3..], true, false), [(0, Rule::Space)]);
        assert_eq!(decide(&uses[..1], true, false), [], "it keeps to its bound");
        assert_eq!(decide(&[of(0, WORTH)], true, false), [], "it is not worth it");
        let hidden = Use { hidden: true, ..of(4 * G, 3 * G) };
        assert_eq!(decide(&[hidden], true, false), [(0, Rule::Space)]);
        assert_eq!(decide(&[hidden], false, false), []);
        let far = [of(8 * G, 9 * G), of(8 * G, 11 * G)];
        assert_eq!(decide(&far, true, false), [(1, Rule::Bound)], "that makes room already");
    }

    fn uses() -> impl Strategy<Value = Vec<Use>> {
        let bound = prop_oneof![Just(0), 1..40 * G];
        let one = (bound, 0..80 * G, any::<bool>());
        let one = one.prop_map(|(bound, most, hidden)| Use { bound, most, hidden });
        prop::collection::vec(one, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None, cases: 2_000, ..ProptestConfig::default()
        })]

        #[test]
        fn who_keeps_to_its_bound_is_never_ended(uses in uses(), full: bool, settling: bool) {
            for (at, _) in decide(&uses, full, settling) {
                let it = uses[at];
                prop_assert!(it.most > it.bound || it.hidden, "{it:?}");
            }
        }

        #[test]
        fn who_is_far_beyond_is_always_ended(uses in uses(), full: bool, settling: bool) {
            let ended = decide(&uses, full, settling);
            for (at, it) in uses.iter().enumerate() {
                let far = it.bound > 0 && it.most > limit(it.bound);
                prop_assert_eq!(ended.contains(&(at, Rule::Bound)), far);
            }
        }

        #[test]
        fn a_full_disk_always_ends_one_of_those_to_blame_and_the_worst_of_them(
            uses in uses(), settling: bool,
        ) {
            let ended = decide(&uses, true, settling);
            let over = |it: &Use| it.bound > 0 && it.most > it.bound;
            if !settling && uses.iter().any(over) {
                prop_assert!(!ended.is_empty());
            }
            let for_space: Vec<_> = ended.iter().filter(|(_, rule)| *rule == Rule::Space).collect();
            prop_assert!(for_space.len() <= 1);
            prop_assert!(for_space.is_empty() || !settling);
            if let Some((at, _)) = for_space.first() {
                let it = uses[*at];
                for other in uses.iter().filter(|other| over(other)) {
                    prop_assert!(over(&it) && it.most - it.bound >= other.most - other.bound);
                }
            }
        }

        #[test]
        fn with_room_only_the_bound_counts(uses in uses(), settling: bool) {
            let rules = decide(&uses, false, settling);
            prop_assert!(rules.iter().all(|(_, rule)| *rule == Rule::Bound));
        }
    }
}
