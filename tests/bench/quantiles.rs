//! Order statistics of small samples.

/// The value below which a share `q` (0 to 1) of the sample lies, by nearest
/// rank; NaN for an empty sample.
pub(crate) fn quantile(sample: &[f64], q: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil().max(1.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank of a small sample"
    )]
    let at = rank as usize - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
