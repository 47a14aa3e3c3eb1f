//! The capital of a bettor against "the candidate is not worse": the measure of evidence.
//!
//! A bettor begins with 1 and bets, before each observation, at odds that are fair if the hypothesis holds. Then their capital is a
//! nonnegative supermartingale, and the probability that it *ever* reaches 1/α is at most α (Ville's inequality), however often one
//! looks. See Ramdas, Grünwald, Vovk, Shafer: *Game-theoretic statistics and safe anytime-valid inference*, Statistical Science 2023.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Share of the capital that is dealt out anew before each bet, so that the bettor who is right later is not broke by then (Herbster
/// and Warmuth: *Tracking the best expert*, 1998). Costs `-ln(1 - RESTART)` per bet: 0.2 of 4.6 nats in 100 bets.
const RESTART: f64 = 0.002;

/// Several bettors with one purse; who was right has more of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wealth {
    /// Natural logarithm of the capital.
    ln: f64,
    /// What each bettor has of it; sums to 1. The first never bets, which keeps the capital above zero.
    shares: Vec<f64>,
}

impl Wealth {
    /// One unit of capital, dealt out by `prior`, which sums to 1; the first bettor is the idle one.
    pub(super) fn new(prior: &[f64]) -> Self {
        Self { ln: 0.0, shares: prior.to_vec() }
    }

    /// Natural logarithm of the capital.
    pub(super) fn ln(&self) -> f64 {
        self.ln
    }

    /// One observation: the capital of bettor `i > 0` is multiplied by `factor(i)`, whose expectation is at most 1 if the hypothesis
    /// holds.
    pub(super) fn bet(&mut self, prior: &[f64], factor: impl Fn(usize) -> f64) {
        for (i, (share, _)) in self.shares.iter_mut().zip(prior).enumerate().skip(1) {
            *share *= factor(i).max(0.0);
        }
        let total: f64 = self.shares.iter().sum();
        self.ln += total.ln();
        for (share, first) in self.shares.iter_mut().zip(prior) {
            *share = (1.0 - RESTART) * *share / total + RESTART * first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIOR: [f64; 3] = [0.2, 0.4, 0.4];

    #[test]
    fn fair_bets_keep_the_expectation() {
        // All outcomes of eight fair coins, each as likely: the mean of the capital stays 1.
        let mean: f64 = (0..256_u32)
            .map(|coins| {
                let mut wealth = Wealth::new(&PRIOR);
                for toss in 0..8 {
                    let won = coins >> toss & 1 == 1;
                    wealth.bet(&PRIOR, |i| if won { 1.0 + 0.3 * i as f64 } else { 1.0 - 0.3 * i as f64 });
                }
                wealth.ln().exp() / 256.0
            })
            .sum();
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
    }

    #[test]
    fn a_ruined_bettor_comes_back() {
        let mut wealth = Wealth::new(&PRIOR);
        (0..1000).for_each(|_| wealth.bet(&PRIOR, |_| 0.0));
        assert!(wealth.ln().is_finite() && wealth.ln() > -5.0, "{}", wealth.ln());
        let before = wealth.ln();
        (0..20).for_each(|_| wealth.bet(&PRIOR, |_| 2.0));
        assert!(wealth.ln() > before + 5.0);
    }
}
