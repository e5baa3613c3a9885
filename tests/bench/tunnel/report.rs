//! Rows, medians and ratios.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::quantiles::quantile;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Which round; peers take turns within one.
    pub(super) round: usize,
    pub(super) peer: String,
    /// What was measured; see `unit`.
    pub(super) measure: String,
    pub(super) unit: &'static str,
    pub(super) value: f64,
}

/// A ratio of ours over rathole, of pairs of one round each.
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
    pub(super) configurations: BTreeMap<String, Value>,
    pub(super) ratios: BTreeMap<&'static str, Ratio>,
    pub(super) absolute: BTreeMap<&'static str, f64>,
    pub(super) medians: BTreeMap<String, f64>,
    pub(super) rows: Vec<Row>,
}

/// The ratio of two peers' values of a measure, round by round.
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
    let of = |peer: &str, round: usize| {
        rows.iter()
            .find(|row| row.peer == peer && row.round == round && row.measure == measure)
            .map(|row| row.value)
    };
    let rounds = rows.iter().map(|row| row.round).max()? + 1;
    let pairs: Vec<f64> = (0..rounds)
        .filter_map(|round| {
            let base = match base {
                Some(base) => of(base, round)?,
                None => 0.0,
            };
            Some((of(ours, round)? - base) / (of(theirs, round)? - base))
        })
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
        samples.entry(format!("{} {}", row.peer, row.measure)).or_default().push(row.value);
    }
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
}
