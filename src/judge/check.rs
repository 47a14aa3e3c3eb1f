//! What a check remembers between two looks, and the evidence that it has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dead::Dead;
use super::kayenta::Points;
use super::mean::Mean;
use super::rule::{Check, ErrorRatio, LatencyRatio};
use super::sample::{Arm, Sample};
use super::share::{Counts, Share};
use super::slow::Bar;

/// Errors carry over from a block to the next only in bursts, which are shorter than a block.
const NO_CARRY: f64 = 0.0;
/// Part of the capital that bets on a dead candidate; the rest bets on one with more errors.
const ON_DEATH: f64 = 0.2;

/// A latency test with the bar that it uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Slow {
    bar: Bar,
    share: Share,
    tolerated: f64,
    /// The test asks whether the baseline is the slower one: for proofs.
    reversed: bool,
}

impl Slow {
    fn new(check: &LatencyRatio, tolerated: f64, reversed: bool) -> Self {
        let share = Share::new(1.0, check.block_ms, check.carry);
        Self { bar: Bar::new(check.quantile), share, tolerated, reversed }
    }

    fn look(&mut self, sample: &Sample) {
        let counts = self.bar.counts(sample, self.tolerated, self.reversed);
        self.share.look(sample.at_ms, if self.reversed { counts.swapped() } else { counts });
        self.bar.see(sample, !self.share.is_open());
    }
}

/// Answers per second against a limit, block by block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    limit_rps: f64,
    block_ms: u64,
    since_ms: Option<u64>,
    answered: u64,
    /// Of `1 - rate / (2·limit)`, rates cut at twice the limit: at most a half if the mean rate is at least the limit.
    mean: Mean,
}

impl Rate {
    fn new(limit_rps: f64, block_ms: u64) -> Self {
        Self { limit_rps, block_ms, since_ms: None, answered: 0, mean: Mean::new(0.5, block_ms) }
    }

    fn look(&mut self, at_ms: u64, arm: &Arm) {
        // How long the first interval was is not known.
        let Some(since_ms) = self.since_ms else {
            self.since_ms = Some(at_ms);
            return;
        };
        self.answered = self.answered.saturating_add(arm.requests.saturating_sub(arm.errors));
        let took_ms = at_ms.saturating_sub(since_ms);
        if took_ms >= self.block_ms.max(1) {
            let rps = self.answered as f64 * 1000.0 / took_ms as f64;
            self.mean.count(1.0 - rps.min(2.0 * self.limit_rps) / (2.0 * self.limit_rps));
            (self.since_ms, self.answered) = (Some(at_ms), 0);
        }
    }
}

/// The memory of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Of an error ratio.
    Errors {
        /// Against "not worse than tolerated".
        harm: Share,
        /// Against "it answers something".
        dead: Dead,
        /// Against "not better than `proven_below`", the arms in each other's place.
        proof: Option<Share>,
    },
    /// Of a latency ratio.
    Latency {
        /// Against "not slower than tolerated".
        harm: Slow,
        /// Against "not faster than `proven_below`".
        proof: Option<Slow>,
    },
    /// Of a limit on errors.
    ErrorLimit {
        /// Against "at most the limit".
        mean: Mean,
        /// Against "it answers something".
        dead: Dead,
    },
    /// Of a limit on a latency quantile.
    LatencyLimit {
        /// Against "at most that share is slower".
        mean: Mean,
        /// The limit in microseconds.
        limit_us: u64,
    },
    /// Of a limit on throughput.
    Throughput {
        /// Against "at least so many".
        rate: Rate,
    },
    /// Of Kayenta's rule, which has no evidence before the end.
    Kayenta {
        /// What was measured so far.
        points: Points,
    },
}

fn errors(sample: &Sample) -> Counts {
    Counts {
        candidate: sample.candidate.requests,
        baseline: sample.baseline.requests,
        trouble_candidate: sample.candidate.errors,
        trouble_baseline: sample.baseline.errors,
    }
}

/// Logarithm of the capital that bets on both.
fn both(harm: f64, dead: f64) -> f64 {
    let (harm, dead) = (harm + (1.0 - ON_DEATH).ln(), dead + ON_DEATH.ln());
    let most = harm.max(dead);
    most + ((harm - most).exp() + (dead - most).exp()).ln()
}

