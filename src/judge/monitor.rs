//! A watch: samples in, verdicts out. Its whole memory is one value that can be stored and resumed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::check::State;
use super::finding::Ground;
use super::rule::{Rule, RuleError};
use super::sample::{Arm, Sample};
use super::verdict::{Finding, Judgement, Point, Report, Verdict};
use super::words::span;
use crate::release::Format;

/// Points of history that are kept: as many as a plot of a terminal's width can show. When they are reached every other one goes.
const MOST_POINTS: usize = 240;

/// A silence before the end of the watch that is longer than this share of it takes the pass away.
const SILENT_SHARE: u64 = 10;
/// Shorter silences are none, in milliseconds: a model that is asked once a minute is not silent.
const SILENT_MS: u64 = 60_000;

/// Why a sample was not taken.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SampleError {
    /// Samples come in the order of time, each once.
    #[error("a sample of {at_ms} ms came after one of {last_ms} ms")]
    OutOfOrder {
        /// Of this sample.
        at_ms: u64,
        /// Of the last one that was taken.
        last_ms: u64,
    },
    /// More errors than requests, or more latencies than requests.
    #[error("the {who} has {counted} {what} in {requests} requests")]
    Impossible {
        /// `baseline` or `candidate`.
        who: &'static str,
        /// `errors` or `latencies`.
        what: &'static str,
        /// How many.
        counted: u64,
        /// Of how many.
        requests: u64,
    },
}

/// Why a whole watch could not be judged.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum JudgeError {
    /// The rule makes no sense.
    #[error("the rule cannot be used")]
    Rule(#[from] RuleError),
    /// A sample makes no sense.
    #[error("a sample cannot be used")]
    Sample(#[from] SampleError),
}

/// A watch under way. Store it between two looks; a resumed one says what the first would have said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Format of this structure.
    format: Format<1>,
    rule: Rule,
    states: Vec<State>,
    began_ms: Option<u64>,
    last_ms: Option<u64>,
    /// When the candidate, and the baseline, had requests last.
    heard_ms: [Option<u64>; 2],
    baseline: Arm,
    candidate: Arm,
    history: Vec<Point>,
    /// A point is kept for each so many looks.
    point_every: u64,
    looks: u64,
    /// The verdict that stands.
    decided: Option<Judgement>,
}

impl Monitor {
    /// A watch that has seen nothing.
    ///
    /// # Errors
    /// When the rule makes no sense.
    pub fn new(rule: Rule) -> Result<Self, RuleError> {
        rule.validate()?;
        Ok(Self {
            format: Format,
            states: rule.checks.iter().map(State::new).collect(),
            rule,
            began_ms: None,
            last_ms: None,
            heard_ms: [None, None],
            baseline: Arm::default(),
            candidate: Arm::default(),
            history: Vec::new(),
            point_every: 1,
            looks: 0,
            decided: None,
        })
    }

    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Takes the next sample and says what is known now. Once decided, it says the same again and counts nothing more.
    ///
    /// # Errors
    /// When the sample makes no sense; it was not taken then.
    pub fn look(&mut self, sample: &Sample) -> Result<Judgement, SampleError> {
        if let Some(decided) = &self.decided {
            return Ok(decided.clone());
        }
        self.take(sample)?;
        let over = self.watched_ms(sample.at_ms) >= self.rule.window_ms;
        Ok(self.judge(sample.at_ms, over))
    }

