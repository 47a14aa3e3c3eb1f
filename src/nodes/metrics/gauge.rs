//! Who measures: asks Prometheus or a program, for the new version, and for the live one where both are compared.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{join, join_all, pending};
use serde_json::{Map, Value};

use super::{ERROR_CHARS, Held, Measured, Metrics, VALUE_CHARS, cut, short};
use crate::graph::{Context, NodeError};
use crate::judge::threshold::{Outcome, Threshold};
use crate::nodes::World;
use crate::nodes::world::port_err;
use crate::ports::{HttpCall, PortError, Program, ProgramCall, Purpose, Quiet, SecretSource, Stdout};
use crate::release::{DeploymentPlan, MetricPlan, MetricSource, ModelSource, PrometheusQuery, fill};

/// Who measures.
pub(in crate::nodes) struct Gauge<'a> {
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
    pub(in crate::nodes) async fn of(
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
    pub(in crate::nodes) async fn beside<T>(&self, held: &Held, looks: impl Future<Output = T>) -> T {
        tokio::select! {
            looked = looks => looked,
            never = self.keep_measuring(held) => match never {},
        }
    }

    /// Measures each whenever it is due, all of them beside each other, for as long as it is polled.
    async fn keep_measuring(&self, held: &Held) -> Infallible {
        let count = held.lock().0.all.len();
        join_all((0..count).map(|index| self.measure_until_it_ends(held, index))).await;
        pending().await
    }

    /// Measures each until it has ended: those whose number of measurements is known.
    pub(in crate::nodes) async fn measure_to_the_end(&self, metrics: Metrics) -> Metrics {
        let held = Held::new(metrics);
        let count = held.lock().0.all.len();
        join_all((0..count).map(|index| self.measure_until_it_ends(&held, index))).await;
        held.now()
    }

    async fn measure_until_it_ends(&self, held: &Held, index: usize) {
        loop {
            let (plan, next_ms) = {
                let held = held.lock();
                let Some(metric) = held.0.all.get(index) else { return };
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

    /// One measurement: the value, the live version's where both are compared, and how it counts. What one of them lacks says nothing of the other.
    async fn measure(&self, plan: &MetricPlan) -> Measured {
        let live = async {
            match self.live.as_ref().filter(|_| plan.compare) {
                Some(names) => Some(self.in_time(plan, names).await),
                None => None,
            }
        };
        let (value, live) = join(self.in_time(plan, &self.names), live).await;
        let (value, outcome) = match value {
            Ok(value) => self.counted(plan, value),
            Err(why) => (Value::Null, Outcome::Error(why)),
        };
        match live {
            None => Measured { value, live: None, outcome },
            Some(Ok(live)) => Measured { value, live: Some(live), outcome },
            // Nothing but the comparison is asked, and there was none.
            Some(Err(why)) if !plan.has_condition() => {
                let why = cut(&format!("of the live version: {why}"), ERROR_CHARS);
                Measured { value, live: None, outcome: Outcome::Error(why) }
            }
            Some(Err(_)) => Measured { value, live: None, outcome },
        }
    }

    fn counted(&self, plan: &MetricPlan, value: Value) -> (Value, Outcome) {
        let holds = |condition: &Option<String>| condition.as_ref().map(|source| self.holds(source, &value));
        let Threshold { success_condition, failure_condition, .. } = &plan.threshold;
        let outcome = match Outcome::of(holds(success_condition), holds(failure_condition)) {
            Outcome::Error(why) => Outcome::Error(cut(&why, ERROR_CHARS)),
            outcome => outcome,
        };
        (short(value), outcome)
    }

    async fn in_time(&self, plan: &MetricPlan, names: &Names) -> Result<Value, String> {
        let limit = Duration::from_millis(plan.timeout_ms);
        match tokio::time::timeout(limit, self.value(plan, names)).await {
            Ok(Ok(value)) if plan.compare && !value.is_number() => {
                Err("numbers are compared, and this is none".to_owned())
            }
            Ok(value) => value.map_err(|why| cut(&why, ERROR_CHARS)),
            Err(_) => Err(format!("nothing within {} s", limit.as_secs_f64())),
        }
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
pub(super) fn number(body: &Value) -> Result<Value, String> {
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

fn said(error: PortError) -> String {
    match error.cause {
        Some(cause) => format!("{}: {cause}", error.message),
        None => error.message,
    }
}
