//! How far a trial has come, and what the judge knows: one value that lies in the state.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::graph::Failure;
use crate::judge::answers::Answers;
use crate::judge::{Arm, Judgement, Monitor, Report, Rule, RuleError, Sample, Verdict};
use crate::nodes::Metrics;
use crate::ports::{MirrorAnswer, MirrorPage, SeriesPage, WHOLE, first_of};
use crate::release::units::duration_text;
use crate::release::{CanaryStep, MetricPlan, Trial};

/// How far a trial has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrialState {
    /// The step that is next, or under way, from 0.
    pub step: usize,
    /// The new version's part of the traffic, of 100,000.
    pub weight: u32,
    /// How long the step has lasted, in milliseconds.
    pub waited_ms: u64,
    /// Somebody holds it where it is.
    pub paused: bool,
    /// Somebody promotes it, whatever the judge says: who.
    pub promoted: Option<String>,
    /// The last second that the judge has seen, since 1970.
    pub seen: u64,
    /// What the judge knows of errors and times.
    pub monitor: Monitor,
    /// The judge's report, once there is one that stands.
    pub report: Option<Report>,
    /// What a shadow's answers show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
    /// The last pair of answers that was compared, and since when the gateway numbers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<(u64, DateTime<Utc>)>,
    /// Requests that were to be repeated and were not, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, u64>,
    /// Where the user's own figures stand.
    #[serde(default)]
    pub metrics: Metrics,
    /// Whether all of the traffic may go to it.
    pub done: bool,
}

impl TrialState {
    /// At the beginning of a trial.
    pub(super) fn of(trial: &Trial, metrics: Vec<MetricPlan>) -> Result<Self, Failure> {
        let unusable = |error: String| {
            Failure::new("trial_invalid", format!("the rule of the {} cannot be used", trial.called)).because(error)
        };
        let compare = trial.shadow.as_ref().map(|shadow| Answers::new(shadow.compare.clone()));
        let answers = compare.transpose().map_err(|e| unusable(e.to_string()))?;
        let held = Self::held(trial.analysis.clone()).map_err(|e| unusable(e.to_string()))?;
        Ok(Self { answers, metrics: Metrics::of(metrics), ..held })
    }

    /// At the beginning, with a rule and nothing else.
    fn held(rule: Rule) -> Result<Self, RuleError> {
        let (step, weight, waited_ms, seen) = (0, 0, 0, 0);
        let (paused, done, promoted, report) = (false, false, None, None);
        let (answers, compared, dropped) = (None, None, BTreeMap::new());
        let (monitor, metrics) = (Monitor::new(rule)?, Metrics::default());
        Ok(Self {
            step,
            weight,
            waited_ms,
            paused,
            promoted,
            seen,
            monitor,
            report,
            answers,
            compared,
            dropped,
            metrics,
            done,
        })
    }

    /// Of a version that there is nothing to hold against.
    pub(super) fn nothing_to_try() -> Result<Self, Failure> {
        let unusable =
            |e: RuleError| Failure::new("trial_invalid", "the judge's rule cannot be used").because(e.to_string());
        Ok(Self { done: true, ..Self::held(Rule::default()).map_err(unusable)? })
    }

    pub(super) fn next_step(self) -> Self {
        Self { step: self.step + 1, waited_ms: 0, paused: false, ..self }
    }

    /// With a judge that has seen nothing yet.
    pub(super) fn judged_anew(self) -> Self {
        match Monitor::new(self.monitor.rule().clone()) {
            Ok(monitor) => Self { monitor, report: None, ..self },
            // It was usable before.
            Err(_) => self,
        }
    }

    /// Whether nothing but a pass leads on: in a step `analysis`, and behind the last one.
    pub(super) fn needs_pass(&self, trial: &Trial) -> bool {
        trial.steps.get(self.step).is_none_or(|step| *step == CanaryStep::Analysis)
    }

    /// Whether its share is one that is judged.
    pub(super) fn is_judged(&self, trial: &Trial) -> bool {
        self.weight >= trial.judged_from
    }

    /// Shows the judge nothing of what was.
    pub(super) fn pass_over(&mut self, page: &SeriesPage) {
        self.seen = self.seen.max(page.until);
    }

