//! Who is slow? A latency quantile becomes a question of where trouble lands: an answer is trouble if it is slower than the baseline's
//! quantile so far (the candidate's: than `tolerated` times that).
//!
//! The bar is set from what was seen before a block begins, and stays until it ends. So it need not be right: wherever it stands, a
//! candidate that is at most `tolerated` times as slow there has no more slow answers than the baseline has. Only the power depends on
//! it. Comparing at the same time also takes out what slows both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::sample::Sample;
use super::share::Counts;

/// The bar above which an answer is slow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bar {
    quantile: f64,
    seen: Histogram,
    /// In microseconds; absent until enough was seen to know the quantile roughly.
    bar_us: Option<u64>,
}

impl Bar {
    pub(super) fn new(quantile: f64) -> Self {
        Self { quantile, seen: Histogram::default(), bar_us: None }
    }

    /// The bar, in microseconds.
    pub(super) fn us(&self) -> Option<u64> {
        self.bar_us
    }

    /// What a sample shows against the bar; nothing before there is one. Where a bucket lies across the candidate's bar, its answers are not
    /// slow, for a test of harm; for a proof that there is none (`reversed`) they are.
    pub(super) fn counts(&self, sample: &Sample, tolerated: f64, reversed: bool) -> Counts {
        let Some(bar) = self.bar_us else { return Counts::default() };
        let (candidate, baseline) = (&sample.candidate.latencies, &sample.baseline.latencies);
        let bar_candidate = (bar as f64 * tolerated) as u64;
        Counts {
            candidate: candidate.count(),
            baseline: baseline.count(),
            trouble_candidate: if reversed {
                candidate.count_reaching(bar_candidate)
            } else {
                candidate.count_above(bar_candidate)
            },
            trouble_baseline: baseline.count_above(bar),
        }
    }

    /// Takes the sample into account; `free`: the bar may move.
    pub(super) fn see(&mut self, sample: &Sample, free: bool) {
        self.seen.merge(&sample.baseline.latencies);
        // So many answers have one beyond the quantile, on average.
        let enough = (1.0 / (1.0 - self.quantile)).ceil() as u64;
        if free && self.seen.count() >= enough {
            self.bar_us = self.seen.quantile_us(self.quantile);
        }
    }
}