    /// Takes the next sample without making sentences; whether it decided. For many samples at once.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn observe(&mut self, sample: &Sample) -> Result<bool, SampleError> {
        if self.decided.is_some() {
            return Ok(true);
        }
        self.take(sample)?;
        let over = self.watched_ms(sample.at_ms) >= self.rule.window_ms;
        let needed = self.rule.needed().ln();
        let near =
            self.states.iter().any(|state| state.harm() >= needed || state.proof().is_some_and(|ln| ln >= needed));
        Ok((over || near) && self.judge(sample.at_ms, over).decided)
    }

    /// Takes a measurement of both versions that is not of their traffic, for the checks that ask for this name; `None` where it could not be
    /// made. Once decided, nothing more counts.
    pub fn measured(&mut self, name: &str, baseline: Option<f64>, candidate: Option<f64>) {
        if self.decided.is_none() {
            self.states.iter_mut().for_each(|state| state.measured(name, baseline, candidate));
        }
    }

    /// Ends the watch at `at_ms`, also where no sample came: what is known then stands.
    pub fn end(&mut self, at_ms: u64) -> Judgement {
        match &self.decided {
            Some(decided) => decided.clone(),
            None => self.judge(at_ms.max(self.last_ms.unwrap_or(0)), true),
        }
    }

    /// The whole watch so far.
    pub fn report(&self) -> Report {
        let at_ms = self.last_ms.unwrap_or(0);
        let judgement = self.decided.clone().unwrap_or_else(|| self.judgement(at_ms, false));
        Report {
            rule: self.rule.clone(),
            judgement,
            baseline: [self.baseline.requests, self.baseline.errors],
            candidate: [self.candidate.requests, self.candidate.errors],
            history: self.history.clone(),
        }
    }

    fn watched_ms(&self, at_ms: u64) -> u64 {
        at_ms.saturating_sub(self.began_ms.unwrap_or(at_ms))
    }

    fn take(&mut self, sample: &Sample) -> Result<(), SampleError> {
        let at_ms = sample.at_ms;
        if let Some(last_ms) = self.last_ms.filter(|last_ms| *last_ms >= at_ms) {
            return Err(SampleError::OutOfOrder { at_ms, last_ms });
        }
        possible("baseline", &sample.baseline)?;
        possible("candidate", &sample.candidate)?;
        let began_ms = *self.began_ms.get_or_insert(at_ms);
        if let Some(last_ms) = self.last_ms.filter(|_| self.looks == 1) {
            // The first interval was as long as the second.
            self.began_ms = Some(began_ms.saturating_sub((at_ms - last_ms).min(self.rule.window_ms / SILENT_SHARE)));
        }
        self.last_ms = Some(at_ms);
        for (heard, arm) in self.heard_ms.iter_mut().zip([&sample.candidate, &sample.baseline]) {
            if arm.requests > 0 {
                *heard = Some(at_ms);
            }
        }
        self.baseline.merge(&sample.baseline);
        self.candidate.merge(&sample.candidate);
        self.states.iter_mut().for_each(|state| state.look(sample));
        self.keep_point(at_ms);
        Ok(())
    }

    fn keep_point(&mut self, at_ms: u64) {
        if self.looks.is_multiple_of(self.point_every) {
            let log10 = |state: &State| state.harm() / std::f64::consts::LN_10;
            self.history.push(Point { at_ms, evidence: self.states.iter().map(log10).collect() });
        }
        self.looks += 1;
        if self.history.len() >= MOST_POINTS {
            let mut nth = 0;
            self.history.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.point_every *= 2;
        }
    }

    /// The judgement, which stands from now on if it decides.
    fn judge(&mut self, at_ms: u64, over: bool) -> Judgement {
        let judgement = self.judgement(at_ms, over);
        if judgement.decided {
            self.decided = Some(judgement.clone());
        }
        judgement
    }

    fn judgement(&self, at_ms: u64, over: bool) -> Judgement {
        let watched_ms = self.watched_ms(at_ms);
        let (baseline, candidate) = (&self.baseline, &self.candidate);
        let ground = Ground { rule: &self.rule, baseline, candidate, watched_ms, over };
        let checks = self.rule.checks.iter().zip(&self.states);
        let findings: Vec<Finding> = checks.map(|(check, state)| ground.finding(check, state)).collect();
        // Each check must have said so: what was stored may have lost one.
        let pass = findings.iter().filter(|finding| finding.verdict == Verdict::Pass).count();
        let silence = self.silence(at_ms);
        let (verdict, reason) = if findings.iter().any(|finding| finding.verdict == Verdict::Fail) {
            (Verdict::Fail, reasons(&findings, Verdict::Fail))
        } else if pass == 0 || pass < self.rule.checks.len() {
            (Verdict::Inconclusive, reasons(&findings, Verdict::Inconclusive))
        } else if let Some(silence) = silence {
            (Verdict::Inconclusive, silence)
        } else {
            (Verdict::Pass, reasons(&findings, Verdict::Pass))
        };
        let decided = over || verdict != Verdict::Inconclusive;
        Judgement { at_ms, verdict, decided, reason, findings }
    }

    /// Who has been silent for too long at the end, in a sentence.
    fn silence(&self, at_ms: u64) -> Option<String> {
        let most = (self.rule.window_ms / SILENT_SHARE).max(SILENT_MS);
        let compares = self.rule.checks.iter().any(super::Check::compares);
        let arms = [("candidate", self.heard_ms[0], true), ("baseline", self.heard_ms[1], compares)];
        arms.into_iter().filter(|(_, _, asked)| *asked).find_map(|(who, heard_ms, _)| {
            let silent_ms = at_ms.saturating_sub(heard_ms?);
            (silent_ms > most).then(|| {
                format!("the {who} had no request in the last {}, a pass needs data to the end", span(silent_ms))
            })
        })
    }
}

fn reasons(findings: &[Finding], verdict: Verdict) -> String {
    let said = findings.iter().filter(|finding| finding.verdict == verdict).map(|finding| finding.reason.as_str());
    said.collect::<Vec<_>>().join(". ")
}

fn possible(who: &'static str, arm: &Arm) -> Result<(), SampleError> {
    let counted = [("errors", arm.errors), ("latencies", arm.latencies.count())];
    match counted.into_iter().find(|(_, counted)| *counted > arm.requests) {
        Some((what, counted)) => Err(SampleError::Impossible { who, what, counted, requests: arm.requests }),
        None => Ok(()),
    }
}

/// Judges a whole watch at once: what a [`Monitor`] says that looks at each of the samples. The watch ends with the last of them; if it
/// was shorter than the rule says, that is no pass.
///
/// # Errors
/// When the rule or a sample makes no sense.
pub fn judge(rule: &Rule, samples: &[Sample]) -> Result<Report, JudgeError> {
    let mut monitor = Monitor::new(rule.clone())?;
    for sample in samples {
        monitor.look(sample)?;
    }
    monitor.end(0);
    Ok(monitor.report())
}

#[cfg(test)]
mod tests;
