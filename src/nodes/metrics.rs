//! The user's own figures: asked for in time, held against their conditions, counted. Beside whatever else looks at a version, so that a
//! query that hangs holds up nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::graph::Failure;
use crate::judge::Verdict;
use crate::judge::threshold::{Outcome, Phase, Threshold, ThresholdState, overall};
use crate::ports::Expressions;
use crate::release::MetricPlan;

mod gauge;
#[cfg(test)]
mod tests;

pub(super) use gauge::Gauge;

/// Measurements that are kept of a metric: as many as a plot of a terminal's width can show. When they are reached every other one goes.
const MOST_POINTS: usize = 120;
/// Longest text of a value that is kept, and of why there is none.
const VALUE_CHARS: usize = 200;
const ERROR_CHARS: usize = 400;

/// Where all metrics of a watch stand. It lies in the state: a watch that is taken up again goes on counting.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    /// How long they have been watched, in milliseconds.
    pub watched_ms: u64,
    /// Each of them.
    pub all: Vec<Metric>,
}

/// Where a metric stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// What is held, and where its value comes from.
    pub plan: MetricPlan,
    /// What was counted.
    pub counted: ThresholdState,
    /// When it is measured next, in milliseconds of the watch.
    pub next_ms: u64,
    /// What was measured, oldest first.
    pub points: Vec<MetricPoint>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricPoint {
    /// When.
    pub at: DateTime<Utc>,
    /// What came of it; null where it could not be made.
    pub value: Value,
    /// What came of the same measurement of the live version, where both are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Value>,
    /// How it counts.
    pub outcome: Outcome,
}

/// What one measurement came to.
#[derive(Debug, Clone, PartialEq)]
struct Measured {
    value: Value,
    live: Option<Value>,
    outcome: Outcome,
}

/// Both versions' value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub(super) metric: String,
    pub(super) live: Option<f64>,
    pub(super) candidate: Option<f64>,
}

impl Metrics {
    /// At the beginning of a watch.
    pub(super) fn of(plans: Vec<MetricPlan>) -> Self {
        let metric = |plan: MetricPlan| Metric {
            counted: ThresholdState::default(),
            next_ms: plan.threshold.initial_delay_ms,
            points: Vec::new(),
            plan,
        };
        Self { watched_ms: 0, all: plans.into_iter().map(metric).collect() }
    }

    /// With another try for those that could not be measured: whoever measures may be back.
    pub(super) fn tried_again(mut self) -> Self {
        let lost = self.all.iter_mut().filter(|metric| metric.counted.phase == Phase::Error);
        lost.for_each(|metric| {
            metric.counted = ThresholdState { phase: Phase::Running, consecutive_errors: 0, ..metric.counted.clone() };
        });
        self
    }

    /// Where they stand together while the watch goes on. `None`: there are none that decide.
    fn phase(&self, at_end: bool) -> Option<Phase> {
        let ended = |metric: &Metric| metric.at_end(at_end);
        let all: Vec<(&Threshold, ThresholdState)> =
            self.all.iter().map(|metric| (&metric.plan.threshold, ended(metric))).collect();
        let deciding = all.iter().any(|(threshold, _)| !threshold.dry_run);
        deciding.then(|| overall(all.iter().map(|(threshold, state)| (*threshold, state))))
    }

    /// What they come to if the watch ends now: nothing passes that has not been measured.
    pub(super) fn verdict(&self) -> Verdict {
        self.phase(true).map_or(Verdict::Pass, Phase::verdict)
    }

    /// Whether nothing more can come of them but by going on for ever: each has ended, or has none but the watch's own end.
    pub(super) fn are_settled(&self) -> bool {
        self.all.iter().filter(|metric| !metric.plan.threshold.dry_run).all(|metric| {
            let counted = &metric.counted;
            let open_end = metric.plan.threshold.effective_count().is_none();
            counted.phase.is_terminal() || (open_end && counted.measurements() > 0)
        })
    }

    /// Harm that was found: why.
    pub(super) fn failed(&self) -> Option<String> {
        let deciding = self.all.iter().filter(|metric| !metric.plan.threshold.dry_run);
        let mut failed = deciding.filter(|metric| metric.counted.phase == Phase::Failed);
        failed.next().map(Metric::reason)
    }

