//! By how much a sample grows in an hour.

use serde::Serialize;

use super::held::Held;

/// The growth of what a process holds, an hour.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Slopes {
    pub(super) rss_kib: f64,
    pub(super) fds: f64,
    pub(super) tasks: f64,
}

impl Slopes {
    /// Of looks at seconds. NaN, which is written as null, of fewer than two.
    pub(super) fn of(looks: &[(f64, Held)]) -> Self {
        let each = |pick: fn(Held) -> f64| {
            let points: Vec<(f64, f64)> =
                looks.iter().map(|(seconds, held)| (seconds / 3600.0, pick(*held))).collect();
            least_squares(&points)
        };
        Self {
            rss_kib: each(|held| held.rss_kib),
            fds: each(|held| held.fds as f64),
            tasks: each(|held| held.tasks as f64),
        }
    }
}

/// The slope of the line that is nearest to all points.
fn least_squares(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let up: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let along: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    up / along
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope_and_noise_around_a_level_none() {
        let line: Vec<(f64, f64)> = (0..9).map(f64::from).map(|x| (x, 3.0 * x - 7.0)).collect();
        assert!((least_squares(&line) - 3.0).abs() < 1e-9);
        let level = [(0.0, 1.0), (1.0, 3.0), (2.0, 3.0), (3.0, 1.0)];
        assert!(least_squares(&level).abs() < 1e-9);
        assert!(least_squares(&[]).is_nan());
    }

    #[test]
    fn slopes_are_of_an_hour() {
        let held = |fds| Held { rss_kib: 8.0, fds, tasks: 5 };
        let slopes = Slopes::of(&[(0.0, held(10)), (1800.0, held(11))]);
        assert!((slopes.fds - 2.0).abs() < 1e-9, "{slopes:?}");
        assert!(slopes.rss_kib.abs() < 1e-9 && slopes.tasks.abs() < 1e-9, "{slopes:?}");
    }
}
