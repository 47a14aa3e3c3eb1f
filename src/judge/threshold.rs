//! Plain thresholds on named metrics, with Argo Rollouts' words: measured every `interval`, held against conditions, counted.
//!
//! The conditions are expressions that the caller evaluates; this is the counting. One function, [`ThresholdState::on`], takes a
//! measurement's outcome to the next state.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::verdict::Verdict;

/// Errors in a row that are endured where a metric does not say, as in Argo.
pub const DEFAULT_CONSECUTIVE_ERROR_LIMIT: u32 = 4;
/// Pause after a measurement that could not be made, in milliseconds, as in Argo.
pub const ERROR_RETRY_MS: u64 = 10_000;

/// A metric with its conditions and how many outcomes decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The metric's name.
    pub name: String,
    /// Pause between two measurements, in milliseconds. Without one it is measured once.
    #[serde(default)]
    pub interval_ms: Option<u64>,
    /// Pause before the first measurement, in milliseconds.
    #[serde(default)]
    pub initial_delay_ms: u64,
    /// Measurements that are made, those in error not counted. Without a number: once without an interval, else until the run ends.
    #[serde(default)]
    pub count: Option<u32>,
    /// A measurement for which this holds is successful. An expression; the caller evaluates it.
    #[serde(default)]
    pub success_condition: Option<String>,
    /// A measurement for which this holds has failed. An expression; the caller evaluates it.
    #[serde(default)]
    pub failure_condition: Option<String>,
    /// So many measurements may fail.
    #[serde(default)]
    pub failure_limit: u32,
    /// So many may be inconclusive.
    #[serde(default)]
    pub inconclusive_limit: u32,
    /// So many in a row may be errors.
    #[serde(default = "errors_in_a_row")]
    pub consecutive_error_limit: u32,
    /// So many successes in a row end it successfully; absent: they do not.
    #[serde(default)]
    pub consecutive_success_limit: Option<u32>,
    /// It is measured and reported, and decides nothing.
    #[serde(default)]
    pub dry_run: bool,
}

fn errors_in_a_row() -> u32 {
    DEFAULT_CONSECUTIVE_ERROR_LIMIT
}

/// How one measurement ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The success condition held, or the failure condition alone did not.
    Success,
    /// The failure condition held, or the success condition alone did not.
    Failure,
    /// There are both, and neither held.
    Inconclusive,
    /// It could not be measured or evaluated.
    Error(String),
}

impl Outcome {
    /// The outcome from what the conditions said; `None` where there is none. Without any condition every measurement is a success, as in
    /// Argo.
    pub fn of(success: Option<Result<bool, String>>, failure: Option<Result<bool, String>>) -> Self {
        match (success, failure) {
            (Some(Err(why)), _) | (_, Some(Err(why))) => Self::Error(why),
            (_, Some(Ok(true))) | (Some(Ok(false)), None) => Self::Failure,
            (Some(Ok(true)), _) | (None, _) => Self::Success,
            (Some(Ok(false)), Some(Ok(false))) => Self::Inconclusive,
        }
    }
}

/// Where a metric, or all of them, stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub enum Phase {
    /// It ended well.
    Successful,
    /// It goes on.
    #[default]
    Running,
    /// Too many measurements were neither good nor bad; a human should look.
    Inconclusive,
    /// It could not be measured too often in a row.
    Error,
    /// Too many measurements failed.
    Failed,
}

impl Phase {
    /// Whether nothing changes it any more.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Running => false,
            Self::Successful | Self::Inconclusive | Self::Error | Self::Failed => true,
        }
    }

    /// As a verdict. What could not be measured is inconclusive: it says nothing of the candidate.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Successful => Verdict::Pass,
            Self::Failed => Verdict::Fail,
            Self::Running | Self::Inconclusive | Self::Error => Verdict::Inconclusive,
        }
    }
}

/// What was counted of a metric.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThresholdState {
    /// Where it stands.
    pub phase: Phase,
    /// Successful measurements.
    pub successful: u32,
    /// Failed ones.
    pub failed: u32,
    /// Inconclusive ones.
    pub inconclusive: u32,
    /// Those that could not be made.
    pub errors: u32,
    /// The latest of which were so many in a row.
    pub consecutive_errors: u32,
    /// The latest of the successful ones, in a row.
    pub consecutive_successes: u32,
    /// Why it stands there, in a sentence.
    pub reason: String,
}

impl Threshold {
    /// Measurements that are made; `None`: until the run ends.
    pub fn effective_count(&self) -> Option<u32> {
        self.count.or(if self.interval_ms.is_none() { Some(1) } else { None })
    }