    /// Shows the judge all seconds that are complete and that it has not seen.
    pub(super) fn look(&mut self, page: &SeriesPage, live: &str, candidate: &str) -> Option<Judgement> {
        let mut samples: BTreeMap<u64, Sample> = BTreeMap::new();
        for slot in &page.slots {
            for second in slot.seconds.iter().filter(|second| second.second > self.seen && second.second <= page.until)
            {
                let sample = samples.entry(second.second).or_default();
                if first_of(&slot.token) == live {
                    sample.baseline.merge(&second.arm());
                } else if first_of(&slot.token) == candidate {
                    sample.candidate.merge(&second.arm());
                }
            }
        }
        self.take(samples, page.until)
    }

    /// Shows the judge the pairs of a page: how each side ended, how long it took, and whether the answers agree.
    ///
    /// # Errors
    /// When the rule cannot be used.
    pub(super) fn compare(&mut self, page: &MirrorPage) -> Result<Option<Judgement>, Failure> {
        let mut samples: BTreeMap<u64, Sample> = BTreeMap::new();
        let until = u64::try_from(page.pairs.last().map_or(0, |pair| pair.at.timestamp())).unwrap_or(0);
        for pair in &page.pairs {
            let second = u64::try_from(pair.at.timestamp()).unwrap_or(0).max(self.seen + 1);
            let sample = samples.entry(second).or_default();
            sample.baseline.merge(&arm(&pair.live));
            sample.candidate.merge(&arm(&pair.candidate));
            // What failed is counted as that; what users did wrong has no answer worth comparing.
            let (Some(answers), Some(live), Some(candidate)) =
                (&mut self.answers, said(&pair.live), said(&pair.candidate))
            else {
                continue;
            };
            let failed = |e: crate::judge::answers::AnswersError| {
                Failure::new("trial_invalid", "answers cannot be compared").because(e.to_string())
            };
            answers.look(&live, &candidate).map_err(failed)?;
        }
        self.compared = Some((page.last, page.since));
        self.dropped.clone_from(&page.dropped);
        Ok(self.take(samples, until))
    }

    fn take(&mut self, mut samples: BTreeMap<u64, Sample>, until: u64) -> Option<Judgement> {
        if until > self.seen {
            // Also a silent second is one.
            samples.entry(until).or_default();
        }
        self.seen = samples.keys().next_back().map_or(self.seen, |last| self.seen.max(*last));
        let mut last = None;
        for (second, sample) in samples {
            // Only the order could be wrong, and a map has none that is.
            last = self.monitor.look(&Sample { at_ms: second * 1000, ..sample }).ok();
            match &last {
                Some(judgement) if judgement.verdict == Verdict::Fail => break,
                Some(judgement) if judgement.decided => self.begin_anew(),
                _ => {}
            }
        }
        last
    }

    /// The rule's window is over and the trial is not: what the judge says stands, and it goes on looking.
    fn begin_anew(&mut self) {
        if let Ok(fresh) = Monitor::new(self.monitor.rule().clone()) {
            let over = std::mem::replace(&mut self.monitor, fresh);
            self.report = Some(over.report());
        }
    }

    /// The judge's report at the end of a step: of the last window that is whole, else of what it has seen.
    pub(super) fn ended(&self, lasts: Option<u64>) -> Option<Report> {
        let over = lasts.is_some_and(|ms| self.waited_ms >= ms);
        let whole = self.report.as_ref().filter(|report| report.judgement.verdict == Verdict::Pass);
        if !over || whole.is_some() {
            return self.report.clone();
        }
        let mut monitor = self.monitor.clone();
        monitor.end(self.seen * 1000);
        Some(monitor.report())
    }

    /// What all of it comes to: nothing passes that has not been shown to.
    pub(super) fn verdict(&self) -> Verdict {
        let judged = self.report.as_ref().map_or(Verdict::Inconclusive, |report| report.judgement.verdict);
        let answers = self.answers.as_ref().map_or(Verdict::Pass, |answers| answers.report().verdict);
        let all = [judged, answers, self.metrics.verdict()];
        if all.contains(&Verdict::Fail) {
            Verdict::Fail
        } else if all.contains(&Verdict::Inconclusive) {
            Verdict::Inconclusive
        } else {
            Verdict::Pass
        }
    }

    /// Why, with numbers.
    pub(super) fn reason(&self) -> String {
        let judged = self.reason_of_judge();
        match self.metrics.doubt() {
            Some(doubt) => format!("{doubt}; {judged}"),
            None => judged,
        }
    }