impl State {
    pub(super) fn new(check: &Check) -> Self {
        let limit = |at_most: f64, block_ms| Self::ErrorLimit {
            mean: Mean::new(at_most, block_ms),
            dead: Dead::alone(at_most),
        };
        match check {
            Check::ErrorRatio(check) => Self::errors(check),
            Check::LatencyRatio(check) => Self::Latency {
                harm: Slow::new(check, check.tolerated, false),
                proof: check.proven_below.map(|ratio| Slow::new(check, ratio, true)),
            },
            Check::ErrorLimit(check) => limit(check.at_most, check.block_ms),
            Check::AvailabilityLimit(check) => limit(1.0 - check.at_least, check.block_ms),
            Check::LatencyLimit(check) => Self::LatencyLimit {
                mean: Mean::new(1.0 - check.quantile, check.block_ms),
                limit_us: (check.at_most_ms * 1000.0) as u64,
            },
            Check::ThroughputLimit(check) => Self::Throughput { rate: Rate::new(check.at_least_rps, check.block_ms) },
            Check::Kayenta(config) => Self::Kayenta { points: Points::new(config) },
        }
    }

    fn errors(check: &ErrorRatio) -> Self {
        Self::Errors {
            harm: Share::new(check.tolerated, check.block_ms, NO_CARRY),
            dead: Dead::beside(check.tolerated),
            proof: check.proven_below.map(|ratio| Share::new(1.0 / ratio, check.block_ms, NO_CARRY)),
        }
    }

    /// Takes a sample.
    pub(super) fn look(&mut self, sample: &Sample) {
        let candidate = &sample.candidate;
        match self {
            Self::Errors { harm, dead, proof } => {
                harm.look(sample.at_ms, errors(sample));
                dead.look(sample.at_ms, errors(sample));
                if let Some(proof) = proof {
                    proof.look(sample.at_ms, errors(sample).swapped());
                }
            }
            Self::Latency { harm, proof } => {
                harm.look(sample);
                proof.iter_mut().for_each(|proof| proof.look(sample));
            }
            Self::ErrorLimit { mean, dead } => {
                mean.look(sample.at_ms, candidate.requests, candidate.errors);
                dead.look(sample.at_ms, errors(sample));
            }
            Self::LatencyLimit { mean, limit_us } => {
                let slow = candidate.latencies.count_above(*limit_us);
                mean.look(sample.at_ms, candidate.latencies.count(), slow);
            }
            Self::Throughput { rate } => rate.look(sample.at_ms, candidate),
            Self::Kayenta { points } => points.look(sample),
        }
    }

    /// Takes what somebody else has measured of both versions.
    pub(super) fn measured(&mut self, name: &str, baseline: Option<f64>, candidate: Option<f64>) {
        if let Self::Kayenta { points } = self {
            points.measured(name, baseline, candidate);
        }
    }

    /// Natural logarithm of the evidence of harm.
    pub(super) fn harm(&self) -> f64 {
        match self {
            Self::Errors { harm, dead, .. } => both(harm.ln(), dead.ln()),
            Self::Latency { harm, .. } => harm.share.ln(),
            Self::ErrorLimit { mean, dead } => both(mean.ln(), dead.ln()),
            Self::LatencyLimit { mean, .. } => mean.ln(),
            Self::Throughput { rate } => rate.mean.ln(),
            Self::Kayenta { .. } => 0.0,
        }
    }

    /// Natural logarithm of the evidence that the candidate is well; `None` where only time proves that.
    pub(super) fn proof(&self) -> Option<f64> {
        match self {
            Self::Errors { proof, .. } => proof.as_ref().map(Share::ln),
            Self::Latency { proof, .. } => proof.as_ref().map(|proof| proof.share.ln()),
            Self::ErrorLimit { .. } | Self::LatencyLimit { .. } | Self::Throughput { .. } | Self::Kayenta { .. } => {
                None
            }
        }
    }

    /// Whether the evidence is that the candidate answers nothing.
    pub(super) fn is_dead(&self) -> bool {
        match self {
            Self::Errors { harm, dead, .. } => dead.ln() > harm.ln() + 1.0,
            Self::ErrorLimit { mean, dead } => dead.ln() > mean.ln() + 1.0,
            Self::Latency { .. } | Self::LatencyLimit { .. } | Self::Throughput { .. } | Self::Kayenta { .. } => false,
        }
    }

    /// The bar above which an answer is slow, in microseconds; `None` where there is none, or not yet.
    pub(super) fn bar_us(&self) -> Option<u64> {
        match self {
            Self::Latency { harm, .. } => harm.bar.us(),
            Self::LatencyLimit { limit_us, .. } => Some(*limit_us),
            Self::Errors { .. } | Self::ErrorLimit { .. } | Self::Throughput { .. } | Self::Kayenta { .. } => None,
        }
    }

    /// Whether it has seen anything that it can count: a limit at least one block, a latency ratio a bar.
    pub(super) fn has_begun(&self) -> bool {
        match self {
            Self::Errors { .. } => true,
            Self::Latency { harm, .. } => harm.bar.us().is_some(),
            Self::ErrorLimit { mean, .. } | Self::LatencyLimit { mean, .. } => mean.blocks() > 0,
            Self::Throughput { rate } => rate.mean.blocks() > 0,
            Self::Kayenta { points } => points.most() > 0,
        }
    }
}
