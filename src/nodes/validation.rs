//! Holds the new version, in its slot, against everything that the plan asks of it. Users see nothing of this.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::deployment_executor::package;
use super::metrics::{Gauge, Metric, Metrics, cut};
use super::readiness::{until_ready, until_up_again};
use super::world::{ledger_err, port_err};
use super::{LiveSlot, Situation, Validated, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::ports::{PackagedModel, Secrets, ServiceAnswer, ServiceCall};
use crate::release::{
    AnswerDifference, CheckKind, CheckResult, DeploymentPlan, Difference, During, MOST_RPS, PlannedCheck, SmokeCase,
    compare, metric_check, replicas_for, sample_request,
};
use load::{Call, Load, closed, paced, warm_up};

/// Clients of each replica that ask at once for what it can do at most.
const CLIENTS: usize = 8;
/// As many as there are for the most replicas.
const MOST_CLIENTS: usize = 512;
/// Calls whose latency is only noted, as a baseline.
const BASELINE_CALLS: usize = 10;
/// Longest time of a liveness, readiness or load call, in milliseconds.
const CALL_TIMEOUT_MS: u64 = 10_000;

/// Name of a request that was made up from the service's schema.
const GENERATED: &str = "generated";

mod load;

/// Reads plan, package and slot; writes what it found.
pub struct Validation(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    package: Value,
    slot: LiveSlot,
    situation: Situation,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    validated: Validated,
}

#[async_trait]
impl Node for Validation {
    const KIND: &'static str = "validation";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let package = package(reads.package)?;
        let checks = async {
            let secrets = secrets(&self.0, reads.plan.env_file.as_deref()).await?;
            let (world, plan) = (&*self.0, &reads.plan);
            // Not as it was written down: the host may have been down since, and the slot started anew at another port.
            let slot = until_ready(world, &reads.slot.token, plan.ready_timeout_ms).await?;
            let bench =
                Bench { token: &reads.slot.token, cx, world, plan, package: &package, address: &slot.address, secrets };
            bench.run(&reads.slot, &reads.situation).await
        };
        let validated: Validated = cx.observe("checks", checks).await?;
        let failed: Vec<String> =
            validated.checks.iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.name, c.detail)).collect();
        if failed.is_empty() {
            return Ok(Outcome::update(Writes { validated }));
        }
        let failure =
            Failure::new("validation_failed", format!("{} of {} checks failed", failed.len(), validated.checks.len()));
        Err(failure.because(failed.join("\n")).hint("mend the model or the expectation, then release again").into())
    }
}

/// What a service must not get into the record by saying it. Without knowing that, nothing that it says could be kept.
async fn secrets(world: &World, env_file: Option<&str>) -> Result<Secrets, NodeError> {
    match env_file {
        None => Ok(Secrets::default()),
        Some(path) => world.secrets.read(Path::new(path)).await.map_err(port_err),
    }
}

/// One version under test.
struct Bench<'a> {
    /// The first replica's slot.
    token: &'a str,
    cx: &'a Context,
    world: &'a World,
    plan: &'a DeploymentPlan,
    package: &'a PackagedModel,
    address: &'a str,
    secrets: Secrets,
}

