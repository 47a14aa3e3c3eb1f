//! What would have shown: how bad a candidate must be for an alarm in nine of ten such watches. Approximate: the growth of the capital is
//! taken as normal, with the mean and the variance of a two-point observation.

/// Standard deviations that nine of ten lie above.
const NINE_OF_TEN: f64 = 1.2816;

/// What there is to see in a watch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Mean of what a block shows, 0 to 1.
    pub(super) mean: f64,
    /// Events in a block.
    pub(super) each: f64,
    /// Blocks.
    pub(super) blocks: f64,
}

/// Two values with the second one's probability, of mean and variance as what a block shows.
fn two_points(seen: &Seen) -> (f64, f64, f64) {
    let mean = seen.mean.clamp(1e-9, 1.0 - 1e-9);
    let variance = mean * (1.0 - mean) / seen.each.max(1.0);
    let sd = variance.sqrt();
    if mean + sd >= 1.0 {
        let low = (mean - variance / (1.0 - mean)).max(0.0);
        return (low, 1.0, (mean - low) / (1.0 - low));
    }
    if mean - sd <= 0.0 {
        let high = (mean + variance / mean).min(1.0);
        return (0.0, high, mean / high);
    }
    (mean - sd, mean + sd, 0.5)
}

/// Whether one of the bettors, each with the logarithm of its share and its factor, would have reached `ln_needed` in nine of ten watches.
pub(super) fn shows<F: Fn(f64) -> f64>(seen: &Seen, ln_needed: f64, bettors: impl Iterator<Item = (f64, F)>) -> bool {
    let (low, high, probability) = two_points(seen);
    bettors.into_iter().any(|(ln_share, factor)| {
        let (lost, won) = (factor(low).max(1e-9).ln(), factor(high).ln());
        let growth = (1.0 - probability) * lost + probability * won;
        let variance = probability * (1.0 - probability) * (won - lost).powi(2);
        // Where blocks have one event each, their number varies too.
        let each = variance + growth * growth / seen.each.max(1.0);
        seen.blocks * growth - NINE_OF_TEN * (seen.blocks * each).sqrt() >= ln_needed - ln_share
    })
}

/// The smallest of the values from `low` to `high`, on a logarithmic scale, from which on `shows` holds; `None` when it does not even at `high`.
pub(super) fn smallest(low: f64, high: f64, shows: impl Fn(f64) -> bool) -> Option<f64> {
    if !(low > 0.0 && low < high && shows(high)) {
        return None;
    }
    let (mut low, mut high) = (low.ln(), high.ln());
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if shows(middle.exp()) { high = middle } else { low = middle }
    }
    Some(high.exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_points_have_the_moments() {
        for (mean, each) in [(0.5, 1.0), (0.9, 1.0), (0.9, 5.0), (0.02, 3.0), (0.3, 100.0)] {
            let (low, high, p) = two_points(&Seen { mean, each, blocks: 1.0 });
            let m = (1.0 - p) * low + p * high;
            let v = p * (1.0 - p) * (high - low).powi(2);
            assert!((m - mean).abs() < 1e-6 && (v - mean * (1.0 - mean) / each).abs() < 1e-6, "{mean} {each}: {m} {v}");
        }
    }

    #[test]
    fn more_blocks_show_more() {
        let least = |blocks| {
            smallest(0.5, 1.0, |mean| {
                let bettors =
                    [4.0, 10.0].map(|m| (-0.7, move |s: f64| (1.0 + s * (m - 1.0)) / (1.0 + 0.5 * (m - 1.0))));
                shows(&Seen { mean, each: 1.0, blocks }, 4.6, bettors.into_iter())
            })
        };
        assert!(least(5.0).is_none());
        assert!(least(400.0) < least(100.0) && least(100.0) < least(20.0), "{:?}", least(20.0));
    }
}
