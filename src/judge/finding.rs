//! A check's finding: its figures, its verdict, its sentence.

use super::check::State;
use super::kayenta::Points;
use super::power::{Seen, shows, smallest};
use super::rule::{Check, LatencyRatio, Rule};
use super::sample::Arm;
use super::verdict::{Finding, Verdict};
use super::words::{count, ms, odds, percent, span, times};
use super::{mean, share};

/// Largest number that is written: larger ones are no JSON once they are infinite.
const MOST: f64 = 1e300;

/// All that a finding is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) rule: &'a Rule,
    pub(super) baseline: &'a Arm,
    pub(super) candidate: &'a Arm,
    /// How long is watched already, in milliseconds.
    pub(super) watched_ms: u64,
    /// Whether the watch is over.
    pub(super) over: bool,
}

/// What was measured: candidate, baseline, unit, and both in a sentence.
struct Figures {
    candidate: Option<f64>,
    baseline: Option<f64>,
    unit: &'static str,
    text: String,
}

impl Ground<'_> {
    /// The finding of a check.
    pub(super) fn finding(&self, check: &Check, state: &State) -> Finding {
        if let State::Kayenta { points } = state {
            return self.looked_once(check, state, points);
        }
        let figures = self.figures(check);
        let (ln, needed) = (state.harm(), self.rule.needed());
        let verdict = self.verdict(check, state, &figures);
        let shows_from = if self.over && verdict == Verdict::Pass { self.shows_from(check, state) } else { None };
        let held = held(check);
        let reason = match verdict {
            Verdict::Fail => {
                let dead = if state.is_dead() { "the candidate answers nothing: " } else { "" };
                format!(
                    "{dead}{}; evidence {} against \"{held}\", needed {}",
                    figures.text,
                    odds(ln),
                    odds(needed.ln())
                )
            }
            Verdict::Pass if self.proven(state) => {
                let proof = odds(state.proof().unwrap_or(0.0));
                format!("{}; evidence {proof} that this is {}", figures.text, proven_below(check))
            }
            Verdict::Pass => format!("{}; no sign of harm{}", figures.text, could_see(check, shows_from)),
            Verdict::Inconclusive => self.open(check, state, &figures, &held),
        };
        Finding {
            check: check.name().to_owned(),
            verdict,
            evidence: ln.exp().min(MOST),
            needed,
            candidate: figures.candidate,
            baseline: figures.baseline,
            unit: figures.unit.to_owned(),
            shows_from,
            reason,
        }
    }

    /// Kayenta's rule: nothing before the end, then its score. A watch that was cut short says nothing.
    fn looked_once(&self, check: &Check, state: &State, points: &Points) -> Finding {
        let (verdict, score, reason) = if self.over {
            let said = points.report();
            let others = said.metrics.iter().filter(|metric| !said.reason.contains(&metric.reason));
            let others: String = others.map(|metric| format!("; {}", metric.reason)).collect();
            match self.lacks(check, state) {
                Some(lacks) => (Verdict::Inconclusive, Some(said.score), lacks),
                None => (said.verdict, Some(said.score), format!("{}{others}", said.reason)),
            }
        } else {
            let (most, watched) = (points.most(), span(self.watched_ms));
            let reason = format!(
                "{most} points so far, it looks at the end; watched {watched} of {}",
                span(self.rule.window_ms)
            );
            (Verdict::Inconclusive, None, reason)
        };
        Finding {
            check: check.name().to_owned(),
            verdict,
            evidence: 1.0,
            needed: self.rule.needed(),
            candidate: score,
            baseline: None,
            unit: "score".to_owned(),
            shows_from: None,
            reason: format!("Kayenta's rule: {reason}"),
        }
    }

    fn verdict(&self, check: &Check, state: &State, figures: &Figures) -> Verdict {
        if state.harm() >= self.rule.needed().ln() && !ignored(check, figures) {
            return Verdict::Fail;
        }
        let enough = self.over || self.proven(state);
        let clear = self.lacks(check, state).is_none() && !self.doubtful(check, state, figures);
        if enough && clear { Verdict::Pass } else { Verdict::Inconclusive }
    }

    /// Whether there is as strong evidence that the candidate is well as an alarm needs that it is not.
    fn proven(&self, state: &State) -> bool {
        state.proof().is_some_and(|ln| ln >= self.rule.needed().ln())
    }

    /// Too much evidence for a pass: of harm, or a measurement beyond a fixed limit.
    fn doubtful(&self, check: &Check, state: &State, figures: &Figures) -> bool {
        let suspicious = state.harm() >= -self.rule.doubt.ln() && !ignored(check, figures);
        suspicious || beyond(check, figures)
    }

    /// What is missing for a verdict of the check.
    fn lacks(&self, check: &Check, state: &State) -> Option<String> {
        if self.over && self.watched_ms < self.rule.window_ms && !self.proven(state) {
            return Some(format!("the watch ended after {} of {}", span(self.watched_ms), span(self.rule.window_ms)));
        }
        let min = self.rule.min_requests.max(1);
        let latency = matches!(check, Check::LatencyRatio(_) | Check::LatencyLimit(_));
        let had = |arm: &Arm| if latency { arm.latencies.count() } else { arm.requests };
        let what = if latency { "measured answers" } else { "requests" };
        let arms = [("candidate", self.candidate, true), ("baseline", self.baseline, check.compares())];
        let short = arms.into_iter().find(|(_, arm, asked)| *asked && had(arm) < min);
        if let Some((who, arm, _)) = short {
            return Some(format!("the {who} had {} {what}, a pass needs {}", count(had(arm)), count(min)));
        }
        (!state.has_begun()).then(|| "there was too little data to begin with".to_owned())
    }

    fn open(&self, check: &Check, state: &State, figures: &Figures, held: &str) -> String {
        let lacks = self.lacks(check, state).map(|lacks| format!("; {lacks}")).unwrap_or_default();
        let (evidence, needed) = (odds(state.harm()), odds(self.rule.needed().ln()));
        if !self.over {
            let watched = format!("{} of {}", span(self.watched_ms), span(self.rule.window_ms));
            return format!(
                "{}{lacks}; evidence of harm {evidence}, an alarm needs {needed}; watched {watched}",
                figures.text
            );
        }
        if !lacks.is_empty() {
            return format!("{}{lacks}", figures.text);
        }
        let too = "too much for a pass, too little for an alarm";
        if beyond(check, figures) {
            return format!(
                "{}, which is beyond \"{held}\"; evidence {evidence} is too little for an alarm, which needs {needed}",
                figures.text
            );
        }
        format!("{}; evidence {evidence} against \"{held}\" is {too}, which needs {needed}", figures.text)
    }

    fn figures(&self, check: &Check) -> Figures {
        match check {
            Check::ErrorRatio(_) => self.error_ratio(),
            Check::LatencyRatio(check) => self.latency_ratio(check),
            Check::ErrorLimit(_) => self.error_share(),
            Check::AvailabilityLimit(_) => {
                let answered = self.candidate.error_share().map(|share| 1.0 - share);
                let good = self.candidate.requests.saturating_sub(self.candidate.errors);
                let text = match answered {
                    Some(share) => {
                        format!(
                            "the candidate answered {} ({} of {} requests)",
                            percent(share),
                            count(good),
                            count(self.candidate.requests)
                        )
                    }
                    None => "the candidate had no requests".to_owned(),
                };
                Figures { candidate: answered, baseline: None, unit: "share", text }
            }
            Check::LatencyLimit(check) => {
                let value = quantile_ms(self.candidate, check.quantile);
                let text = match value {
                    Some(value) => {
                        let answers = count(self.candidate.latencies.count());
                        format!(
                            "the candidate's {} is {} ({answers} answers)",
                            quantile_name(check.quantile),
                            ms(value)
                        )
                    }
                    None => "no latency of the candidate was measured".to_owned(),
                };
                Figures { candidate: value, baseline: None, unit: "ms", text }
            }
            Check::ThroughputLimit(_) => {
                let good = self.candidate.requests.saturating_sub(self.candidate.errors);
                let rps = (self.watched_ms > 0).then(|| good as f64 * 1000.0 / self.watched_ms as f64);
                let text =
                    format!("the candidate answered {} requests, {:.1} per second", count(good), rps.unwrap_or(0.0));
                Figures { candidate: rps, baseline: None, unit: "rps", text }
            }
            // Its metrics have figures, and they are in its reasons.
            Check::Kayenta(_) => Figures { candidate: None, baseline: None, unit: "score", text: String::new() },
        }
    }

    fn error_ratio(&self) -> Figures {
        let (candidate, baseline) = (self.candidate.error_share(), self.baseline.error_share());
        let text = match (candidate, baseline) {
            (Some(theirs), Some(ours)) => format!(
                "the candidate's error rate is {} against {} of the baseline ({} of {} and {} of {} requests)",
                percent(theirs),
                percent(ours),
                count(self.candidate.errors),
                count(self.candidate.requests),
                count(self.baseline.errors),
                count(self.baseline.requests)
            ),
            (None, _) => "the candidate had no requests".to_owned(),
            (Some(_), None) => format!("{}; the baseline had no requests", self.error_share().text),
        };
        Figures { candidate, baseline, unit: "share", text }
    }

    fn error_share(&self) -> Figures {
        let candidate = self.candidate.error_share();
        let (errors, requests) = (count(self.candidate.errors), count(self.candidate.requests));
        let text = match candidate {
            Some(share) => {
                format!("the candidate's error rate is {} ({errors} of {requests} requests)", percent(share))
            }
            None => "the candidate had no requests".to_owned(),
        };
        Figures { candidate, baseline: None, unit: "share", text }
    }

    fn latency_ratio(&self, check: &LatencyRatio) -> Figures {
        let of = |arm| quantile_ms(arm, check.quantile);
        let (candidate, baseline) = (of(self.candidate), of(self.baseline));
        let name = quantile_name(check.quantile);
        let text = match (candidate, baseline) {
            (Some(theirs), Some(ours)) => {
                let (a, b) = (count(self.candidate.latencies.count()), count(self.baseline.latencies.count()));
                format!(
                    "the candidate's {name} is {} against {} of the baseline ({a} and {b} answers)",
                    ms(theirs),
                    ms(ours)
                )
            }
            (None, _) => "no latency of the candidate was measured".to_owned(),
            (Some(_), None) => "no latency of the baseline was measured".to_owned(),
        };
        Figures { candidate, baseline, unit: "ms", text }
    }

    /// See [`Finding::shows_from`].
    fn shows_from(&self, check: &Check, state: &State) -> Option<f64> {
        let ln_needed = self.rule.needed().ln();
        let watched = self.watched_ms as f64;
        match check {
            Check::ErrorRatio(check) => {
                let exposed = (self.candidate.requests, self.baseline.requests);
                // With none at all, half an error is the better guess than none.
                let ours = (self.baseline.errors as f64).max(0.5);
                let least = (ours / exposed.1 as f64).max(check.ignore_below);
                let power = share::Power {
                    tolerated: check.tolerated,
                    block_ms: check.block_ms,
                    carry: 0.0,
                    watched,
                    ln_needed,
                };
                smallest(least.min(0.99), 1.0, |rate| power.shows(exposed, rate * exposed.0 as f64, ours))
            }
            Check::LatencyRatio(check) => self.slow_from(check, state, ln_needed),
            Check::ErrorLimit(check) => self.mean_from(check.at_most, check.block_ms, ln_needed),
            Check::AvailabilityLimit(check) => {
                self.mean_from(1.0 - check.at_least, check.block_ms, ln_needed).map(|errors| 1.0 - errors)
            }
            Check::LatencyLimit(check) => {
                // So large a share above the limit would have shown; where that much is above it, the whole is so much slower.
                let share = self.mean_from(1.0 - check.quantile, check.block_ms, ln_needed)?;
                let latencies = &self.candidate.latencies;
                let (now, then) = (latencies.quantile_us(check.quantile)?, latencies.quantile_us(1.0 - share)?);
                Some(check.at_most_ms * now as f64 / then.max(1) as f64)
            }
            Check::ThroughputLimit(_) | Check::Kayenta(_) => None,
        }
    }

    fn slow_from(&self, check: &LatencyRatio, state: &State, ln_needed: f64) -> Option<f64> {
        let bar = state.bar_us()?;
        let (ours, theirs) = (&self.baseline.latencies, self.candidate.latencies.count());
        let slow = (ours.count_above(bar) as f64).max(0.5);
        let exposed = (theirs, ours.count());
        let power = share::Power {
            tolerated: 1.0,
            block_ms: check.block_ms,
            carry: check.carry,
            watched: self.watched_ms as f64,
            ln_needed,
        };
        let share = smallest(slow / exposed.1 as f64, 1.0, |share| power.shows(exposed, share * theirs as f64, slow))?;
        // Where the baseline has that share above a value, a candidate slower by bar over value has it above the bar.
        let (now, then) = (ours.quantile_us(check.quantile)?, ours.quantile_us(1.0 - share)?);
        Some(now as f64 / 1000.0 * check.tolerated * bar as f64 / then.max(1) as f64)
    }

    fn mean_from(&self, limit: f64, block_ms: u64, ln_needed: f64) -> Option<f64> {
        let blocks = (self.watched_ms / block_ms.max(1)).max(1) as f64;
        let each = self.candidate.requests as f64 / blocks;
        smallest(limit, 1.0, |mean| shows(&Seen { mean, each, blocks }, ln_needed, mean::bettors(limit)))
    }
}

