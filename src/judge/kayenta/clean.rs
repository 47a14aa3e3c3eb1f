//! Points before they are compared: missing ones and outliers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done about missing points (Kayenta's `nanStrategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NanStrategy {
    /// They are left out: the metric was not measured then.
    #[default]
    Remove,
    /// They are zero: nothing happened then.
    Replace,
}

/// What is done about outliers (Kayenta's `outlierStrategy`).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OutlierStrategy {
    /// They are kept.
    #[default]
    Keep,
    /// Points further from the middle half than `factor` times its width are left out, but never more than the outer 5 % on a side.
    Remove {
        /// Kayenta's default is 3.
        factor: f64,
    },
}

/// Points without what is missing or not finite.
pub(super) fn points(raw: &[Option<f64>], strategy: NanStrategy) -> Vec<f64> {
    let finite = |point: &Option<f64>| point.filter(|value| value.is_finite());
    match strategy {
        NanStrategy::Remove => raw.iter().filter_map(finite).collect(),
        NanStrategy::Replace => raw.iter().map(|point| finite(point).unwrap_or(0.0)).collect(),
    }
}

/// Points without outliers.
pub(super) fn without_outliers(points: Vec<f64>, strategy: OutlierStrategy) -> Vec<f64> {
    let OutlierStrategy::Remove { factor } = strategy else { return points };
    let mut sorted = points.clone();
    sorted.sort_by(f64::total_cmp);
    let (Some(q1), Some(q3)) = (percentile(&sorted, 0.25), percentile(&sorted, 0.75)) else { return points };
    let reach = factor * (q3 - q1);
    let low = percentile(&sorted, 0.05).unwrap_or(q1).min(q1 - reach);
    let high = percentile(&sorted, 0.95).unwrap_or(q3).max(q3 + reach);
    points.into_iter().filter(|value| (low..=high).contains(value)).collect()
}

/// A percentile between the points of a sorted list (R's type 7).
fn percentile(sorted: &[f64], p: f64) -> Option<f64> {
    let at = p * (sorted.len().checked_sub(1)?) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}
