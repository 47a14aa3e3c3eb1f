//! Whether two versions' outputs are distributed alike: for models whose single answers may differ.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::normal::chi_squared_above;

/// Classes that numbers are sorted into, as is custom: tenths of the baseline.
const CLASSES: usize = 10;
/// What an empty class counts as, so that no logarithm is infinite.
const HALF: f64 = 0.5;

/// How far two distributions are apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// Population stability index: below 0.1 is custom for "the same", above 0.25 for "another".
    pub psi: f64,
    /// Probability of so large an index, or a larger one, if both were distributed alike.
    pub p_value: f64,
    /// Kolmogorov and Smirnov's distance, 0 to 1; only of numbers.
    #[serde(default)]
    pub ks: Option<f64>,
    /// Values of baseline and candidate.
    pub values: [u64; 2],
}

/// The drift of labels, from how often each was given; `None` when a side gave none.
pub fn label_drift(baseline: &BTreeMap<String, u64>, candidate: &BTreeMap<String, u64>) -> Option<Drift> {
    let labels: BTreeSet<&String> = baseline.keys().chain(candidate.keys()).collect();
    let count = |side: &BTreeMap<String, u64>, label: &String| side.get(label).copied().unwrap_or(0);
    let counts: Vec<(u64, u64)> =
        labels.into_iter().map(|label| (count(baseline, label), count(candidate, label))).collect();
    stability(&counts, None)
}

/// The drift of numbers; `None` when a side has none.
pub fn number_drift(baseline: &[f64], candidate: &[f64]) -> Option<Drift> {
    let mut ours: Vec<f64> = baseline.iter().copied().filter(|value| value.is_finite()).collect();
    let mut theirs: Vec<f64> = candidate.iter().copied().filter(|value| value.is_finite()).collect();
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    if ours.is_empty() || theirs.is_empty() {
        return None;
    }
    let mut edges: Vec<f64> = (1..CLASSES).map(|tenth| ours[tenth * ours.len() / CLASSES]).collect();
    edges.dedup();
    let below = |sorted: &[f64], edge: f64| sorted.partition_point(|value| *value < edge) as u64;
    let (mut counts, mut before) = (Vec::new(), (0, 0));
    for edge in edges {
        let upto = (below(&ours, edge), below(&theirs, edge));
        counts.push((upto.0 - before.0, upto.1 - before.1));
        before = upto;
    }
    counts.push((ours.len() as u64 - before.0, theirs.len() as u64 - before.1));
    stability(&counts, Some(distance(&ours, &theirs)))
}

/// Largest distance of two empirical distribution functions, both sorted.
fn distance(ours: &[f64], theirs: &[f64]) -> f64 {
    let share =
        |sorted: &[f64], value: f64| sorted.partition_point(|other| *other <= value) as f64 / sorted.len() as f64;
    ours.iter().chain(theirs).map(|value| (share(ours, *value) - share(theirs, *value)).abs()).fold(0.0, f64::max)
}

/// The index over classes with their counts. Times `nm/(n+m)` it is about chi-squared (Yurdakul 2018).
fn stability(counts: &[(u64, u64)], ks: Option<f64>) -> Option<Drift> {
    let used: Vec<&(u64, u64)> = counts.iter().filter(|(ours, theirs)| ours + theirs > 0).collect();
    let n: u64 = used.iter().map(|class| class.0).sum();
    let m: u64 = used.iter().map(|class| class.1).sum();
    if n == 0 || m == 0 {
        return None;
    }
    let share = |count: u64, all: u64| (count as f64).max(HALF) / all as f64;
    let psi: f64 = used
        .iter()
        .map(|(ours, theirs)| {
            let (a, b) = (share(*ours, n), share(*theirs, m));
            (b - a) * (b / a).ln()
        })
        .sum();
    let scale = n as f64 * m as f64 / (n + m) as f64;
    let p_value = chi_squared_above(psi * scale, used.len() as f64 - 1.0);
    Some(Drift { psi, p_value, ks, values: [n, m] })
}
