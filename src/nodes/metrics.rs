//! The user's own figures: asked for in time, held against their conditions, counted. Beside whatever else looks at a version, so that a
//! query that hangs holds up nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{join_all, pending, try_join};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::World;
use super::world::port_err;
use crate::graph::{Context, Failure, NodeError};
use crate::judge::Verdict;
use crate::judge::threshold::{Outcome, Phase, Threshold, ThresholdState, overall};
use crate::ports::{Expressions, HttpCall, PortError, Program, ProgramCall, Purpose, Quiet, SecretSource, Stdout};
use crate::release::{DeploymentPlan, MetricPlan, MetricSource, ModelSource, PrometheusQuery, fill};

#[cfg(test)]
mod tests;

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

impl Measured {
    fn lost(why: &str) -> Self {
        Self { value: Value::Null, live: None, outcome: Outcome::Error(cut(why, ERROR_CHARS)) }
    }
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
    metrics: Mutex<Metrics>,
    /// What was compared since somebody has asked.
    pairs: Mutex<Vec<Pair>>,
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
        Self { metrics: Mutex::new(metrics), pairs: Mutex::default(), busy, resting, before_ms, began: Instant::now() }
    }

    /// Lets no more measurements begin; whether none is under way any more. One that takes long must not be begun for nothing again and again.
    pub(super) fn rests(&self) -> bool {
        self.resting.store(true, Ordering::Relaxed);
        self.busy.load(Ordering::Relaxed) == 0
    }

    fn lock(&self) -> MutexGuard<'_, Metrics> {
        // Nothing panics while holding it.
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was compared since the last call; to be asked every now and then.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        std::mem::take(&mut *self.pairs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, index: usize, measured: Measured) {
        let now_ms = self.now_ms();
        if let Some(metric) = self.lock().all.get_mut(index) {
            if metric.plan.compare {
                let number = |value: &Value| value.as_f64();
                let (live, candidate) = (measured.live.as_ref().and_then(number), number(&measured.value));
                let pair = Pair { metric: metric.plan.threshold.name.clone(), live, candidate };
                self.pairs.lock().unwrap_or_else(PoisonError::into_inner).push(pair);
            }
            metric.take(measured, now_ms);
        }
    }

    fn now_ms(&self) -> u64 {
        self.before_ms.saturating_add(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Where they stand now.
    pub(super) fn now(&self) -> Metrics {
        let mut metrics = self.lock();
        metrics.watched_ms = self.now_ms();
        metrics.clone()
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

/// Who measures.
pub(super) struct Gauge<'a> {
    world: &'a World,
    thread: String,
    node: String,
    /// Folder in which commands run.
    folder: String,
    /// What is filled in for the names of [`METRIC_NAMES`](crate::release::METRIC_NAMES).
    names: Names,
    /// The same for the live version, where there is one.
    live: Option<Names>,
}

type Names = BTreeMap<&'static str, String>;

impl<'a> Gauge<'a> {
    /// Of a version in the slot `candidate`; before it has an endpoint of its own `address` is that.
    ///
    /// # Errors
    /// When the host does not say what runs in the slots.
    pub(super) async fn of(
        world: &'a World,
        cx: &Context,
        plan: &DeploymentPlan,
        candidate: &str,
        address: Option<&str>,
    ) -> Result<Self, NodeError> {
        let slot = world.target.slot(candidate).await.map_err(port_err)?;
        let endpoint = match address {
            Some(address) => address.to_owned(),
            None => world.router.endpoint_url(plan.model.as_str()).await.map_err(port_err)?,
        };
        let mut names = BTreeMap::from([
            ("model", plan.model.to_string()),
            ("version", slot.map(|slot| slot.version).unwrap_or_default()),
            ("slot", candidate.to_owned()),
            ("endpoint", endpoint),
        ]);
        let live = plan.previous.as_ref().map(|live| {
            let (version, slot) = (live.model_version.clone(), live.slot_token.clone().unwrap_or_default());
            names.insert("live_version", version.clone());
            names.insert("live_slot", slot.clone());
            let mut theirs = names.clone();
            theirs.extend([("version", version), ("slot", slot)]);
            theirs
        });
        let folder = match &plan.build.source {
            ModelSource::Project { path } => path.clone(),
            ModelSource::Artifact { path, .. } => {
                Path::new(path).parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned()
            }
        };
        Ok(Self { world, thread: cx.thread().to_string(), node: cx.node().to_owned(), folder, names, live })
    }

    /// Lets `looks` go on to its end while the metrics are measured beside it.
    pub(super) async fn beside<T>(&self, held: &Held, looks: impl Future<Output = T>) -> T {
        tokio::select! {
            looked = looks => looked,
            never = self.keep_measuring(held) => match never {},
        }
    }

    /// Measures each whenever it is due, all of them beside each other, for as long as it is polled.
    async fn keep_measuring(&self, held: &Held) -> Infallible {
        let count = held.lock().all.len();
        join_all((0..count).map(|index| self.measure_until_it_ends(held, index))).await;
        pending().await
    }

    /// Measures each until it has ended: those whose number of measurements is known.
    pub(super) async fn measure_to_the_end(&self, metrics: Metrics) -> Metrics {
        let held = Held::new(metrics);
        let count = held.lock().all.len();
        join_all((0..count).map(|index| self.measure_until_it_ends(&held, index))).await;
        held.now()
    }

    async fn measure_until_it_ends(&self, held: &Held, index: usize) {
        loop {
            let (plan, next_ms) = {
                let metrics = held.lock();
                let Some(metric) = metrics.all.get(index) else { return };
                if metric.counted.phase.is_terminal() {
                    return;
                }
                (metric.plan.clone(), metric.next_ms)
            };
            tokio::time::sleep(Duration::from_millis(next_ms.saturating_sub(held.now_ms()))).await;
            if held.resting.load(Ordering::Relaxed) {
                return pending().await;
            }
            held.busy.fetch_add(1, Ordering::Relaxed);
            let measured = self.measure(&plan).await;
            held.take(index, measured);
            held.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// One measurement: the value, the live version's where both are compared, and how it counts.
    async fn measure(&self, plan: &MetricPlan) -> Measured {
        let limit = Duration::from_millis(plan.timeout_ms);
        let live = async {
            match self.live.as_ref().filter(|_| plan.compare) {
                Some(names) => {
                    self.value(plan, names).await.map_err(|why| format!("of the live version: {why}")).map(Some)
                }
                None => Ok(None),
            }
        };
        let both = async { try_join(self.value(plan, &self.names), live).await };
        let (value, live) = match tokio::time::timeout(limit, both).await {
            Ok(Ok(both)) => both,
            Ok(Err(why)) => return Measured::lost(&why),
            Err(_) => return Measured::lost(&format!("nothing within {} s", limit.as_secs_f64())),
        };
        if plan.compare && [Some(&value), live.as_ref()].into_iter().flatten().any(|value| !value.is_number()) {
            return Measured::lost("numbers are compared, and this is none");
        }
        let holds = |condition: &Option<String>| condition.as_ref().map(|source| self.holds(source, &value));
        let Threshold { success_condition, failure_condition, .. } = &plan.threshold;
        let outcome = match Outcome::of(holds(success_condition), holds(failure_condition)) {
            Outcome::Error(why) => Outcome::Error(cut(&why, ERROR_CHARS)),
            outcome => outcome,
        };
        Measured { value: short(value), live, outcome }
    }

    async fn value(&self, plan: &MetricPlan, names: &Names) -> Result<Value, String> {
        match &plan.source {
            MetricSource::Prometheus(asked) => self.query(asked, names).await,
            MetricSource::Command(argv) => self.run(&plan.threshold.name, argv, names).await,
        }
    }

    fn holds(&self, source: &str, result: &Value) -> Result<bool, String> {
        let mut names = Map::new();
        names.insert("result".to_owned(), result.clone());
        match self.world.expressions.value(source, &names) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => {
                Err(format!("`{source}` is neither true nor false but {}", cut(&other.to_string(), VALUE_CHARS)))
            }
            Err(error) => Err(said(error)),
        }
    }

    async fn query(&self, asked: &PrometheusQuery, names: &Names) -> Result<Value, String> {
        let PrometheusQuery { url, query, token_env, token_file } = asked;
        let mut call = HttpCall { url: format!("{}/api/v1/query", url.trim_end_matches('/')), ..HttpCall::default() };
        call.query.insert("query".to_owned(), filled(query, names)?.into());
        if token_env.is_some() || token_file.is_some() {
            let prefix = Some("Bearer ".to_owned());
            let token = SecretSource { env: token_env.clone(), file: token_file.clone(), prefix };
            call.headers_from.insert("authorization".to_owned(), token);
        }
        let answer = self.world.calls.call(&call, None).await.map_err(said)?;
        if answer.status != 200 {
            let why = answer.body["error"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            return Err(format!("{url} answered {}{why}", answer.status));
        }
        number(&answer.body).map_err(|why| format!("{why}; the query is `{query}`"))
    }

    async fn run(&self, name: &str, argv: &[String], names: &Names) -> Result<Value, String> {
        let argv = argv.iter().map(|part| filled(part, names)).collect::<Result<_, _>>()?;
        let about: Map<String, Value> =
            names.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        let program = Program {
            argv,
            cwd: Some(self.folder.clone()),
            env: BTreeMap::new(),
            env_from: BTreeMap::new(),
            stdin: Value::Object(about),
            stdout: Stdout::Json,
            ok_codes: vec![0],
        };
        // Of each version its own: both are measured at once.
        let slot = names.get("slot").map_or("", String::as_str);
        let token = format!("{}-metric-{name}-{slot}", self.thread);
        let call =
            ProgramCall { program, thread: self.thread.clone(), node: self.node.clone(), token, purpose: Purpose::Run };
        let end = self.world.commands.run(&call, &Quiet).await.map_err(said)?;
        match end.unreadable {
            None => Ok(end.output),
            Some(why) => Err(format!("it must write one JSON value, such as 0.2: {why}")),
        }
    }
}

fn filled(text: &str, names: &Names) -> Result<String, String> {
    fill(text, |name| names.get(name).cloned())
}

/// The one number of Prometheus's answer: a vector of one series, or a scalar.
fn number(body: &Value) -> Result<Value, String> {
    let data = &body["data"];
    let text = match data["resultType"].as_str() {
        Some("scalar") => data["result"][1].as_str(),
        Some("vector") => match data["result"].as_array().map(Vec::as_slice) {
            Some([one]) => one["value"][1].as_str(),
            Some([]) => return Err("it found no series".to_owned()),
            Some(many) => return Err(format!("it found {} series, and one is needed: sum(…) makes one", many.len())),
            None => None,
        },
        Some(other) => return Err(format!("it gives a {other}, and one number is needed")),
        None => None,
    };
    let value = text.and_then(|text| text.parse::<f64>().ok()).ok_or("the answer is none of Prometheus's")?;
    serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| format!("its value is {value}"))
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

fn said(error: PortError) -> String {
    match error.cause {
        Some(cause) => format!("{}: {cause}", error.message),
        None => error.message,
    }
}