/// The tolerated state, in words.
fn held(check: &Check) -> String {
    let than = |tolerated: f64, equal: &str| match tolerated {
        1.0 => equal.to_owned(),
        _ => format!("at most {}", times(tolerated)),
    };
    match check {
        Check::ErrorRatio(check) => than(check.tolerated, "no more errors than the baseline"),
        Check::LatencyRatio(check) => than(check.tolerated, "no slower than the baseline"),
        Check::ErrorLimit(check) => format!("at most {}", percent(check.at_most)),
        Check::AvailabilityLimit(check) => format!("at least {}", availability(check.at_least)),
        Check::LatencyLimit(check) => format!("{} at most {}", quantile_name(check.quantile), ms(check.at_most_ms)),
        Check::ThroughputLimit(check) => format!("at least {} requests per second", check.at_least_rps),
        Check::Kayenta(check) => format!("a score of at least {}", check.pass),
    }
}

/// What a proof proves, in words.
fn proven_below(check: &Check) -> String {
    let ratio = match check {
        Check::ErrorRatio(check) => check.proven_below,
        Check::LatencyRatio(check) => check.proven_below,
        _ => None,
    };
    ratio.map_or_else(String::new, |ratio| format!("below {} the baseline's", times(ratio)))
}

/// What would have shown, in words.
fn could_see(check: &Check, from: Option<f64>) -> String {
    let Some(from) = from else {
        return match check {
            Check::ThroughputLimit(_) | Check::Kayenta(_) => String::new(),
            _ => "; but with so little traffic even great harm might not have shown".to_owned(),
        };
    };
    let often = "would have shown in nine of ten such watches";
    match check {
        Check::ErrorRatio(_) | Check::ErrorLimit(_) => format!("; an error rate of {} {often}", percent(from)),
        Check::AvailabilityLimit(_) => format!("; an availability of {} {often}", availability(from)),
        Check::LatencyRatio(_) | Check::LatencyLimit(_) => format!("; one of {} {often}", ms(from)),
        Check::ThroughputLimit(_) | Check::Kayenta(_) => String::new(),
    }
}