    fn reason_of_judge(&self) -> String {
        let judged = self.report.as_ref().map_or_else(|| self.monitor.report(), Clone::clone).judgement.reason;
        let Some(answers) = &self.answers else { return judged };
        let dropped: u64 = self.dropped.values().sum();
        let dropped = if dropped > 0 { format!("; {dropped} requests were not repeated") } else { String::new() };
        format!("{}{dropped}; {judged}", answers.report().reason)
    }

    /// One line for whoever looks on.
    pub(super) fn line(&self, called: &str, lasts: Option<u64>, until: &str) -> String {
        let report = self.monitor.report();
        let share = f64::from(self.weight) * 100.0 / f64::from(WHOLE);
        let time = match lasts {
            Some(ms) => format!("{} of {}", duration_text(self.waited_ms / 1000 * 1000), duration_text(ms)),
            None => until.to_owned(),
        };
        let [requests, errors] = report.candidate;
        match &self.answers {
            None => format!("{called} at {share} %, {time}: {requests} requests, {errors} errors"),
            Some(answers) => {
                let report = answers.report();
                format!(
                    "{called}, {time}: {} answers compared, {} differ, {errors} errors",
                    report.pairs, report.differing
                )
            }
        }
    }
}

/// How one answer counts.
fn arm(answer: &MirrorAnswer) -> Arm {
    let mut arm = Arm::of(1, u64::from(answer.status.is_none_or(|status| status >= 500)));
    if answer.status.is_some() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a time is not below 0, and `as` stops at the ends"
        )]
        arm.latencies.record((answer.latency_ms * 1000.0) as u64);
    }
    arm
}

