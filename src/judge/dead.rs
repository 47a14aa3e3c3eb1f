//! A candidate that answers nothing: seen in seconds, where counting by blocks would take a minute.
//!
//! A *beat* is a second or more in which both sides had requests. It counts as `Z = 1{no request of the candidate was answered} · (share
//! of the baseline's that was)`. If the candidate fails at most `tolerated` times as often as a baseline that fails with probability `p`,
//! then `E[Z] <= tolerated·p·(1-p) <= tolerated/4`: a dead candidate beside a baseline that is well is far from it, two dead ones are not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::share::Counts;
use super::wealth::Wealth;

/// Shortest beat, in milliseconds.
const BEAT_MS: u64 = 1000;
/// What the bettor believes `E[Z]` to be.
const BELIEF: f64 = 0.9;
const PRIOR: [f64; 2] = [0.3, 0.7];

/// The test of "it answers something".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Dead {
    /// Largest expectation of `Z` that is tolerated.
    most: f64,
    /// Whether there is a baseline.
    paired: bool,
    /// When the last beat ended.
    beat_ms: Option<u64>,
    open: Counts,
    wealth: Wealth,
}

impl Dead {
    fn new(most: f64, paired: bool) -> Self {
        let most = most.clamp(0.25, 0.8);
        Self { most, paired, beat_ms: None, open: Counts::default(), wealth: Wealth::new(&PRIOR) }
    }

    /// Beside a baseline.
    pub(super) fn beside(tolerated: f64) -> Self {
        Self::new(tolerated / 4.0, true)
    }

    /// Alone, where at most a share of `limit` may fail.
    pub(super) fn alone(limit: f64) -> Self {
        Self::new(limit, false)
    }

    /// Natural logarithm of the evidence that nothing is answered.
    pub(super) fn ln(&self) -> f64 {
        self.wealth.ln()
    }

    /// Takes an interval that ended at `at_ms`.
    pub(super) fn look(&mut self, at_ms: u64, counts: Counts) {
        self.open.add(counts);
        let beat = self.open;
        let over = self.beat_ms.is_none_or(|last| at_ms.saturating_sub(last) >= BEAT_MS);
        if !over || beat.candidate == 0 || (self.paired && beat.baseline == 0) {
            return;
        }
        (self.beat_ms, self.open) = (Some(at_ms), Counts::default());
        let nothing = beat.trouble_candidate == beat.candidate;
        let well = if self.paired { 1.0 - beat.trouble_baseline as f64 / beat.baseline as f64 } else { 1.0 };
        let z = if nothing { well } else { 0.0 };
        let most = self.most;
        self.wealth.bet(&PRIOR, |_| z * BELIEF / most + (1.0 - z) * (1.0 - BELIEF) / (1.0 - most));
    }
}
