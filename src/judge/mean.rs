//! One version alone: is the mean of what a block shows above a limit?
//!
//! Each block gives a number `x` from 0 to 1 (the share of its requests that failed, or were too slow). If its expectation, given all
//! blocks before, is at most `limit`, then the bets `1 + c·(x/limit - 1)` with `0 < c < 1` are fair, whatever goes on inside of a
//! block (Waudby-Smith and Ramdas: *Estimating means of bounded random variables by betting*, JRSS-B 2024).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::wealth::Wealth;

/// How much of their capital the bettors set. The first does not bet.
const STAKES: [f64; 5] = [0.0, 0.05, 0.2, 0.5, 0.85];
const PRIOR: [f64; 5] = [0.1, 0.15, 0.25, 0.3, 0.2];

/// What a block has shown so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Block {
    since_ms: u64,
    of: u64,
    trouble: u64,
}

/// The test of "the mean is at most `limit`".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Mean {
    /// 0 to 1, neither of them.
    limit: f64,
    block_ms: u64,
    open: Option<Block>,
    wealth: Wealth,
    blocks: u64,
}

impl Mean {
    pub(super) fn new(limit: f64, block_ms: u64) -> Self {
        Self { limit, block_ms, open: None, wealth: Wealth::new(&PRIOR), blocks: 0 }
    }

    /// Natural logarithm of the evidence that the mean is above the limit.
    pub(super) fn ln(&self) -> f64 {
        self.wealth.ln()
    }

    /// Blocks that were counted.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Takes an interval that ended at `at_ms`: `trouble` of `of` requests.
    pub(super) fn look(&mut self, at_ms: u64, of: u64, trouble: u64) {
        let block = self.open.unwrap_or(Block { since_ms: at_ms, of: 0, trouble: 0 });
        let block = Block { of: block.of.saturating_add(of), trouble: block.trouble.saturating_add(trouble), ..block };
        self.open = Some(block);
        if at_ms.saturating_sub(block.since_ms) >= self.block_ms && block.of > 0 {
            self.open = None;
            self.count(block.trouble as f64 / block.of as f64);
        }
    }

    /// Counts a block that showed `x`.
    pub(super) fn count(&mut self, x: f64) {
        self.blocks += 1;
        let over = x.clamp(0.0, 1.0) / self.limit - 1.0;
        self.wealth.bet(&PRIOR, |i| 1.0 + STAKES[i] * over);
    }
}

/// The bettors against `limit`, each with the logarithm of its share: for what a watch would have shown.
pub(super) fn bettors(limit: f64) -> impl Iterator<Item = (f64, impl Fn(f64) -> f64)> {
    STAKES
        .iter()
        .zip(PRIOR)
        .skip(1)
        .map(move |(stake, prior)| (prior.ln(), move |x: f64| 1.0 + stake * (x / limit - 1.0)))
}