/// What a good answer said: as JSON where it is that, else as text. `None` where it is not whole.
fn said(answer: &MirrorAnswer) -> Option<Value> {
    if !answer.status.is_some_and(|status| (200..300).contains(&status)) || answer.body.cut {
        return None;
    }
    let text = answer.body.text.as_ref().or(answer.body.hex.as_ref())?;
    Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use serde_json::json;

    use crate::judge::answers::AnswersRule;
    use crate::judge::{Check, ErrorRatio};
    use crate::ports::{MirrorBody, MirrorPair, SlotSeries, TrafficSecond};

    fn state(window_s: u64) -> TrialState {
        let checks = vec![Check::ErrorRatio(ErrorRatio::default())];
        let rule = Rule { window_ms: window_s * 1000, min_requests: 20, checks, ..Rule::default() };
        TrialState { seen: 100, ..TrialState::held(rule).unwrap() }
    }

    /// Both versions in the seconds after 100 up to `until`; of the candidate's ten requests each second `errors` fail from `bad` on.
    fn page(until: u64, bad: u64, errors: u64) -> SeriesPage {
        let second = |second, errors| TrafficSecond { second, requests: 10, errors, ..TrafficSecond::default() };
        let slot = |token: &str, from: u64, errors: u64| SlotSeries {
            token: token.into(),
            version: token.into(),
            seconds: (101..=until).map(|s| second(s, if s >= from { errors } else { 0 })).collect(),
        };
        SeriesPage { since: 1, until, slots: vec![slot("live", 0, 0), slot("new", bad, errors)] }
    }

    #[test]
    fn a_window_that_is_over_is_followed_by_another_one() {
        let mut state = state(20);
        let judgement = state.look(&page(140, 1000, 0), "live", "new").unwrap();
        assert_eq!((state.seen, judgement.verdict == Verdict::Fail), (140, false));
        assert_eq!(state.report.as_ref().map(|report| report.judgement.verdict), Some(Verdict::Pass));
        // Later harm is seen, long after the first window.
        let judgement = state.look(&page(200, 150, 10), "live", "new").unwrap();
        assert_eq!(judgement.verdict, Verdict::Fail, "{}", judgement.reason);
    }

    #[test]
    fn what_was_before_the_judged_share_is_passed_over() {
        let mut state = state(20);
        state.pass_over(&page(130, 101, 10));
        assert_eq!((state.seen, state.monitor.report().candidate), (130, [0, 0]));
        state.pass_over(&page(120, 101, 10));
        assert_eq!(
            state.look(&page(140, 1000, 0), "live", "new").map(|said| said.verdict),
            Some(Verdict::Inconclusive)
        );
        assert_eq!((state.seen, state.monitor.report().candidate), (140, [100, 0]));
    }

    #[test]
    fn nothing_seen_is_no_pass() {
        let mut quiet = state(20);
        let silent = SeriesPage { since: 1, until: 130, slots: Vec::new() };
        quiet.look(&silent, "live", "new");
        quiet.waited_ms = 30_000;
        let report = quiet.ended(Some(30_000)).unwrap();
        assert_eq!(report.judgement.verdict, Verdict::Inconclusive);
        // What was seen counts once.
        let mut state = state(60);
        state.look(&page(110, 1000, 0), "live", "new");
        state.look(&page(110, 1000, 0), "live", "new");
        assert_eq!(state.monitor.report().candidate, [100, 0]);
    }

    #[test]
    fn kayenta_s_rule_says_so_at_the_window_s_end() {
        let kayenta =
            json!({"step_ms": 2000, "min_points": 10, "metrics": [{"name": "error_rate", "direction": "increase"}]});
        let rule = json!({"window_ms": 40_000, "checks": [{"kayenta": kayenta}]});
        let held = || {
            let rule: Rule = serde_json::from_value(rule.clone()).unwrap();
            TrialState { seen: 100, ..TrialState::held(rule).unwrap() }
        };
        let (mut early, mut well, mut bad) = (held(), held(), held());
        let judgement = early.look(&page(130, 101, 10), "live", "new").unwrap();
        assert_eq!(judgement.verdict, Verdict::Inconclusive, "{}", judgement.reason);
        well.look(&page(145, 1000, 0), "live", "new").unwrap();
        assert_eq!(well.report.as_ref().map(|report| report.judgement.verdict), Some(Verdict::Pass));
        let judgement = bad.look(&page(145, 101, 3), "live", "new").unwrap();
        assert!(
            judgement.verdict == Verdict::Fail && judgement.reason.contains("error_rate is higher"),
            "{}",
            judgement.reason
        );
    }

    fn answered(status: Option<u16>, text: &str) -> MirrorAnswer {
        MirrorAnswer {
            version: "v".into(),
            slot: "s".into(),
            status,
            content_type: None,
            body: MirrorBody { text: Some(text.into()), hex: None, cut: false },
            latency_ms: 2.5,
        }
    }

    fn pairs(count: u64, candidate: &MirrorAnswer) -> MirrorPage {
        let pair = |number: u64| MirrorPair {
            number,
            at: Utc.timestamp_opt(200 + i64::try_from(number / 10).unwrap(), 0).unwrap(),
            method: "POST".into(),
            path: "/classify".into(),
            live: answered(Some(200), r#"{"label": 1, "score": 0.5}"#),
            candidate: candidate.clone(),
        };
        let dropped = [("busy".to_owned(), 3)].into();
        MirrorPage {
            since: Utc.timestamp_opt(100, 0).unwrap(),
            last: count,
            missed: 0,
            dropped,
            pairs: (1..=count).map(pair).collect(),
        }
    }

    fn shadow() -> TrialState {
        let answers = Answers::new(AnswersRule { absolute: 0.01, ..AnswersRule::default() }).unwrap();
        TrialState { answers: Some(answers), ..state(60) }
    }

    #[test]
    fn answers_that_agree_pass_and_those_that_do_not_are_told() {
        let mut same = shadow();
        same.compare(&pairs(600, &answered(Some(200), r#"{"score": 0.505, "label": 1}"#))).unwrap();
        assert_eq!(same.answers.as_ref().unwrap().report().pairs, 600);
        assert!(same.reason().contains("3 requests were not repeated"), "{}", same.reason());
        let mut other = shadow();
        other.compare(&pairs(100, &answered(Some(200), r#"{"label": 2, "score": 0.5}"#))).unwrap();
        let report = other.answers.as_ref().unwrap().report();
        assert_eq!((report.verdict, report.examples[0].path.contains("label")), (Verdict::Fail, true), "{report:?}");
    }

    #[test]
    fn an_answer_that_never_came_is_an_error_and_no_difference() {
        let mut dead = shadow();
        let judgement = dead.compare(&pairs(200, &answered(None, ""))).unwrap().unwrap();
        assert_eq!(judgement.verdict, Verdict::Fail, "{}", judgement.reason);
        assert_eq!(dead.answers.as_ref().unwrap().report().pairs, 0);
        assert_eq!(dead.verdict(), Verdict::Inconclusive, "no report stands yet, and no data is no pass");
    }
}
