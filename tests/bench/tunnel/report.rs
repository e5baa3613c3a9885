//! Rows, medians and ratios.
//!
//! What was not measured is a row with an `error` and no `value`; medians and
//! ratios are of what was.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::quantiles::quantile;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Which round; peers take turns within one.
    pub(super) round: usize,
    /// Which of its turns in the round, for what is measured more than once there.
    pub(super) turn: usize,
    pub(super) peer: String,
    /// What was measured; see `unit`.
    pub(super) measure: String,
    pub(super) unit: &'static str,
    pub(super) value: Option<f64>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// A ratio of ours over rathole, of pairs of one round and turn each.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Ratio {
    pub(super) median: f64,
    /// The interval that holds the true median with at least 95 %, by order
    /// statistics.
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) pairs: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(super) machine: Value,
    /// Rounds that were finished.
    pub(super) rounds: usize,
    /// Rows without a value.
    pub(super) failed: usize,
    /// Peers that could not be started, and why.
    pub(super) absent: BTreeMap<String, String>,
    pub(super) configurations: BTreeMap<String, Value>,
    /// Medians of `intervals`.
    pub(super) ratios: BTreeMap<&'static str, f64>,
    pub(super) intervals: BTreeMap<&'static str, Ratio>,
    pub(super) absolute: BTreeMap<&'static str, f64>,
    pub(super) medians: BTreeMap<String, f64>,
    pub(super) rows: Vec<Row>,
}

/// The ratio of two peers' values of a measure, turn by turn.
pub(super) fn ratio(rows: &[Row], measure: &str, ours: &str, theirs: &str) -> Option<Ratio> {
    of_pairs(rows, measure, ours, theirs, None)
}

/// The ratio of what two peers add to a measure of a third.
pub(super) fn added(rows: &[Row], measure: &str, ours: &str, theirs: &str) -> Option<Ratio> {
    of_pairs(rows, measure, ours, theirs, Some("direct"))
}

fn of_pairs(
    rows: &[Row],
    measure: &str,
    ours: &str,
    theirs: &str,
    base: Option<&str>,
) -> Option<Ratio> {
    let of = |peer: &str, at: (usize, usize)| {
        rows.iter()
            .find(|row| row.peer == peer && (row.round, row.turn) == at && row.measure == measure)
            .and_then(|row| row.value)
    };
    let turns: BTreeSet<_> = rows.iter().map(|row| (row.round, row.turn)).collect();
    let pairs: Vec<f64> = turns
        .into_iter()
        .filter_map(|at| {
            let base = match base {
                Some(base) => of(base, at)?,
                None => 0.0,
            };
            Some((of(ours, at)? - base) / (of(theirs, at)? - base))
        })
        // Nothing was added, or less than nothing: no ratio of such rows means anything.
        .filter(|pair| pair.is_finite() && *pair > 0.0)
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let (low, high) = interval(&pairs);
    Some(Ratio { median: quantile(&pairs, 0.5), low, high, pairs: pairs.len() })
}

/// The distribution-free interval of the median: the widest pair of order
/// statistics whose tails together hold less than 5 % of a fair coin's outcomes.
fn interval(sample: &[f64]) -> (f64, f64) {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let (mut tail, mut term, mut cut) = (0.0, 0.5_f64.powf(count as f64), 0);
    for below in 0..count / 2 {
        tail += term;
        if 2.0 * tail > 0.05 {
            break;
        }
        cut = below + 1;
        term *= (count - below) as f64 / (below + 1) as f64;
    }
    let at = cut.saturating_sub(1);
    (sorted[at], sorted[count - 1 - at])
}

/// The median of each peer's measure.
pub(super) fn medians(rows: &[Row]) -> BTreeMap<String, f64> {
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in rows {
        let sample = samples.entry(format!("{} {}", row.peer, row.measure)).or_default();
        sample.extend(row.value);
    }
    samples.retain(|_, sample| !sample.is_empty());
    samples.into_iter().map(|(name, sample)| (name, quantile(&sample, 0.5))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_nine_leaves_one_out_on_each_side() {
        let sample: Vec<f64> = (1..=9).map(f64::from).collect();
        assert_eq!(interval(&sample), (2.0, 8.0));
        assert_eq!(interval(&[1.0, 2.0, 3.0]), (1.0, 3.0));
    }

    fn row(round: usize, peer: &str, value: Option<f64>) -> Row {
        let (peer, measure) = (peer.to_owned(), "m".to_owned());
        Row { round, turn: 0, peer, measure, unit: "1/s", value, error: None }
    }

    #[test]
    fn a_row_without_a_value_takes_its_pair_along_and_nothing_else() {
        let mut rows = vec![
            row(0, "a", Some(4.0)),
            row(0, "b", Some(2.0)),
            row(1, "a", None),
            row(1, "b", Some(1.0)),
            row(2, "a", Some(6.0)),
            row(2, "b", Some(3.0)),
        ];
        let found = ratio(&rows, "m", "a", "b").unwrap();
        assert_eq!((found.pairs, found.median), (2, 2.0));
        assert_eq!(medians(&rows), [("a m".into(), 4.0), ("b m".into(), 2.0)].into());
        rows.retain(|row| row.value.is_none());
        assert!(ratio(&rows, "m", "a", "b").is_none());
        assert!(medians(&rows).is_empty());
    }

    #[test]
    fn turns_of_a_round_are_pairs_of_their_own() {
        let mut rows = Vec::new();
        for (turn, ours) in [(0, 2.0), (1, 3.0), (2, 8.0)] {
            rows.push(Row { turn, ..row(0, "a", Some(ours)) });
            rows.push(Row { turn, ..row(0, "b", Some(1.0)) });
        }
        let found = ratio(&rows, "m", "a", "b").unwrap();
        assert_eq!((found.pairs, found.median, found.high), (3, 3.0, 8.0));
    }

    #[test]
    fn what_is_added_is_over_the_third() {
        let rows = [row(0, "direct", Some(1.0)), row(0, "a", Some(4.0)), row(0, "b", Some(3.0))];
        assert_eq!(added(&rows, "m", "a", "b").unwrap().median, 1.5);
    }
}
