//! What is judged, and how strictly: the settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::kayenta::KayentaConfig;
use crate::release::Format;

/// Probability of a false alarm over the whole watch where a rule names none.
pub const DEFAULT_ALPHA: f64 = 0.01;
/// How long is watched where a rule does not say, in milliseconds.
pub const DEFAULT_WINDOW_MS: u64 = 600_000;
/// Requests that each version must have had for a pass where a rule does not say.
pub const DEFAULT_MIN_REQUESTS: u64 = 100;
/// Trouble within so many milliseconds counts once where a check does not say. Longer than a client's retries, short beside a watch.
pub const DEFAULT_BLOCK_MS: u64 = 10_000;
/// Evidence of 1 to the inverse of this at the end of the watch is too much for a pass, where a rule does not say.
pub const DEFAULT_DOUBT: f64 = 0.1;

/// All checks of a watch. They share `alpha` in equal parts, so that it holds for all of them together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Format of this structure.
    pub format: Format<1>,
    /// Largest probability that a candidate which is not worse than tolerated is ever failed, however often one looks; 0 to 1.
    pub alpha: f64,
    /// How long is watched, in milliseconds.
    pub window_ms: u64,
    /// Requests that each version must have had for a pass.
    pub min_requests: u64,
    /// At the end of the watch, evidence of harm of 1 to the inverse of this is no alarm but no pass either: inconclusive. More than 0, at
    /// most 1.
    pub doubt: f64,
    /// What is held.
    pub checks: Vec<Check>,
}

impl Default for Rule {
    /// The error rate and the p99 of the candidate are no higher than the baseline's.
    fn default() -> Self {
        Self {
            format: Format,
            alpha: DEFAULT_ALPHA,
            window_ms: DEFAULT_WINDOW_MS,
            min_requests: DEFAULT_MIN_REQUESTS,
            doubt: DEFAULT_DOUBT,
            checks: vec![Check::ErrorRatio(ErrorRatio::default()), Check::LatencyRatio(LatencyRatio::default())],
        }
    }
}

/// One thing that is held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The candidate fails no more often than the baseline.
    ErrorRatio(ErrorRatio),
    /// The candidate is no slower than the baseline.
    LatencyRatio(LatencyRatio),
    /// The candidate fails at most so often, whatever the baseline does.
    ErrorLimit(ErrorLimit),
    /// The candidate answers at least so large a share; the same as an error limit, said the other way.
    AvailabilityLimit(AvailabilityLimit),
    /// A latency quantile of the candidate is at most so long.
    LatencyLimit(LatencyLimit),
    /// The candidate answers at least so many requests per second. It can only fail where so many are asked.
    ThroughputLimit(ThroughputLimit),
    /// Kayenta's rule on points of both versions' traffic: looks once, at the end, and takes no part in `alpha`. Its metrics are `error_rate`,
    /// `throughput`, quantiles of the latency such as `latency_p99`, and what others measure (`own`).
    Kayenta(KayentaConfig),
}

impl Check {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ErrorRatio(_) => "error_ratio",
            Self::LatencyRatio(_) => "latency_ratio",
            Self::ErrorLimit(_) => "error_limit",
            Self::AvailabilityLimit(_) => "availability_limit",
            Self::LatencyLimit(_) => "latency_limit",
            Self::ThroughputLimit(_) => "throughput_limit",
            Self::Kayenta(_) => "kayenta",
        }
    }

    /// Whether it needs a baseline beside the candidate.
    pub fn compares(&self) -> bool {
        matches!(self, Self::ErrorRatio(_) | Self::LatencyRatio(_) | Self::Kayenta(_))
    }

    /// Whether it looks once, at the end, and has no evidence before.
    pub fn looks_once(&self) -> bool {
        matches!(self, Self::Kayenta(_))
    }
}

/// The candidate's error rate beside the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorRatio {
    /// How many times the baseline's rate the candidate's may be; 1: not higher.
    pub tolerated: f64,
    /// Below this share of errors (0 to 1), over the whole watch, the candidate is not failed, however much better the baseline is.
    pub ignore_below: f64,
    /// Passes before the end of the watch, once there is as strong evidence that the candidate's rate is below so many times the baseline's;
    /// absent: only at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven_below: Option<f64>,
    /// Errors within so many milliseconds count once, so that one client's burst is one event.
    pub block_ms: u64,
}

impl Default for ErrorRatio {
    fn default() -> Self {
        Self { tolerated: 1.0, ignore_below: 0.0, proven_below: None, block_ms: DEFAULT_BLOCK_MS }
    }
}

