//! Classes of metrics, and the score that they make together.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::verdict::Verdict;
use super::clean::{points, without_outliers};
use super::whitney::{Shift, shift};
use super::{Direction, EffectMeasure, KayentaConfig, MetricConfig, Series};

/// What a metric shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Classification {
    /// No bad change is shown.
    Pass,
    /// The candidate is higher, and that is bad.
    High,
    /// The candidate is lower, and that is bad.
    Low,
    /// A side has no points; it does not count.
    Nodata,
    /// A side has no points, and it must have some.
    NodataFail,
}

/// How a metric was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricResult {
    /// The metric.
    pub name: String,
    /// What it shows.
    pub classification: Classification,
    /// Whether it failed everything.
    pub critical: bool,
    /// Whether it counts for nothing.
    pub muted: bool,
    /// Points of baseline and candidate that were compared.
    pub points: [usize; 2],
    /// The shift, where there was one to measure.
    #[serde(default)]
    pub shift: Option<Shift>,
    /// The effect's size, in the configured measure; absent without data, or when it is infinite.
    #[serde(default)]
    pub effect: Option<f64>,
    /// Why, in a sentence with numbers.
    pub reason: String,
}

/// The score of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupScore {
    /// The group.
    pub name: String,
    /// Share of its metrics that passed, 0 to 100; absent when none had data.
    #[serde(default)]
    pub score: Option<f64>,
    /// What it weighs, in per cent.
    pub weight: f64,
}

/// What Kayenta's rule says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KayentaReport {
    /// From the score: pass, fail, or inconclusive where Kayenta says marginal; inconclusive too without enough points.
    pub verdict: Verdict,
    /// 0 to 100.
    pub score: f64,
    /// Why, in a sentence.
    pub reason: String,
    /// Group by group.
    pub groups: Vec<GroupScore>,
    /// Metric by metric.
    pub metrics: Vec<MetricResult>,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The probability that a point of the candidate is above one of the baseline; ties count half.
fn cles(baseline: &[f64], candidate: &[f64]) -> f64 {
    let mut sorted = baseline.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = |value: f64| {
        let less = sorted.partition_point(|other| *other < value);
        let not_more = sorted.partition_point(|other| *other <= value);
        (less + not_more) as f64 / 2.0
    };
    candidate.iter().map(|value| below(*value)).sum::<f64>() / (baseline.len() * candidate.len()) as f64
}

fn effect(measure: EffectMeasure, baseline: &[f64], candidate: &[f64]) -> f64 {
    match measure {
        EffectMeasure::Cles => cles(baseline, candidate),
        EffectMeasure::MeanRatio => match (mean(candidate), mean(baseline)) {
            (0.0, 0.0) => 1.0,
            (theirs, 0.0) => theirs.signum() * f64::INFINITY,
            (theirs, ours) => theirs / ours,
        },
    }
}

fn classify(config: &KayentaConfig, metric: &MetricConfig, series: Option<&Series>) -> MetricResult {
    let of = |raw: Option<&Vec<Option<f64>>>| {
        without_outliers(points(raw.map_or(&[], Vec::as_slice), metric.nan), metric.outliers)
    };
    let (raw_baseline, raw_candidate) = (series.map(|series| &series.baseline), series.map(|series| &series.candidate));
    let (baseline, candidate) = (of(raw_baseline), of(raw_candidate));
    // What was put in the place of missing points was not measured.
    let measured = |raw: Option<&Vec<Option<f64>>>, kept: usize| {
        kept.min(raw.map_or(0, |raw| raw.iter().flatten().filter(|value| value.is_finite()).count()))
    };
    let counts = [measured(raw_baseline, baseline.len()), measured(raw_candidate, candidate.len())];
    let result = |classification, critical, shift, effect: Option<f64>, reason| MetricResult {
        name: metric.name.clone(),
        classification,
        critical,
        muted: metric.muted,
        points: counts,
        shift,
        effect: effect.filter(|effect| effect.is_finite()),
        reason,
    };
    let Some(shift) = shift(&baseline, &candidate, config.confidence) else {
        let fails = metric.must_have_data;
        let classification = if fails { Classification::NodataFail } else { Classification::Nodata };
        let reason = format!("{} has {} and {} points of baseline and candidate", metric.name, counts[0], counts[1]);
        return result(classification, fails && metric.critical && !metric.muted, None, None, reason);
    };
    let effect = effect(metric.effect.measure, &baseline, &candidate);
    let size = &metric.effect;
    let bound = config.tolerance * shift.estimate.abs();
    let high = metric.direction != Direction::Decrease && shift.low > bound && effect >= size.allowed_increase;
    let low = metric.direction != Direction::Increase && shift.high < -bound && effect <= size.allowed_decrease;
    let (classification, severe, how) = match (high, low) {
        (true, _) => (Classification::High, effect >= size.critical_increase, "higher"),
        (_, true) => (Classification::Low, effect <= size.critical_decrease, "lower"),
        (false, false) => (Classification::Pass, false, "not shown to be worse"),
    };
    let reason = format!(
        "{} is {how}: shifted by {:.4} ({:.4} to {:.4}), effect {effect:.3}, {} and {} points",
        metric.name, shift.estimate, shift.low, shift.high, counts[0], counts[1]
    );
    result(classification, severe && metric.critical && !metric.muted, Some(shift), Some(effect), reason)
}