    /// How long after the beginning, or after the last measurement, the next one is due, in milliseconds; `None` when none is.
    pub fn next_after_ms(&self, state: &ThresholdState) -> Option<u64> {
        if state.phase.is_terminal() {
            return None;
        }
        Some(match () {
            () if state.measurements() + state.errors == 0 => self.initial_delay_ms,
            () if state.consecutive_errors > 0 => self.interval_ms.unwrap_or(ERROR_RETRY_MS).min(ERROR_RETRY_MS),
            () => self.interval_ms.unwrap_or(0),
        })
    }
}

impl ThresholdState {
    /// Measurements that were made.
    pub fn measurements(&self) -> u32 {
        self.successful.saturating_add(self.failed).saturating_add(self.inconclusive)
    }

    /// The state after a measurement. A state that is terminal stays as it is.
    #[must_use]
    pub fn on(&self, metric: &Threshold, outcome: &Outcome) -> Self {
        if self.phase.is_terminal() {
            return self.clone();
        }
        let mut next = self.clone();
        next.consecutive_errors = 0;
        match outcome {
            Outcome::Success => {
                next.successful = next.successful.saturating_add(1);
                next.consecutive_successes = next.consecutive_successes.saturating_add(1);
            }
            Outcome::Failure => next.failed = next.failed.saturating_add(1),
            Outcome::Inconclusive => next.inconclusive = next.inconclusive.saturating_add(1),
            Outcome::Error(_) => {
                next.errors = next.errors.saturating_add(1);
                next.consecutive_errors = self.consecutive_errors.saturating_add(1);
            }
        }
        if *outcome != Outcome::Success {
            next.consecutive_successes = 0;
        }
        (next.phase, next.reason) = next.assess(metric, outcome);
        next
    }

    /// The state when the run ends, for a metric that would go on for ever: successful if it was measured at all.
    #[must_use]
    pub fn at_end(&self, metric: &Threshold) -> Self {
        if self.phase.is_terminal() {
            return self.clone();
        }
        let name = &metric.name;
        let (phase, reason) = match (self.measurements(), metric.effective_count()) {
            (0, _) => (Phase::Inconclusive, format!("{name} was never measured")),
            (made, Some(count)) => (Phase::Inconclusive, format!("{name} was measured {made} of {count} times")),
            (made, None) => {
                (Phase::Successful, format!("{name}: {} of {made} measurements were good", self.successful))
            }
        };
        Self { phase, reason, ..self.clone() }
    }

    fn assess(&self, metric: &Threshold, outcome: &Outcome) -> (Phase, String) {
        let name = &metric.name;
        let of = |n: u32, what: &str, limit: u32| format!("{name}: {n} {what}, allowed {limit}");
        if self.failed > metric.failure_limit {
            return (Phase::Failed, of(self.failed, "measurement(s) failed", metric.failure_limit));
        }
        if self.inconclusive > metric.inconclusive_limit {
            let reason = of(self.inconclusive, "measurement(s) were inconclusive", metric.inconclusive_limit);
            return (Phase::Inconclusive, reason);
        }
        if self.consecutive_errors > metric.consecutive_error_limit {
            let why = if let Outcome::Error(why) = outcome { format!(": {why}") } else { String::new() };
            let reason = of(self.consecutive_errors, "errors in a row", metric.consecutive_error_limit);
            return (Phase::Error, format!("{reason}{why}"));
        }
        if let Some(limit) = metric.consecutive_success_limit.filter(|limit| self.consecutive_successes >= *limit) {
            return (Phase::Successful, format!("{name}: {limit} successes in a row"));
        }
        let made = self.measurements();
        match metric.effective_count() {
            Some(count) if made >= count && metric.consecutive_success_limit.is_some() => {
                (Phase::Inconclusive, format!("{name}: {made} measurements without enough successes in a row"))
            }
            Some(count) if made >= count => {
                (Phase::Successful, format!("{name}: {} of {made} measurements were good", self.successful))
            }
            Some(count) => (Phase::Running, format!("{name}: {made} of {count} measurements made")),
            None => (Phase::Running, format!("{name}: {made} measurements made")),
        }
    }
}