/// A latency quantile of the candidate beside the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LatencyRatio {
    /// Which quantile, 0 to 1; 0.99 is the p99.
    pub quantile: f64,
    /// How many times the baseline's quantile the candidate's may be; 1: not longer.
    pub tolerated: f64,
    /// Passes before the end of the watch, once there is as strong evidence that the quantile is below so many times the baseline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven_below: Option<f64>,
    /// Slow answers within so many milliseconds count once.
    pub block_ms: u64,
    /// How much of a block's excess the next block may inherit, 0 to 1: for slowness that lasts. 0.2 covers an autocorrelation of 0.8 from
    /// one second to the next with blocks of 10 s.
    pub carry: f64,
}

impl Default for LatencyRatio {
    fn default() -> Self {
        Self { quantile: 0.99, tolerated: 1.0, proven_below: None, block_ms: DEFAULT_BLOCK_MS, carry: 0.2 }
    }
}

/// The candidate's error rate against a fixed limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorLimit {
    /// Largest share of errors, 0 to 1.
    pub at_most: f64,
    /// The share is taken over blocks of so many milliseconds.
    #[serde(default = "block_ms")]
    pub block_ms: u64,
}

/// The share of answered requests against a fixed limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AvailabilityLimit {
    /// Smallest share of requests without error, 0 to 1.
    pub at_least: f64,
    /// The share is taken over blocks of so many milliseconds.
    #[serde(default = "block_ms")]
    pub block_ms: u64,
}

/// A latency quantile against a fixed limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LatencyLimit {
    /// Which quantile, 0 to 1.
    #[serde(default = "p99")]
    pub quantile: f64,
    /// Its longest value, in milliseconds.
    pub at_most_ms: f64,
    /// The share of slow answers is taken over blocks of so many milliseconds.
    #[serde(default = "block_ms")]
    pub block_ms: u64,
}

/// Answers per second against a fixed limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThroughputLimit {
    /// Fewest requests answered without error per second.
    pub at_least_rps: f64,
    /// The rate is taken over blocks of so many milliseconds.
    #[serde(default = "block_ms")]
    pub block_ms: u64,
}

fn block_ms() -> u64 {
    DEFAULT_BLOCK_MS
}

fn p99() -> f64 {
    0.99
}

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RuleError {
    /// Nothing is held.
    #[error("a rule without checks would pass everything")]
    NoChecks,
    /// A number is outside of what makes sense.
    #[error("{place} is {value}, allowed is {allowed}")]
    Number {
        /// Which setting.
        place: String,
        /// What it is.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A name says nothing.
    #[error("{place} has {name}, allowed is {allowed}")]
    Name {
        /// Which setting.
        place: String,
        /// What it says.
        name: String,
        /// What it may say.
        allowed: &'static str,
    },
}

const INSIDE: &str = "more than 0 and less than 1";
const RATIO: &str = "0.01 to 1000";

impl Rule {
    /// The metrics that are not measured of the traffic but told by whoever watches, each with the points that its check needs.
    pub fn own_metrics(&self) -> impl Iterator<Item = (&str, usize)> {
        let kayenta =
            self.checks.iter().filter_map(|check| if let Check::Kayenta(config) = check { Some(config) } else { None });
        kayenta.flat_map(|config| {
            let own = config.metrics.iter().filter(|metric| metric.own);
            own.map(|metric| (metric.name.as_str(), config.min_points))
        })
    }

    /// Refuses a rule that could judge nothing.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn validate(&self) -> Result<(), RuleError> {
        if self.checks.is_empty() {
            return Err(RuleError::NoChecks);
        }
        inside("alpha", self.alpha)?;
        holds("window_ms", self.window_ms as f64, self.window_ms > 0, "more than 0")?;
        holds("doubt", self.doubt, self.doubt > 0.0 && self.doubt <= 1.0, "more than 0 and at most 1")?;
        self.checks.iter().try_for_each(|check| check.validate(self.window_ms))
    }

    /// The same for a short watch: no block is longer than `most_ms`.
    #[must_use]
    pub fn with_blocks_within(mut self, most_ms: u64) -> Self {
        for check in &mut self.checks {
            let block_ms = match check {
                Check::ErrorRatio(check) => &mut check.block_ms,
                Check::LatencyRatio(check) => &mut check.block_ms,
                Check::ErrorLimit(check) => &mut check.block_ms,
                Check::AvailabilityLimit(check) => &mut check.block_ms,
                Check::LatencyLimit(check) => &mut check.block_ms,
                Check::ThroughputLimit(check) => &mut check.block_ms,
                Check::Kayenta(check) => &mut check.step_ms,
            };
            *block_ms = (*block_ms).min(most_ms);
        }
        self
    }

    /// Evidence that a check needs for an alarm, as `1 : this`.
    pub fn needed(&self) -> f64 {
        let shared = self.checks.iter().filter(|check| !check.looks_once()).count();
        shared.max(1) as f64 / self.alpha
    }
}

