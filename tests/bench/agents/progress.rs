//! How agents came back, as the broker counted them.

use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// One look at how many are attached: it was so at some time between the two.
pub(super) struct Look {
    pub(super) asked: Instant,
    pub(super) answered: Instant,
    pub(super) attached: f64,
}

/// Seconds from `start` until so many were seen; to the last look if never.
pub(super) fn until(looks: &[Look], attached: f64, start: Instant) -> f64 {
    let seen = looks.iter().find(|look| look.attached >= attached).or_else(|| looks.last());
    seen.map_or(0.0, |look| look.answered.duration_since(start).as_secs_f64())
}

/// The most that came in a second, from one look to the first one that is a second
/// later: never more than there were.
pub(super) fn fastest(looks: &[Look]) -> f64 {
    let rate = |(at, from): (usize, &Look)| {
        let to = looks[at..].iter().find(|to| to.answered - from.asked >= SECOND)?;
        Some((to.attached - from.attached) / (to.answered - from.asked).as_secs_f64())
    };
    looks.iter().enumerate().filter_map(rate).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_second_and_the_times_are_those_of_the_looks() {
        let start = Instant::now();
        let look = |(at, attached): (u64, u32)| Look {
            asked: start + Duration::from_millis(at),
            answered: start + Duration::from_millis(at + 100),
            attached: f64::from(attached),
        };
        let looks: Vec<Look> = [(0, 0), (900, 300), (2400, 1500), (4300, 1600)].map(look).into();
        // From 0.9 s to 2.5 s.
        assert_eq!(fastest(&looks), 750.0);
        assert_eq!(until(&looks, 300.0, start), 1.0);
        assert_eq!(until(&looks, 1600.0, start), 4.4);
        assert_eq!(fastest(&looks[..1]), 0.0);
    }
}
