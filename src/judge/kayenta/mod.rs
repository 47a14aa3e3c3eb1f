//! Kayenta's rule, for people who come from there: Mann–Whitney on the points of each metric, weighted scores.
//!
//! It looks once, at the end, and takes points as independent; see `docs/judge.md` for what that costs. Two things differ from Kayenta:
//! too few points are inconclusive, and where the baseline's mean is zero the candidate's increase is infinite, not "not a number" (which
//! lets it pass).

mod clean;
mod points;
mod score;
mod whitney;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use clean::{NanStrategy, OutlierStrategy};
pub(super) use points::Points;
pub use score::{Classification, GroupScore, KayentaReport, MetricResult, judge_metrics};
pub use whitney::{Shift, shift};

/// Length of a point where a configuration does not say, in milliseconds: a minute, as in Kayenta.
pub const DEFAULT_STEP_MS: u64 = 60_000;

/// Which change is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is worse, as of errors and latencies.
    Increase,
    /// Less is worse, as of throughput.
    Decrease,
    /// Both.
    #[default]
    Either,
}

/// How large an effect is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectMeasure {
    /// The candidate's mean over the baseline's.
    #[default]
    MeanRatio,
    /// The probability that a point of the candidate is above one of the baseline (common language effect size).
    Cles,
}

/// How large an effect must be to count. For ratios of means 1 lets every effect count, for `cles` 0.5 does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EffectSize {
    /// What is measured.
    pub measure: EffectMeasure,
    /// An increase counts from here on.
    pub allowed_increase: f64,
    /// A decrease counts up to here.
    pub allowed_decrease: f64,
    /// An increase of a critical metric fails everything from here on.
    pub critical_increase: f64,
    /// A decrease of a critical metric fails everything up to here.
    pub critical_decrease: f64,
}

impl Default for EffectSize {
    fn default() -> Self {
        Self {
            measure: EffectMeasure::MeanRatio,
            allowed_increase: 1.0,
            allowed_decrease: 1.0,
            critical_increase: 1.0,
            critical_decrease: 1.0,
        }
    }
}

/// How one metric is judged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricConfig {
    /// The metric's name.
    pub name: String,
    /// In a watch: it is not measured of the traffic, but told by whoever watches ([`Monitor::measured`](crate::judge::Monitor::measured)). In a
    /// release's rule: one of the release's `metrics` with `compare`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Groups that it counts in; without one it is in a group of its own name.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Which change is bad.
    #[serde(default)]
    pub direction: Direction,
    /// Its failure fails everything.
    #[serde(default)]
    pub critical: bool,
    /// No data is a failure.
    #[serde(default)]
    pub must_have_data: bool,
    /// It is reported, and counts for nothing.
    #[serde(default)]
    pub muted: bool,
    /// What is done about missing points.
    #[serde(default)]
    pub nan: NanStrategy,
    /// What is done about outliers.
    #[serde(default)]
    pub outliers: OutlierStrategy,
    /// How large an effect must be.
    #[serde(default)]
    pub effect: EffectSize,
}

/// A whole judgement by Kayenta's rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KayentaConfig {
    /// The metrics.
    pub metrics: Vec<MetricConfig>,
    /// Weights of groups, in per cent; groups without one share what is left of 100.
    pub group_weights: BTreeMap<String, f64>,
    /// From this score on, 0 to 100, it passes.
    pub pass: f64,
    /// From this score on, 0 to 100, it is marginal: inconclusive.
    pub marginal: f64,
    /// Confidence of the interval of the shift, 0 to 1.
    pub confidence: f64,
    /// The interval must lie further from zero than this share of the shift itself.
    pub tolerance: f64,
    /// A metric with fewer points on either side is no reason for a pass. Kayenta's guide advises 50.
    pub min_points: usize,
    /// In a watch, a point is what happened in so many milliseconds.
    pub step_ms: u64,
}

impl Default for KayentaConfig {
    fn default() -> Self {
        Self {
            metrics: Vec::new(),
            group_weights: BTreeMap::new(),
            pass: 95.0,
            marginal: 75.0,
            confidence: 0.98,
            tolerance: 0.25,
            min_points: 50,
            step_ms: DEFAULT_STEP_MS,
        }
    }
}

/// The points of a metric; a missing one is `null`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Of the version that serves now.
    pub baseline: Vec<Option<f64>>,
    /// Of the version that is judged.
    pub candidate: Vec<Option<f64>>,
}

#[cfg(test)]
mod tests;