/// A share near 1, which must not be rounded to it.
fn availability(share: f64) -> String {
    let text = format!("{:.3}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Whether the candidate is good enough not to be failed whatever the baseline does.
fn ignored(check: &Check, figures: &Figures) -> bool {
    match check {
        Check::ErrorRatio(check) => figures.candidate.is_some_and(|share| share < check.ignore_below),
        _ => false,
    }
}

/// Whether a fixed limit is exceeded by what was measured.
fn beyond(check: &Check, figures: &Figures) -> bool {
    let Some(value) = figures.candidate else { return false };
    match check {
        Check::ErrorLimit(check) => value > check.at_most,
        Check::AvailabilityLimit(check) => value < check.at_least,
        Check::LatencyLimit(check) => value > check.at_most_ms,
        Check::ThroughputLimit(check) => value < check.at_least_rps,
        Check::ErrorRatio(_) | Check::LatencyRatio(_) | Check::Kayenta(_) => false,
    }
}

fn quantile_ms(arm: &Arm, quantile: f64) -> Option<f64> {
    arm.latencies.quantile_us(quantile).map(|us| us as f64 / 1000.0)
}

/// `p99`, `p99.9`.
fn quantile_name(quantile: f64) -> String {
    let text = format!("{:.3}", quantile * 100.0);
    format!("p{}", text.trim_end_matches('0').trim_end_matches('.'))
}