impl Bench<'_> {
    async fn run(&self, slot: &LiveSlot, situation: &Situation) -> Result<Validated, NodeError> {
        let mut checks = Vec::new();
        let mut metrics = BTreeMap::from([("ready_ms".to_owned(), millis(slot.ready_ms))]);
        let mut diff_to_live = None;
        let mut later = Vec::new();
        for check in &self.plan.checks {
            checks.push(match check.kind {
                CheckKind::Liveness => self.answers(check, "/livez").await,
                CheckKind::Readiness => self.answers(check, "/readyz").await,
                CheckKind::Smoke => self.smoke(check).await,
                CheckKind::GeneratedSmoke => self.generated(check).await,
                CheckKind::LatencyP99 | CheckKind::Throughput | CheckKind::Availability | CheckKind::Metric => {
                    // The others first: what is measured of a version that answers wrongly would say nothing.
                    later.push((checks.len(), check));
                    CheckResult::new(&check.name, false, "there is no request to measure with")
                }
                CheckKind::DifferenceToLive => {
                    let differences = self.difference(situation).await?;
                    let detail = match &differences {
                        None => "there is no live version that answers".to_owned(),
                        Some(cases) => {
                            format!("{} of {} golden cases answered otherwise", cases.len(), self.plan.smoke.len())
                        }
                    };
                    diff_to_live = differences;
                    // A new version may answer otherwise, that is its purpose; the human sees it.
                    CheckResult::new(&check.name, true, detail)
                }
            });
        }
        let good = checks.iter().enumerate().all(|(at, check)| check.passed || later.iter().any(|(nth, _)| *nth == at));
        if let Some(case) = self.load_case().filter(|_| good) {
            let loads = self.load(&case, &mut metrics).await?;
            let measured = self.measured(slot).await?;
            for (at, check) in later {
                checks[at] = match check.kind {
                    CheckKind::LatencyP99 => self.latency(check, &metrics, &loads),
                    CheckKind::Throughput => self.throughput(check, &loads),
                    CheckKind::Metric => self.metric(check, &measured),
                    _ => Self::availability(check, &loads),
                };
            }
        } else if !good {
            later.iter().for_each(|(at, _)| "not measured: another check failed".clone_into(&mut checks[*at].detail));
        }
        // Whatever of it the service said.
        checks.iter_mut().for_each(|check| self.secrets.clean(&mut check.detail));
        Ok(Validated { checks, diff_to_live, metrics })
    }

    /// The user's own figures that are held before users see anything, measured to their end.
    async fn measured(&self, slot: &LiveSlot) -> Result<Metrics, NodeError> {
        let metrics = Metrics::of(self.plan.metrics_during(During::Validation));
        if metrics.all.is_empty() {
            return Ok(metrics);
        }
        let gauge = Gauge::of(self.world, self.cx, self.plan, &slot.token, Some(self.address)).await?;
        Ok(gauge.measure_to_the_end(metrics).await)
    }

    fn metric(&self, check: &PlannedCheck, measured: &Metrics) -> CheckResult {
        let named = |metric: &&Metric| metric_check(&metric.plan.threshold.name) == check.name;
        match measured.all.iter().find(named) {
            Some(metric) => CheckResult::new(&check.name, metric.passed(), metric.reason()),
            None => CheckResult::new(&check.name, false, "the plan has no such metric"),
        }
    }

    /// A body for an error line: without secrets, at most 200 characters.
    fn short(&self, body: &Value) -> String {
        let mut body = body.clone();
        // Before it is cut: half a secret would not be known for one.
        self.secrets.clean_json(&mut body);
        cut(&body.to_string(), 200)
    }

    async fn call(&self, base: &str, case: &SmokeCase) -> Result<ServiceAnswer, String> {
        let url = format!("{base}{}", case.path);
        let call = ServiceCall { url, body: case.body.clone(), timeout_ms: case.timeout_ms() };
        self.world.services.call(&call).await.map_err(|e| match e.cause {
            Some(cause) => format!("{} ({cause})", e.message),
            None => e.message,
        })
    }

    async fn answers(&self, check: &PlannedCheck, path: &str) -> CheckResult {
        let call = ServiceCall { url: format!("{}{path}", self.address), body: None, timeout_ms: CALL_TIMEOUT_MS };
        match self.world.services.call(&call).await {
            Ok(answer) => {
                CheckResult::new(&check.name, answer.status == 200, format!("{path} answered {}", answer.status))
            }
            Err(error) => CheckResult::new(&check.name, false, format!("{path}: {}", error.message)),
        }
    }

    async fn smoke(&self, check: &PlannedCheck) -> CheckResult {
        let Some(case) = self.plan.smoke.iter().find(|case| check.name == format!("smoke:{}", case.name)) else {
            return CheckResult::new(&check.name, false, "the plan has no such golden case");
        };
        let answer = match self.call(self.address, case).await {
            Ok(answer) => answer,
            Err(why) => return CheckResult::new(&check.name, false, why),
        };
        if answer.status != case.expected_status() {
            let detail = format!(
                "{} answered {}, expected {}: {}",
                case.path,
                answer.status,
                case.expected_status(),
                self.short(&answer.body)
            );
            return CheckResult::new(&check.name, false, detail);
        }
        let differences = case.differences(&answer.body);
        match differences.first() {
            None => CheckResult::new(
                &check.name,
                true,
                format!("{} answered as expected in {:.1} ms", case.path, answer.latency_ms),
            ),
            Some(first) => {
                let detail =
                    format!("{} answered {}; {}: {}", case.path, self.short(&answer.body), first.path, first.why);
                CheckResult::new(&check.name, false, detail)
            }
        }
    }

    /// A request made from the service's own schema: all that can be said is that it is answered without a server error.
    async fn generated(&self, check: &PlannedCheck) -> CheckResult {
        let Some(case) = self.generated_case() else {
            return CheckResult::new(&check.name, false, "the service has no route that a request could be made for");
        };
        match self.call(self.address, &case).await {
            Ok(answer) if answer.status < 500 => CheckResult::new(
                &check.name,
                true,
                format!("{} answered {} to a made-up request", case.path, answer.status),
            ),
            Ok(answer) => CheckResult::new(
                &check.name,
                false,
                format!("{} answered {}: {}", case.path, answer.status, self.short(&answer.body)),
            ),
            Err(why) => CheckResult::new(&check.name, false, why),
        }
    }

    fn generated_case(&self) -> Option<SmokeCase> {
        let route = self.package.routes.first()?;
        let body = Some(sample_request(&route.input));
        Some(SmokeCase {
            name: GENERATED.into(),
            path: route.path.clone(),
            body,
            expect: None,
            tolerance: None,
            status: None,
            timeout: None,
        })
    }

    fn load_case(&self) -> Option<SmokeCase> {
        self.plan.smoke.first().cloned().or_else(|| self.generated_case())
    }

    /// The short load that the requirements need, if any do; else a few calls, as a baseline.
    async fn load(&self, case: &SmokeCase, metrics: &mut BTreeMap<String, f64>) -> Result<Loads, NodeError> {
        let serving = &self.plan.serving;
        let asked = serving.throughput_rps.filter(|rps| *rps > 0.0 && rps.is_finite());
        let pool = self.world.pool(self.token).await.map_err(port_err)?;
        let bases: Vec<String> = pool.iter().map(|slot| format!("http://127.0.0.1:{}", slot.port)).collect();
        let replicas = bases.len().max(1);
        // A rolling release has one replica beside the live version's: that one is asked for its part.
        let part = replicas as f64 / f64::from(self.plan.replicas.max(1));
        let call = |nth: usize| {
            let base = bases.get(nth % replicas).map_or(self.address, String::as_str);
            async move {
                let answer = self.call(base, case).await.ok()?;
                counts(case, answer.status).then_some(answer.latency_ms)
            }
        };
        let mut loads = Loads { replicas, ..Loads::default() };
        let at_once = asked.is_some();
        // Two for each worker: while one's answer is on its way the other's is made.
        let clients = (replicas * CLIENTS.max(2 * self.plan.workers.unwrap_or(1) as usize)).min(MOST_CLIENTS);
        warm_up(&call, if at_once { clients } else { replicas }).await;
        let paced_or_one = match asked {
            Some(rps) => paced(&call, rps * part).await,
            None if serving.latency_p99_ms.is_some() || serving.availability.is_some() => closed(&call, 1).await,
            None => few(&call).await,
        };
        for (name, share) in [("latency_p50_ms", 0.50), ("latency_p99_ms", 0.99)] {
            if let Some(value) = quantile(&paced_or_one.latencies_ms, share) {
                metrics.insert(name.to_owned(), value);
            }
        }
        loads.count(&paced_or_one);
        if at_once {
            // More than was asked for: what it sheds then is not held against it.
            let most = closed(&call, clients).await;
            loads.rps = most.rps() / part;
            metrics.insert(MOST_RPS.to_owned(), loads.rps);
        }
        if serving.availability.is_some() {
            metrics.insert("availability".to_owned(), loads.availability());
        }
        Ok(loads)
    }

    fn latency(&self, check: &PlannedCheck, metrics: &BTreeMap<String, f64>, loads: &Loads) -> CheckResult {
        // A call without an answer is slower than any limit.
        if loads.failed * 100 > loads.calls {
            let detail = format!("{} of {} calls had no good answer", loads.failed, loads.calls);
            return CheckResult::new(&check.name, false, detail);
        }
        match (metrics.get("latency_p99_ms"), &check.limit) {
            (Some(p99), Some(limit)) => {
                let result = CheckResult::measured(&check.name, *p99, limit.clone());
                let detail = match self.plan.serving.throughput_rps {
                    Some(rps) => format!("{} at {rps} requests/s", result.detail),
                    None => format!("{} with one client", result.detail),
                };
                CheckResult { detail, ..result }
            }
            (Some(p99), None) => CheckResult::new(&check.name, true, format!("{p99:.1} ms")),
            (None, _) => CheckResult::new(&check.name, false, "no call was answered"),
        }
    }

    fn throughput(&self, check: &PlannedCheck, loads: &Loads) -> CheckResult {
        let Some(limit) = &check.limit else {
            return CheckResult::new(&check.name, true, format!("{:.0} rps", loads.rps));
        };
        let result = CheckResult::measured(&check.name, loads.rps, limit.clone());
        let measured = format!("{} of {} replica(s) measured", loads.replicas, self.plan.replicas);
        let detail = if result.passed {
            format!("{}; {measured}", result.detail)
        } else {
            let one = loads.rps / f64::from(self.plan.replicas.max(1));
            let enough = replicas_for(limit.value, one);
            let advice =
                enough.map(|n| format!("; {n} would do where they have processors of their own: `replicas: {n}`"));
            format!("{}; {measured}{}", result.detail, advice.unwrap_or_default())
        };
        CheckResult { detail, ..result }
    }

    fn availability(check: &PlannedCheck, loads: &Loads) -> CheckResult {
        let Some(limit) = &check.limit else { return CheckResult::new(&check.name, true, "no limit") };
        let result = CheckResult::measured(&check.name, loads.availability() * 100.0, limit.clone());
        let detail = format!("{} of {} calls failed, at least {} % must not", loads.failed, loads.calls, limit.value);
        CheckResult { detail, ..result }
    }

    /// How the live version answers the same golden cases; `None` where there is none to ask.
    async fn difference(&self, situation: &Situation) -> Result<Option<Vec<AnswerDifference>>, NodeError> {
        let Some(token) = &situation.live_slot else { return Ok(None) };
        // Also the live version may have been started anew. One that does not come up is none that answers.
        let Ok(slot) = until_up_again(self.world, token, self.plan.ready_timeout_ms).await else { return Ok(None) };
        let live = format!("http://127.0.0.1:{}", slot.port);
        let of_live = self.secrets_of_live(situation).await?;
        let mut cases = Vec::new();
        for case in &self.plan.smoke {
            let (Ok(new), Ok(old)) = (self.call(self.address, case).await, self.call(&live, case).await) else {
                continue;
            };
            let tolerance = case.tolerance.unwrap_or(crate::release::DEFAULT_TOLERANCE);
            let mut differences = compare(&old.body, &new.body, tolerance);
            differences.iter_mut().for_each(|difference| self.clean(difference, of_live.as_ref()));
            if !differences.is_empty() {
                cases.push(AnswerDifference { case: case.name.clone(), differences });
            }
        }
        Ok(Some(cases))
    }

    /// The live version has a file of its own. `None`: it cannot be read any more, so nothing that the version says may be kept.
    async fn secrets_of_live(&self, situation: &Situation) -> Result<Option<Secrets>, NodeError> {
        let Some(live) = &situation.live else { return Ok(None) };
        let row = self.world.ledger.get(&live.deployment_id).await.map_err(ledger_err)?;
        let plan = row.and_then(|row| row.plan);
        let env_file = plan.as_ref().and_then(|plan| plan["env_file"].as_str());
        Ok(secrets(self.world, env_file).await.ok())
    }

    fn clean(&self, difference: &mut Difference, of_live: Option<&Secrets>) {
        if of_live.is_none() {
            difference.expected = None;
        }
        for secrets in std::iter::once(&self.secrets).chain(of_live) {
            secrets.clean(&mut difference.path);
            secrets.clean(&mut difference.why);
            difference.expected.iter_mut().chain(&mut difference.got).for_each(|value| secrets.clean_json(value));
        }
    }
}

