//! What two versions answered to the same requests, as shadow traffic shows it: how often they agree, and where they do not.

mod compare;
mod drift;
mod path;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use self::compare::Comparison;
use self::path::Pattern;
use super::mean::Mean;
use super::normal::wilson_upper;
use super::rule::RuleError;
use super::verdict::Verdict;
use super::words::{count, odds, percent};
use crate::release::{Difference, Format};

pub use drift::{Drift, label_drift, number_drift};
pub use path::PathError;

/// Differences that are kept as examples.
pub const MOST_EXAMPLES: usize = 5;
/// Outputs of a side that are kept for the drift; when there are more, every other one goes. Enough for the tenths of a distribution.
const MOST_OUTPUTS: usize = 8192;
/// Different labels that are counted; more of them are no labels.
const MOST_LABELS: usize = 1000;

/// What of the answers must agree, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnswersRule {
    /// Format of this structure.
    pub format: Format<1>,
    /// Places that are compared, e.g. `$.rows[*].label`; none: everything.
    pub compare: Vec<String>,
    /// Places that are not, e.g. `$.request_id`.
    pub ignore: Vec<String>,
    /// Numbers may differ by so much.
    pub absolute: f64,
    /// And by this share of the baseline's number.
    pub relative: f64,
    /// Largest share of answers that may differ, 0 to 1.
    pub at_most: f64,
    /// Probability of a false alarm, and of a false all-clear; 0 to 1.
    pub alpha: f64,
    /// Pairs that must have been compared for a pass.
    pub min_pairs: u64,
    /// Holds the outputs' distribution too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftRule>,
}

impl Default for AnswersRule {
    /// Everything is compared, numbers up to the noise of their arithmetic; 1 % may differ.
    fn default() -> Self {
        Self {
            format: Format,
            compare: Vec::new(),
            ignore: Vec::new(),
            absolute: 1e-6,
            relative: 0.0,
            at_most: 0.01,
            alpha: super::rule::DEFAULT_ALPHA,
            min_pairs: 100,
            drift: None,
        }
    }
}

/// How far the distribution of outputs may move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DriftRule {
    /// Where the outputs are: numbers, or labels (texts, truth values).
    pub path: String,
    /// Largest population stability index.
    #[serde(default = "psi")]
    pub psi_at_most: f64,
}

fn psi() -> f64 {
    0.2
}

/// Why answers cannot be compared.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum AnswersError {
    /// A path cannot be read.
    #[error("a path of the comparison cannot be read")]
    Path(#[from] PathError),
    /// A number is outside of what makes sense.
    #[error("the comparison cannot be used")]
    Number(#[from] RuleError),
}

/// How a pair of answers compares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// They agree.
    Agree,
    /// They differ, first here; `expected` is the baseline's.
    Differ(Difference),
    /// Neither has anything at the places that are compared.
    Nothing,
}

/// Outputs of one side.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Outputs {
    labels: BTreeMap<String, u64>,
    numbers: Vec<f64>,
    /// Of so many numbers one is kept.
    every: u64,
    seen: u64,
}

impl Outputs {
    fn take(&mut self, value: &Value) {
        let label = match value {
            Value::Number(number) => return self.number(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if self.labels.len() < MOST_LABELS || self.labels.contains_key(&label) {
            *self.labels.entry(label).or_default() += 1;
        }
    }

    fn number(&mut self, number: f64) {
        self.every = self.every.max(1);
        if self.seen.is_multiple_of(self.every) && number.is_finite() {
            self.numbers.push(number);
        }
        self.seen += 1;
        if self.numbers.len() >= MOST_OUTPUTS {
            let mut nth = 0;
            self.numbers.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.every *= 2;
        }
    }
}

/// A comparison under way. It can be stored and resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// Format of this structure.
    format: Format<1>,
    rule: AnswersRule,
    pairs: u64,
    differing: u64,
    /// Pairs with nothing to compare.
    nothing: u64,
    /// Against "at most that share differs".
    mean: Mean,
    examples: Vec<Difference>,
    outputs: [Outputs; 2],
}

/// What the answers show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswersReport {
    /// Pass only if the share of differing answers is shown to be small enough.
    pub verdict: Verdict,
    /// Why, with numbers.
    pub reason: String,
    /// Pairs that were compared.
    pub pairs: u64,
    /// Those that differ.
    pub differing: u64,
    /// The share that differs is at most this, but for the rule's `alpha` (Wilson's bound).
    pub differing_at_most: f64,
    /// The first differences.
    pub examples: Vec<Difference>,
    /// The drift of the outputs, where a rule asks for it and both sides had some.
    #[serde(default)]
    pub drift: Option<Drift>,
}

impl Answers {
    /// A comparison that has seen nothing.
    ///
    /// # Errors
    /// When the rule makes no sense.
    pub fn new(rule: AnswersRule) -> Result<Self, AnswersError> {
        rule.comparison()?;
        for (place, value) in [("at_most", rule.at_most), ("alpha", rule.alpha)] {
            super::rule::inside(place, value)?;
        }
        let psi_at_most = rule.drift.as_ref().map_or(0.0, |drift| drift.psi_at_most);
        for (place, value) in [("absolute", rule.absolute), ("relative", rule.relative), ("psi_at_most", psi_at_most)] {
            super::rule::holds(place, value, value >= 0.0 && value.is_finite(), "0 or more")?;
        }
        let mean = Mean::new(rule.at_most, 0);
        let (examples, outputs) = (Vec::new(), Default::default());
        Ok(Self { format: Format, rule, pairs: 0, differing: 0, nothing: 0, mean, examples, outputs })
    }