impl Check {
    fn validate(&self, window_ms: u64) -> Result<(), RuleError> {
        let at = |field: &str| format!("{}.{field}", self.name());
        let ratio = |field, value: f64| holds(&at(field), value, (0.01..=1000.0).contains(&value), RATIO);
        match self {
            Self::ErrorRatio(check) => {
                ratio("tolerated", check.tolerated)?;
                let below = check.ignore_below;
                holds(&at("ignore_below"), below, (0.0..=1.0).contains(&below), "0 to 1")?;
                check.proven_below.map_or(Ok(()), |proven| ratio("proven_below", proven))
            }
            Self::LatencyRatio(check) => {
                inside(&at("quantile"), check.quantile)?;
                ratio("tolerated", check.tolerated)?;
                holds(&at("carry"), check.carry, (0.0..=1.0).contains(&check.carry), "0 to 1")?;
                check.proven_below.map_or(Ok(()), |proven| ratio("proven_below", proven))
            }
            Self::ErrorLimit(check) => inside(&at("at_most"), check.at_most),
            Self::AvailabilityLimit(check) => inside(&at("at_least"), check.at_least),
            Self::LatencyLimit(check) => {
                inside(&at("quantile"), check.quantile)?;
                let ms = check.at_most_ms;
                holds(&at("at_most_ms"), ms, ms > 0.0 && ms.is_finite(), "more than 0")
            }
            Self::ThroughputLimit(check) => {
                let rps = check.at_least_rps;
                holds(&at("at_least_rps"), rps, rps > 0.0 && rps.is_finite(), "more than 0")
            }
            Self::Kayenta(check) => check.validate(window_ms),
        }
    }
}

pub(super) fn holds(place: &str, value: f64, holds: bool, allowed: &'static str) -> Result<(), RuleError> {
    if holds { Ok(()) } else { Err(RuleError::Number { place: place.to_owned(), value, allowed }) }
}

pub(super) fn inside(place: &str, value: f64) -> Result<(), RuleError> {
    holds(place, value, value > 0.0 && value < 1.0, INSIDE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_is_short_to_write() {
        let json = json!({"window_ms": 3_600_000, "checks": [
            {"error_ratio": {"tolerated": 1.5}}, {"latency_limit": {"at_most_ms": 250}}, {"throughput_limit": {"at_least_rps": 5}}
        ]});
        let rule: Rule = serde_json::from_value(json).expect("a rule");
        assert_eq!((rule.validate(), rule.needed()), (Ok(()), 300.0));
        assert_eq!(rule.checks[0], Check::ErrorRatio(ErrorRatio { tolerated: 1.5, ..ErrorRatio::default() }));
        assert!(serde_json::from_value::<Rule>(json!({"alhpa": 0.1})).is_err());
        assert!(serde_json::from_value::<Rule>(json!({"checks": [{"error_ratio": {"ratio": 2}}]})).is_err());
        Rule::default().validate().expect("the default can be used");
    }

    #[test]
    fn rules_and_watches_have_schemas() {
        let rule = schemars::schema_for!(Rule).to_value();
        assert_eq!(rule["properties"]["alpha"]["default"], 0.01);
        let sample = schemars::schema_for!(crate::judge::Sample).to_value().to_string();
        assert!(
            sample.contains("prefixItems") && sample.contains("uint16"),
            "a histogram is a list of pairs: {sample}"
        );
        for schema in [schemars::schema_for!(crate::judge::Monitor), schemars::schema_for!(crate::judge::Report)] {
            assert!(schema.to_value()["properties"]["rule"].is_object());
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let rule = |check| Rule { checks: vec![check], ..Rule::default() };
        let wrong = [
            (Rule { checks: vec![], ..Rule::default() }, "without checks"),
            (Rule { alpha: 0.0, ..Rule::default() }, "alpha is 0"),
            (Rule { alpha: f64::NAN, ..Rule::default() }, "alpha is NaN"),
            (
                rule(Check::ErrorRatio(ErrorRatio { tolerated: -1.0, ..ErrorRatio::default() })),
                "error_ratio.tolerated is -1",
            ),
            (rule(Check::ErrorLimit(ErrorLimit { at_most: 1.0, block_ms: 1 })), "error_limit.at_most is 1, allowed"),
            (
                rule(Check::ThroughputLimit(ThroughputLimit { at_least_rps: f64::INFINITY, block_ms: 1 })),
                "at_least_rps is inf",
            ),
        ];
        for (rule, part) in wrong {
            let error = rule.validate().expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