    /// Why it is no pass, if it is none.
    pub(super) fn doubt(&self) -> Option<String> {
        let bad =
            |metric: &&Metric| !metric.plan.threshold.dry_run && metric.at_end(true).phase.verdict() != Verdict::Pass;
        let all: Vec<String> = self.all.iter().filter(bad).map(Metric::reason).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

impl Metric {
    fn at_end(&self, at_end: bool) -> ThresholdState {
        if at_end { self.counted.at_end(&self.plan.threshold) } else { self.counted.clone() }
    }

    /// Where it stands, in a sentence with its newest value.
    pub fn reason(&self) -> String {
        let reason = self.at_end(true).reason;
        match self.points.iter().rev().find(|point| !point.value.is_null()) {
            Some(point) => format!("{reason}; the newest value is {}", point.value),
            None => reason,
        }
    }

    /// Whether it lets the version go on, now that it has ended.
    pub(super) fn passed(&self) -> bool {
        self.plan.threshold.dry_run || self.at_end(true).phase.verdict() == Verdict::Pass
    }

    fn take(&mut self, measured: Measured, now_ms: u64) {
        let Measured { value, live, outcome } = measured;
        self.counted = self.counted.on(&self.plan.threshold, &outcome);
        self.next_ms = now_ms.saturating_add(self.plan.threshold.next_after_ms(&self.counted).unwrap_or(0));
        if self.points.len() >= MOST_POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.points.push(MetricPoint { at: Utc::now(), value, live, outcome });
    }
}

/// Metrics that one side measures while the other looks.
pub(super) struct Held {
    /// With what was compared since somebody has asked.
    metrics: Mutex<(Metrics, Vec<Pair>)>,
    /// Measurements under way.
    busy: AtomicUsize,
    /// Whether no more may begin.
    resting: AtomicBool,
    before_ms: u64,
    /// Not the clock on the wall, which may jump.
    began: Instant,
}

impl Held {
    pub(super) fn new(metrics: Metrics) -> Self {
        let before_ms = metrics.watched_ms;
        let (busy, resting) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { metrics: Mutex::new((metrics, Vec::new())), busy, resting, before_ms, began: Instant::now() }
    }

    /// Lets no more measurements begin; whether none is under way any more. One that takes long must not be begun for nothing again and again.
    pub(super) fn rests(&self) -> bool {
        self.resting.store(true, Ordering::Relaxed);
        self.busy.load(Ordering::Relaxed) == 0
    }

    fn lock(&self) -> MutexGuard<'_, (Metrics, Vec<Pair>)> {
        // Nothing panics while holding it.
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, index: usize, measured: Measured) {
        let now_ms = self.now_ms();
        let mut held = self.lock();
        let (metrics, pairs) = &mut *held;
        if let Some(metric) = metrics.all.get_mut(index) {
            if metric.plan.compare {
                let live = measured.live.as_ref().and_then(Value::as_f64);
                let candidate = measured.value.as_f64();
                pairs.push(Pair { metric: metric.plan.threshold.name.clone(), live, candidate });
            }
            metric.take(measured, now_ms);
        }
    }

    fn now_ms(&self) -> u64 {
        self.before_ms.saturating_add(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Where they stand now.
    pub(super) fn now(&self) -> Metrics {
        let mut held = self.lock();
        held.0.watched_ms = self.now_ms();
        held.0.clone()
    }

    /// The same with what was compared since the last call; to be asked every now and then where something is.
    pub(super) fn news(&self) -> (Metrics, Vec<Pair>) {
        let mut held = self.lock();
        held.0.watched_ms = self.now_ms();
        (held.0.clone(), std::mem::take(&mut held.1))
    }
}

/// Refuses conditions that could never be evaluated: before anything is built, not after the traffic has moved.
///
/// # Errors
/// `metric_invalid`, with the metric and the place in the condition.
pub fn check_metrics(expressions: &dyn Expressions, metrics: &[MetricPlan]) -> Result<(), Failure> {
    for Threshold { name, success_condition, failure_condition, .. } in metrics.iter().map(|metric| &metric.threshold) {
        for condition in success_condition.iter().chain(failure_condition) {
            expressions.check(condition, &["result"]).map_err(|error| {
                let failure = Failure::new("metric_invalid", format!("metrics.{name}: {}", error.message));
                let failure = error.cause.into_iter().fold(failure, Failure::because);
                failure.hint("a condition is CEL over `result`, such as result < 0.2")
            })?;
        }
    }
    Ok(())
}

/// As it is kept: a long text or a large structure is cut.
fn short(value: Value) -> Value {
    let text = value.to_string();
    if text.chars().nth(VALUE_CHARS).is_some() { Value::String(cut(&text, VALUE_CHARS)) } else { value }
}

/// A text with at most so many characters, and an ellipsis where there were more.
pub(super) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
