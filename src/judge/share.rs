//! Two versions: on which of them does trouble land?
//!
//! Trouble comes in clusters: one client with a broken request sends twenty of it. Therefore a *block* counts, not an error: it begins
//! with the first trouble on either side and takes a fixed time, and however much lands in it, it counts once, as the share `S` of it
//! that landed on the candidate. If the candidate has trouble at most `tolerated` times as often, each cluster, of whatever size, lands
//! there with probability at most `θ = tolerated·n_c / (tolerated·n_c + n_b)`, so the expectation of `S` is at most `θ`, and the bets
//! `(1 + S(m-1)) / (1 + θ(m-1))` are fair. `m` is how many times worse than tolerated a bettor believes the candidate to be. With one
//! error in a block this is the Beta-mixture test on which arm each error lands, with a discrete prior instead of the Beta.
//!
//! What lasts longer than a block (a slow minute of one machine) makes the next block like this one. `carry` bounds that: where the last
//! block lay above its `θ`, the next one's is taken to be higher by `carry` of the difference.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::power::{Seen, shows};
use super::wealth::Wealth;

/// What the bettors believe: how many times worse than tolerated the candidate is. The first does not bet.
const TIMES: [f64; 5] = [1.0, 1.5, 4.0, 10.0, 40.0];
/// How the capital is dealt out among them. Most is with those who decide the hard cases: four times as bad, in few blocks.
const PRIOR: [f64; 5] = [0.02, 0.05, 0.68, 0.17, 0.08];

/// Requests and trouble on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Counts {
    pub(super) candidate: u64,
    pub(super) baseline: u64,
    pub(super) trouble_candidate: u64,
    pub(super) trouble_baseline: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.candidate = self.candidate.saturating_add(other.candidate);
        self.baseline = self.baseline.saturating_add(other.baseline);
        self.trouble_candidate = self.trouble_candidate.saturating_add(other.trouble_candidate);
        self.trouble_baseline = self.trouble_baseline.saturating_add(other.trouble_baseline);
    }

    /// Both sides in each other's place.
    pub(super) fn swapped(self) -> Self {
        Self {
            candidate: self.baseline,
            baseline: self.candidate,
            trouble_candidate: self.trouble_baseline,
            trouble_baseline: self.trouble_candidate,
        }
    }
}

/// The test of "at most `tolerated` times as often".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    tolerated: f64,
    block_ms: u64,
    /// How much of a block's excess the next one may inherit, 0 to 1.
    carry: f64,
    /// By how much the last block's share was above what was expected.
    excess: f64,
    /// When the open block began, and what it has.
    open: Option<(u64, Counts)>,
    wealth: Wealth,
}

impl Share {
    pub(super) fn new(tolerated: f64, block_ms: u64, carry: f64) -> Self {
        Self { tolerated, block_ms, carry, excess: 0.0, open: None, wealth: Wealth::new(&PRIOR) }
    }

    /// Natural logarithm of the evidence that the candidate is worse than tolerated.
    pub(super) fn ln(&self) -> f64 {
        self.wealth.ln()
    }

    /// Whether a block is open: its rules must not change before it closes.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes an interval that ended at `at_ms`. A block closes when its time is over and both sides had requests in it.
    pub(super) fn look(&mut self, at_ms: u64, counts: Counts) {
        let trouble = counts.trouble_candidate > 0 || counts.trouble_baseline > 0;
        if self.open.is_none() && !trouble {
            return;
        }
        let (since_ms, mut block) = self.open.unwrap_or((at_ms, Counts::default()));
        block.add(counts);
        let over = at_ms.saturating_sub(since_ms) >= self.block_ms;
        if !(over && block.candidate > 0 && block.baseline > 0) {
            self.open = Some((since_ms, block));
            return;
        }
        self.open = None;
        self.count(block);
    }

    fn count(&mut self, block: Counts) {
        let exposed = self.tolerated * block.candidate as f64;
        let fair = exposed / (exposed + block.baseline as f64);
        let theta = (fair + self.carry * self.excess).min(1.0);
        let landed = block.trouble_candidate as f64;
        let share = landed / (landed + block.trouble_baseline as f64);
        self.excess = (share - fair).max(0.0);
        self.wealth.bet(&PRIOR, |i| (1.0 + share * (TIMES[i] - 1.0)) / (1.0 + theta * (TIMES[i] - 1.0)));
    }
}

/// What a watch would have shown; see [`shows`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Power {
    pub(super) tolerated: f64,
    pub(super) block_ms: u64,
    pub(super) carry: f64,
    /// How long was watched, in milliseconds.
    pub(super) watched: f64,
    pub(super) ln_needed: f64,
}

impl Power {
    /// Whether so much trouble of the candidate, beside so much of the baseline, would have raised the alarm in nine of ten watches.
    pub(super) fn shows(&self, exposed: (u64, u64), candidate: f64, baseline: f64) -> bool {
        let trouble = candidate + baseline;
        let per_ms = trouble / self.watched.max(1.0);
        // A block waits for the first trouble, then takes its time.
        let blocks = self.watched / (self.block_ms as f64 + 1.0 / per_ms);
        let weighted = self.tolerated * exposed.0 as f64;
        let mean = candidate / trouble;
        let fair = weighted / (weighted + exposed.1 as f64);
        let theta = (fair + self.carry * (mean - fair).max(0.0)).min(1.0);
        let bettors = TIMES.iter().zip(PRIOR).skip(1).map(|(times, prior)| {
            (prior.ln(), move |share: f64| (1.0 + share * (times - 1.0)) / (1.0 + theta * (times - 1.0)))
        });
        shows(&Seen { mean, each: trouble / blocks, blocks }, self.ln_needed, bettors)
    }
}