    /// Takes the answers of baseline and candidate to the same request.
    ///
    /// # Errors
    /// When the rule makes no sense; a resumed one may come from elsewhere.
    pub fn look(&mut self, baseline: &Value, candidate: &Value) -> Result<Agreement, AnswersError> {
        let found = self.rule.comparison()?.of(baseline, candidate);
        if let Some(drift) = &self.rule.drift {
            let path = Pattern::parse(&drift.path)?;
            for (side, answer) in self.outputs.iter_mut().zip([baseline, candidate]) {
                path.values(answer).into_iter().for_each(|value| side.take(value));
            }
        }
        if found.compared == 0 {
            self.nothing += 1;
            return Ok(Agreement::Nothing);
        }
        self.pairs += 1;
        self.mean.count(if found.first.is_some() { 1.0 } else { 0.0 });
        let Some(difference) = found.first else { return Ok(Agreement::Agree) };
        self.differing += 1;
        if self.examples.len() < MOST_EXAMPLES {
            self.examples.push(difference.clone());
        }
        Ok(Agreement::Differ(difference))
    }

    /// Whether more answers differ than may, beyond the rule's doubt. True at any look, however often one looks.
    pub fn differ_too_often(&self) -> bool {
        self.mean.ln() >= -self.rule.alpha.ln()
    }

    /// What is known so far.
    pub fn report(&self) -> AnswersReport {
        let drift = self.drift();
        let at_most = wilson_upper(self.differing, self.pairs, self.rule.alpha);
        let (mut verdict, mut reason) = self.agreement(at_most);
        if let Some((worse, why)) = self.drifted(drift.as_ref()) {
            // Fail over inconclusive over pass.
            let rank =
                |verdict| [Verdict::Pass, Verdict::Inconclusive, Verdict::Fail].iter().position(|v| *v == verdict);
            verdict = if rank(worse) > rank(verdict) { worse } else { verdict };
            reason = format!("{reason}. {why}");
        }
        let examples = self.examples.clone();
        let (pairs, differing) = (self.pairs, self.differing);
        AnswersReport { verdict, reason, pairs, differing, differing_at_most: at_most, examples, drift }
    }

    fn agreement(&self, at_most: f64) -> (Verdict, String) {
        let rule = &self.rule;
        if self.pairs == 0 {
            return (
                Verdict::Inconclusive,
                format!("no answers were compared ({} had nothing to compare)", self.nothing),
            );
        }
        let differing = self.differing as f64 / self.pairs as f64;
        let seen =
            format!("{} of {} answers differ ({})", count(self.differing), count(self.pairs), percent(differing));
        let first = self.examples.first().map(|d| format!(", the first at {}: {}", d.path, d.why)).unwrap_or_default();
        let needed = -rule.alpha.ln();
        if self.differ_too_often() {
            let (evidence, held) = (odds(self.mean.ln()), percent(rule.at_most));
            let reason =
                format!("{seen}{first}; evidence {evidence} against \"at most {held}\", needed {}", odds(needed));
            return (Verdict::Fail, reason);
        }
        if self.pairs < rule.min_pairs {
            return (Verdict::Inconclusive, format!("{seen}{first}; a pass needs {} answers", count(rule.min_pairs)));
        }
        let bound = format!("no more than {} do, with {} certainty", percent(at_most), percent(1.0 - rule.alpha));
        if at_most <= rule.at_most {
            return (Verdict::Pass, format!("{seen}; {bound}"));
        }
        (Verdict::Inconclusive, format!("{seen}{first}; {bound}, a pass needs {}", percent(rule.at_most)))
    }

    fn drift(&self) -> Option<Drift> {
        self.rule.drift.as_ref()?;
        let [ours, theirs] = &self.outputs;
        number_drift(&ours.numbers, &theirs.numbers).or_else(|| label_drift(&ours.labels, &theirs.labels))
    }

    fn drifted(&self, drift: Option<&Drift>) -> Option<(Verdict, String)> {
        let rule = self.rule.drift.as_ref()?;
        let Some(drift) = drift else {
            return Some((Verdict::Inconclusive, format!("there are no outputs of both at {}", rule.path)));
        };
        let [ours, theirs] = drift.values.map(count);
        let seen = format!(
            "the outputs' stability index is {:.3}, allowed {} ({ours} and {theirs} outputs, p = {:.2e})",
            drift.psi, rule.psi_at_most, drift.p_value
        );
        let verdict = match (drift.psi <= rule.psi_at_most, drift.p_value <= self.rule.alpha) {
            (false, true) => Verdict::Fail,
            (false, false) => Verdict::Inconclusive,
            (true, _) => Verdict::Pass,
        };
        Some((verdict, seen))
    }
}

impl AnswersRule {
    fn comparison(&self) -> Result<Comparison, AnswersError> {
        let patterns = |paths: &[String]| paths.iter().map(|path| Pattern::parse(path)).collect::<Result<Vec<_>, _>>();
        if let Some(drift) = &self.drift {
            Pattern::parse(&drift.path)?;
        }
        let (compare, ignore) = (patterns(&self.compare)?, patterns(&self.ignore)?);
        Ok(Comparison { compare, ignore, absolute: self.absolute, relative: self.relative })
    }
}
