//! What the judge is told: the traffic of baseline and candidate in one interval.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::histogram::Histogram;

/// What one version did in an interval.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Requests that ended.
    pub requests: u64,
    /// Those of them that failed: an answer with status 5xx, or none.
    pub errors: u64,
    /// How long the answers took; empty where it was not measured.
    #[serde(default)]
    pub latencies: Histogram,
}

impl Arm {
    /// An interval without latencies.
    pub fn of(requests: u64, errors: u64) -> Self {
        Self { requests, errors, latencies: Histogram::default() }
    }

    /// Adds another interval.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.latencies.merge(&other.latencies);
    }

    /// Share of the requests that failed, 0 to 1; `None` without requests.
    pub fn error_share(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.errors as f64 / self.requests as f64)
    }
}

/// An interval, a second as a rule, in which both versions were measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// When the interval ended, in milliseconds of any clock that does not go back.
    pub at_ms: u64,
    /// The version that serves now; no requests where there is none to compare with.
    #[serde(default)]
    pub baseline: Arm,
    /// The version that is judged.
    pub candidate: Arm,
}
