//! What the judge says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule::Rule;

/// Pass, fail or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The candidate is not worse than tolerated, as far as this watch could see.
    Pass,
    /// It is worse.
    Fail,
    /// Neither is shown: too little data, or the watch is not over. Never a pass.
    Inconclusive,
}

/// What a check says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The check, e.g. `error_ratio`.
    pub check: String,
    /// What it says.
    pub verdict: Verdict,
    /// How strong the evidence of harm is, as `1 : this`; 1 is none.
    pub evidence: f64,
    /// How strong it must be for an alarm, as `1 : this`.
    pub needed: f64,
    /// What was measured of the candidate, in `unit`.
    #[serde(default)]
    pub candidate: Option<f64>,
    /// What was measured of the baseline, in `unit`.
    #[serde(default)]
    pub baseline: Option<f64>,
    /// `share` (0 to 1), `ms`, `rps`, or `score` (0 to 100).
    pub unit: String,
    /// The candidate's value, in `unit`, from which on nine of ten such watches would have raised the alarm; known at the end.
    #[serde(default)]
    pub shows_from: Option<f64>,
    /// The verdict in a sentence with its numbers.
    pub reason: String,
}

/// What all checks say together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// When, in the samples' milliseconds.
    pub at_ms: u64,
    /// The verdict so far.
    pub verdict: Verdict,
    /// Whether it stands; if not, the watch goes on.
    pub decided: bool,
    /// Why, in one or a few sentences with numbers.
    pub reason: String,
    /// Check by check, in the rule's order.
    pub findings: Vec<Finding>,
}

/// The evidence at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// When, in the samples' milliseconds.
    pub at_ms: u64,
    /// Decimal logarithm of each check's evidence of harm, in the rule's order: 2 is 1:100.
    pub evidence: Vec<f64>,
}

/// A whole watch, for the record and for a small plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What was held.
    pub rule: Rule,
    /// What the judge says.
    pub judgement: Judgement,
    /// Requests and errors of the baseline: `[requests, errors]`.
    pub baseline: [u64; 2],
    /// Requests and errors of the candidate.
    pub candidate: [u64; 2],
    /// The evidence over time, a few hundred points at most.
    pub history: Vec<Point>,
}