/// Judges metrics by Kayenta's rule.
pub fn judge_metrics(config: &KayentaConfig, series: &BTreeMap<String, Series>) -> KayentaReport {
    let metrics: Vec<MetricResult> =
        config.metrics.iter().map(|metric| classify(config, metric, series.get(&metric.name))).collect();
    let groups = groups(config, &metrics);
    // So few points tell nothing, neither good nor bad; that there must be some and are none does.
    let is_few = |metric: &MetricResult| {
        metric.classification != Classification::NodataFail && metric.points.iter().any(|n| *n < config.min_points)
    };
    let critical = metrics.iter().find(|metric| metric.critical && !is_few(metric));
    let sum = groups.iter().filter_map(|group| Some(group.score? * group.weight / 100.0)).sum::<f64>();
    let score = if critical.is_some() { 0.0 } else { sum };
    let scored = groups.iter().any(|group| group.score.is_some());
    let few = metrics.iter().find(|metric| !metric.muted && is_few(metric));
    let thresholds = format!("pass from {}, marginal from {}", config.pass, config.marginal);
    let (verdict, reason) = match (critical, few) {
        (Some(metric), _) => (Verdict::Fail, format!("a critical metric failed: {}", metric.reason)),
        _ if !scored => (Verdict::Inconclusive, "no metric has data".to_owned()),
        (None, Some(metric)) => {
            let [baseline, candidate] = metric.points;
            let reason = format!(
                "{} has {baseline} and {candidate} points of baseline and candidate, a verdict needs {}",
                metric.name, config.min_points
            );
            (Verdict::Inconclusive, reason)
        }
        (None, None) if score < config.marginal => {
            (Verdict::Fail, format!("score {score:.0} ({thresholds}); {}", failed(&metrics)))
        }
        (None, None) if score < config.pass => {
            (Verdict::Inconclusive, format!("score {score:.0} is marginal ({thresholds}); {}", failed(&metrics)))
        }
        (None, None) => (Verdict::Pass, format!("score {score:.0} ({thresholds})")),
    };
    KayentaReport { verdict, score, reason, groups, metrics }
}

fn failed(metrics: &[MetricResult]) -> String {
    let bad = |metric: &&MetricResult| {
        let bad = [Classification::High, Classification::Low, Classification::NodataFail];
        !metric.muted && bad.contains(&metric.classification)
    };
    let reasons: Vec<&str> = metrics.iter().filter(bad).map(|metric| metric.reason.as_str()).collect();
    if reasons.is_empty() { "the weights of the groups do not add up to 100".to_owned() } else { reasons.join("; ") }
}

fn groups(config: &KayentaConfig, results: &[MetricResult]) -> Vec<GroupScore> {
    let mut passed: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (metric, result) in config.metrics.iter().zip(results).filter(|(metric, _)| !metric.muted) {
        let own = std::slice::from_ref(&metric.name);
        let names = if metric.groups.is_empty() { own } else { &metric.groups };
        for name in names {
            let (good, all) = passed.entry(name).or_default();
            let counts = result.classification != Classification::Nodata;
            *all += usize::from(counts);
            *good += usize::from(result.classification == Classification::Pass);
        }
    }
    let given: f64 = config.group_weights.values().sum();
    let without = passed.keys().filter(|name| !config.group_weights.contains_key(**name)).count();
    let rest = if without > 0 { (100.0 - given).max(0.0) / without as f64 } else { 0.0 };
    let score = |(name, (good, all)): (&str, (usize, usize))| GroupScore {
        name: name.to_owned(),
        score: (all > 0).then(|| 100.0 * good as f64 / all as f64),
        weight: config.group_weights.get(name).copied().unwrap_or(rest),
    };
    passed.into_iter().map(score).collect()
}
