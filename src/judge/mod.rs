//! The judge: turns what baseline and candidate did into pass, fail or inconclusive, with its reason.
//!
//! Pure functions and values: no clock, no I/O. [`Monitor`] looks as often as one likes and keeps its false-alarm bound (`docs/judge.md`
//! says why); [`kayenta`] and [`threshold`] are for people who come from Kayenta and from Argo Rollouts; [`answers`] compares what two
//! versions answered; [`simulate`] shows what a rule would say.

pub mod answers;
mod check;
mod dead;
mod finding;
mod histogram;
pub mod kayenta;
mod mean;
mod monitor;
mod normal;
mod power;
mod rule;
mod sample;
mod share;
pub mod simulate;
mod slow;
pub mod threshold;
mod verdict;
mod wealth;
mod words;

pub use histogram::Histogram;
pub use monitor::{JudgeError, Monitor, SampleError, judge};
pub use rule::{
    AvailabilityLimit, Check, DEFAULT_ALPHA, DEFAULT_BLOCK_MS, DEFAULT_DOUBT, DEFAULT_MIN_REQUESTS, DEFAULT_WINDOW_MS,
    ErrorLimit, ErrorRatio, LatencyLimit, LatencyRatio, Rule, RuleError, ThroughputLimit,
};
pub use sample::{Arm, Sample};
pub use verdict::{Finding, Judgement, Point, Report, Verdict};