/// Where all metrics stand together: the worst that decides, else running while any runs. Dry runs decide nothing; if there is nothing
/// else, nothing was held: inconclusive.
pub fn overall<'a>(metrics: impl IntoIterator<Item = (&'a Threshold, &'a ThresholdState)>) -> Phase {
    let deciding = metrics.into_iter().filter(|(metric, _)| !metric.dry_run).map(|(_, state)| state.phase);
    deciding.max().unwrap_or(Phase::Inconclusive)
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Failure, Inconclusive, Success};
    use super::*;

    fn metric(json: serde_json::Value) -> Threshold {
        let mut whole = serde_json::json!({"name": "m"});
        for (key, value) in json.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).expect("a metric")
    }

    fn after(metric: &Threshold, outcomes: &[Outcome]) -> ThresholdState {
        outcomes.iter().fold(ThresholdState::default(), |state, outcome| state.on(metric, outcome))
    }

    #[test]
    fn outcomes_are_argos() {
        let of = |success, failure| Outcome::of(success, failure);
        let (yes, no) = (Some(Ok(true)), Some(Ok(false)));
        assert_eq!((of(yes.clone(), None), of(no.clone(), None)), (Success, Failure));
        assert_eq!((of(None, yes.clone()), of(None, no.clone())), (Failure, Success));
        assert_eq!((of(no.clone(), no.clone()), of(yes.clone(), yes.clone())), (Inconclusive, Failure));
        assert_eq!((of(None, None), of(yes.clone(), no)), (Success, Success));
        assert_eq!(of(yes, Some(Err("no such metric".into()))), Outcome::Error("no such metric".into()));
    }

    #[test]
    fn limits_decide() {
        let error = || Outcome::Error("timeout".into());
        let five = metric(serde_json::json!({"interval_ms": 1000, "count": 5, "failure_limit": 1}));
        assert_eq!(after(&five, &[Success, Failure, Success, Success]).phase, Phase::Running);
        assert_eq!(after(&five, &[Success, Failure, Success, Success, Success]).phase, Phase::Successful);
        let failed = after(&five, &[Failure, Success, Failure, Success]);
        assert_eq!((failed.phase, failed.successful), (Phase::Failed, 1), "nothing is counted after the end");
        assert_eq!(failed.reason, "m: 2 measurement(s) failed, allowed 1");
        assert_eq!(after(&five, &[Inconclusive]).phase, Phase::Inconclusive);
        assert_eq!(after(&five, &[error(), error(), error(), error()]).phase, Phase::Running);
        let broken = after(&five, &[error(), error(), error(), error(), error()]);
        assert_eq!((broken.phase, broken.phase.verdict()), (Phase::Error, Verdict::Inconclusive));
        assert!(broken.reason.ends_with("5 errors in a row, allowed 4: timeout"), "{}", broken.reason);
        let patient = [error(), error(), error(), error(), Success, error(), error()];
        assert_eq!(after(&five, &patient).phase, Phase::Running);
    }

    #[test]
    fn successes_in_a_row() {
        let three = metric(
            serde_json::json!({"interval_ms": 1, "count": 6, "failure_limit": 9, "consecutive_success_limit": 3}),
        );
        assert_eq!(after(&three, &[Success, Success, Failure, Success, Success, Success]).phase, Phase::Successful);
        assert_eq!(after(&three, &[Success, Success, Failure, Success, Success, Failure]).phase, Phase::Inconclusive);
    }

    #[test]
    fn when_the_next_is_due() {
        let slow = metric(serde_json::json!({"interval_ms": 60_000, "initial_delay_ms": 500}));
        let next = |outcomes: &[Outcome]| slow.next_after_ms(&after(&slow, outcomes));
        assert_eq!(
            (next(&[]), next(&[Success]), next(&[Outcome::Error(String::new())])),
            (Some(500), Some(60_000), Some(10_000))
        );
        assert_eq!(next(&[Failure]), None);
        let once = metric(serde_json::json!({}));
        assert_eq!(after(&once, &[Success]).phase, Phase::Successful);
    }

    #[test]
    fn the_end_and_the_whole() {
        let open = metric(serde_json::json!({"interval_ms": 1000}));
        assert_eq!(after(&open, &[]).at_end(&open).phase, Phase::Inconclusive, "no data is no pass");
        assert_eq!(after(&open, &[Success]).at_end(&open).phase, Phase::Successful);
        let dry = metric(serde_json::json!({"dry_run": true}));
        let (good, bad) = (after(&open, &[Success]).at_end(&open), after(&dry, &[Failure]));
        assert_eq!(overall([(&open, &good), (&dry, &bad)]), Phase::Successful);
        assert_eq!(overall([(&dry, &bad)]), Phase::Inconclusive);
        assert_eq!(overall([(&open, &good), (&open, &after(&open, &[Failure]))]), Phase::Failed);
        assert_eq!(overall([(&open, &good), (&open, &ThresholdState::default())]), Phase::Running);
    }
}
