//! By how much one sample lies above another (Mann and Whitney 1947; Hodges and Lehmann 1963), as R's `wilcox.test` and Kayenta do it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::normal::exceeded_with;

/// The shift of the candidate's points over the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// The Hodges–Lehmann estimate: the middle of all differences.
    pub estimate: f64,
    /// Lower end of its confidence interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The shift with an interval of this confidence (0 to 1), by the normal approximation with the corrections for ties and continuity. `None`
/// when a side has no points.
pub fn shift(baseline: &[f64], candidate: &[f64], confidence: f64) -> Option<Shift> {
    let least = |values: &[f64]| values.iter().copied().min_by(f64::total_cmp);
    let most = |values: &[f64]| values.iter().copied().max_by(f64::total_cmp);
    let low = least(candidate)? - most(baseline)?;
    let high = most(candidate)? - least(baseline)?;
    let quantile = exceeded_with((1.0 - confidence) / 2.0);
    let end = |quantile| root(low, high, |by| statistic(baseline, candidate, by, 0.5) - quantile);
    // Without the correction, as R. Where no difference is in the middle, the estimate is between the two next to it.
    let middle = |nudge: f64| root(low, high, |by| statistic(baseline, candidate, by, 0.0) + nudge);
    let estimate = f64::midpoint(middle(-1e-12), middle(1e-12));
    Some(Shift { estimate, low: end(quantile), high: end(-quantile) })
}

/// Where a falling function changes its sign.
fn root(low: f64, high: f64, value: impl Fn(f64) -> f64) -> f64 {
    let (mut left, mut right) = (low, high);
    if value(left) <= 0.0 {
        return left;
    }
    if value(right) >= 0.0 {
        return right;
    }
    // 50 halvings: beyond the digits of any measurement.
    for _ in 0..50 {
        let middle = f64::midpoint(left, right);
        if value(middle) > 0.0 { left = middle } else { right = middle }
    }
    // The noise of the halving is taken off: a shift of zero must not become the smallest number above it.
    let unit = (high - low) * 1e-9;
    (f64::midpoint(left, right) / unit).round() * unit
}

/// The standardised rank sum of the candidate's points after they are moved down by `by`.
fn statistic(baseline: &[f64], candidate: &[f64], by: f64, correction: f64) -> f64 {
    let moved = candidate.iter().map(|value| (value - by, true));
    let mut all: Vec<(f64, bool)> = moved.chain(baseline.iter().map(|value| (*value, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (m, n) = (candidate.len() as f64, baseline.len() as f64);
    let (mut ranks, mut ties, mut before) = (0.0, 0.0, 0.0);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let size = tied.len() as f64;
        let ours = tied.iter().filter(|(_, candidate)| *candidate).count() as f64;
        ranks += ours * (before + f64::midpoint(size, 1.0));
        ties += size.powi(3) - size;
        before += size;
    }
    let above = ranks - m * (m + 1.0) / 2.0 - m * n / 2.0;
    let variance = m * n / 12.0 * (m + n + 1.0 - ties / ((m + n) * (m + n - 1.0)));
    if variance <= 0.0 || above == 0.0 {
        return 0.0;
    }
    (above - correction * above.signum()) / variance.sqrt()
}