/// What the loads of a validation came to together.
#[derive(Debug, Default)]
struct Loads {
    /// Good answers per second that all of the plan's replicas would give.
    rps: f64,
    calls: usize,
    failed: usize,
    /// How many were asked.
    replicas: usize,
}

impl Loads {
    fn count(&mut self, load: &Load) {
        self.calls += load.calls();
        self.failed += load.failed;
    }

    /// Share of calls with a good answer; none where there was no call.
    fn availability(&self) -> f64 {
        (self.calls - self.failed) as f64 / self.calls.max(1) as f64
    }
}

/// A few calls, one after the other.
async fn few<F: Future<Output = Option<f64>>>(call: &impl Call<F>) -> Load {
    let mut load = Load::default();
    for nth in 0..BASELINE_CALLS {
        match call(nth).await {
            Some(ms) => load.latencies_ms.push(ms),
            None => load.failed += 1,
        }
    }
    load.latencies_ms.sort_by(f64::total_cmp);
    load
}

/// Whether a call under load counts: a made-up request only has to be answered, a golden case as it says.
fn counts(case: &SmokeCase, status: u16) -> bool {
    if case.name == GENERATED { status < 500 } else { status == case.expected_status() }
}

/// The nearest-rank quantile of sorted values.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few dozen samples"
    )]
    let rank = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(rank - 1).copied()
}

fn millis(ms: u64) -> f64 {
    f64::from(u32::try_from(ms).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_rank() {
        let values: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), Some(15.0));
        assert_eq!(quantile(&values, 0.99), Some(30.0));
        assert_eq!(quantile(&[], 0.99), None);
    }
}
