//! A new version on trial: one step of a canary, an A/B test, a shadow or a rolling release, or a stretch of it. Sets what the new version
//! gets, or watches it for a while. The graph comes back here until the steps are done, so that what the judge has seen is durable every few minutes.

mod decision;
mod memory;
mod roll;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use memory::TrialState;
use watch::{Stretch, Watcher};

use super::effects::{DivideTraffic, Side, UpdateRelease};
use super::readiness::all_ready;
use super::world::port_err;
use super::{LiveSlot, RouteState, Situation, Validated, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome, Posed, Until, Woken};
use crate::judge::Verdict;
use crate::ports::{Mirror, Sticky, WHOLE, replica_token};
use crate::release::{CanaryStep, DeploymentPlan, During, PlanState, ReleaseChange, SplitBy, Trial};

/// What a person may say to a version on trial.
pub const TRIAL_SIGNALS: [&str; 4] = ["promote", "pause", "resume", "abort"];
/// The part of the traffic goes back where nobody renews it for so long: a command that is started again takes some seconds.
const RENEW_WITHIN_MS: u64 = 60_000;
/// Signals taken in one stretch; more stay for the next.
const MOST_SIGNALS: usize = 16;

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    slot: LiveSlot,
    situation: Situation,
    route: Option<RouteState>,
    trial: Option<TrialState>,
    /// What further replicas are started from; not needed where there are none.
    #[serde(default)]
    package: Value,
    /// What validation found: what a person is shown again in a step `approval`.
    validated: Option<Validated>,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    trial: TrialState,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteState>,
}

/// A node type that puts a version on trial. The plan says how; the name in the workflow's file says so to its reader.
macro_rules! trial_nodes {
    ($($(#[$doc:meta])* $name:ident = $kind:literal),+ $(,)?) => {$(
        $(#[$doc])*
        pub struct $name(pub Arc<World>);

        #[async_trait]
        impl Node for $name {
            const KIND: &'static str = $kind;
            const VERSION: u32 = 1;
            type Reads = Reads;
            type Writes = Writes;

            async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
                run(&self.0, cx, reads).await
            }
        }
    )+};
}

trial_nodes! {
    /// A growing share of the traffic, judged beside the live version.
    Canary = "canary",
    /// A fixed part of the callers, each of whom stays at its version.
    AbTest = "ab_test",
    /// A copy of live requests, whose answers are compared and dropped.
    Shadow = "shadow",
    /// Batches of replicas that take each other's place.
    Rolling = "rolling",
}

async fn run(world: &World, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
    // The first version of a model has nothing to be compared with.
    let Some((trial, live)) = reads.plan.trial().zip(reads.situation.live_slot.clone()) else {
        return Ok(Outcome::update(Writes { trial: TrialState::nothing_to_try()?, route: None }));
    };
    let state = match reads.trial.clone() {
        Some(state) => state,
        None => TrialState::of(&trial, reads.plan.metrics_during(During::Trial))?,
    };
    let on_trial = OnTrial { world, cx, reads: &reads, trial: &trial, live: &live };
    let state = on_trial.told(state).await?;
    if state.promoted.is_some() {
        on_trial.record(&state, state.verdict());
    }
    if state.done || trial.steps.is_empty() {
        let state = TrialState { done: true, ..state };
        let route = on_trial.finish(state.weight).await?;
        return Ok(Outcome::update(Writes { trial: state, route }));
    }
    match trial.steps.get(state.step) {
        Some(CanaryStep::Weight(weight)) if !state.paused => on_trial.weigh(state, *weight).await,
        Some(CanaryStep::Approval) => on_trial.decide(state).await,
        _ => on_trial.stretch(state).await,
    }
}

/// One execution of the node.
struct OnTrial<'a> {
    world: &'a World,
    cx: &'a Context,
    reads: &'a Reads,
    trial: &'a Trial,
    /// The live version's slot.
    live: &'a str,
}

impl OnTrial<'_> {
    /// Takes what people have said since the last stretch.
    async fn told(&self, mut state: TrialState) -> Result<TrialState, NodeError> {
        let signals = TRIAL_SIGNALS.map(str::to_owned);
        for _ in 0..MOST_SIGNALS {
            let Woken::Signal { name, value, by } = self.cx.wait(&signals, Until::After(Duration::ZERO)).await? else {
                break;
            };
            self.cx.emit("trial", serde_json::json!({"told": name, "by": by}));
            let at = self.trial.steps.get(state.step);
            state = match name.as_str() {
                // Nothing but a decision leads past it.
                "promote" if at == Some(&CanaryStep::Approval) => state,
                "promote" if value["full"] == true && self.trial.asks() => state,
                "promote" if value["full"] == true || state.step >= self.trial.steps.len() => {
                    TrialState { promoted: Some(by), done: true, ..state }
                }
                // Before the first share there is nothing to hold, and a share is not skipped: it is what was asked for.
                "promote" if state.step == 0 || matches!(at, Some(CanaryStep::Weight(_))) => state,
                "pause" if state.step == 0 => state,
                "promote" => self.next(state),
                "pause" => TrialState { paused: true, ..state },
                // What a person takes is not the judge's time.
                "resume" if state.needs_pass(self.trial) => TrialState { paused: false, waited_ms: 0, ..state },
                "resume" => TrialState { paused: false, ..state },
                _ => {
                    let why = value["reason"].as_str().unwrap_or("no reason was given").to_owned();
                    return Err(self.ended("aborted", format!("{by} aborted the {}: {why}", self.trial.called)).into());
                }
            };
        }
        Ok(state)
    }

    /// A failure that ends the trial; the saga gives the traffic back.
    fn ended(&self, how: &str, message: String) -> Failure {
        Failure::new(&format!("{}_{how}", self.trial.word), message).hint("all traffic is back at the stable version")
    }

    /// Sets the share of the traffic, or of what is repeated.
    async fn weigh(&self, state: TrialState, weight: u32) -> Result<Outcome<Writes>, NodeError> {
        let Self { world, cx, reads, .. } = self;
        cx.observe("ready", all_ready(world, &reads.slot.token, reads.plan.ready_timeout_ms)).await?;
        let at = cx.now().await?;
        let change = ReleaseChange::to(PlanState::Executing, at);
        if state.step == 0 {
            cx.effect("executing", UpdateRelease { deployment_id: cx.thread().to_string(), change }).await?;
        }
        let route = match self.batch(state.step) {
            Some(batch) => self.roll(batch, state.weight, weight).await?,
            None => self.divide("divide", weight, &[], None).await?,
        };
        if state.step == 0 && self.trial.shadow.is_none() {
            // Users have got to it: what becomes of it is history that the next plan looks at.
            let change = ReleaseChange { endpoint_url: Some(route.endpoint_url.clone()), ..ReleaseChange::at(at) };
            cx.effect("record", UpdateRelease { deployment_id: cx.thread().to_string(), change }).await?;
        }
        cx.emit("trial", serde_json::json!({"weight": weight, "step": state.step}));
        // What the candidate did before it had traffic is not the trial's.
        let seen = if state.seen == 0 { u64::try_from(at.timestamp()).unwrap_or(0) } else { state.seen };
        let state = TrialState { weight, seen, ..self.next(state) };
        Ok(Outcome::update(Writes { trial: state, route: Some(route) }))
    }

    /// Divides the traffic; replicas of the version before that are `leaving` get nothing any more.
    async fn divide(
        &self,
        name: &str,
        weight: u32,
        leaving: &[u32],
        after: Option<&RouteState>,
    ) -> Result<RouteState, NodeError> {
        let (stable, candidate) = self.cx.pin("sides", self.sides()).await?;
        let planned =
            after.or(self.reads.route.as_ref()).map_or(self.reads.situation.generation, |route| route.generation);
        let mirror = self.trial.shadow.as_ref().map(|shadow| Mirror {
            to: candidate.version.clone(),
            share: parts(shadow.share),
            methods: ["GET", "HEAD", "POST", "PUT"].map(str::to_owned).to_vec(),
            paths: shadow.repeat.clone(),
        });
        let divide = DivideTraffic {
            model: self.reads.plan.model.to_string(),
            stable,
            candidate,
            weight,
            leaving: leaving.iter().map(|nth| replica_token(self.live, *nth)).collect(),
            sticky: self.trial.by.as_ref().map(sticky),
            mirror,
            expected_generation: planned,
            renew_within_ms: RENEW_WITHIN_MS,
        };
        self.cx.effect(name, divide).await
    }

    async fn sides(&self) -> Result<(Side, Side), NodeError> {
        let side = async |token: &str| {
            let slot = self.world.target.slot(token).await.map_err(port_err)?;
            let gone = || Failure::new("slot_gone", format!("the slot {token} is gone")).hint("release again");
            Ok::<_, NodeError>(Side { version: slot.ok_or_else(gone)?.version, slot: token.to_owned() })
        };
        Ok((side(self.live).await?, side(&self.reads.slot.token).await?))
    }

    /// Watches until the step is over, somebody says something, the judge has found harm, or a stretch is long enough.
    async fn stretch(&self, state: TrialState) -> Result<Outcome<Writes>, NodeError> {
        let lasts = match self.trial.steps.get(state.step) {
            _ if state.paused => None,
            Some(CanaryStep::Wait(ms)) => Some(*ms),
            Some(CanaryStep::Pause | CanaryStep::Weight(_) | CanaryStep::Approval) => None,
            // As long as a decision may take.
            Some(CanaryStep::Analysis) => Some(self.patience_ms()),
            None => match self.verdict(&state) {
                Verdict::Pass => {
                    self.record(&state, Verdict::Pass);
                    let route = self.finish(state.weight).await?;
                    return Ok(Outcome::update(Writes { trial: TrialState { done: true, ..state }, route }));
                }
                Verdict::Fail => {
                    self.record(&state, Verdict::Fail);
                    let message = format!("the {} was stopped: {}", self.trial.called, state.reason());
                    return Err(self.ended("failed", message).into());
                }
                // A person must say what becomes of it, within the time that an approval has.
                Verdict::Inconclusive => Some(self.patience_ms()),
            },
        };
        let weight = state.weight;
        let watcher = self.watcher(None);
        let Stretch { state, bad, lapsed, .. } = self.cx.observe("watch", watcher.watch(state, lasts)).await?;
        self.unharmed(&state, bad)?;
        let route = if lapsed { Some(self.divide("divide", weight, &[], None).await?) } else { None };
        let over = lasts.is_some_and(|ms| state.waited_ms >= ms);
        let behind_steps = state.step >= self.trial.steps.len();
        let (needs_pass, passed) = (state.needs_pass(self.trial), state.verdict() == Verdict::Pass);
        if over && needs_pass && !passed {
            self.record(&state, Verdict::Inconclusive);
            let message = format!("nobody promoted the {}, and the judge could not say", self.trial.called);
            let failure = self.ended("inconclusive", message).because(state.reason());
            return Err(failure.hint("`tidegate promote MODEL` in time, or more traffic or time for the steps").into());
        }
        let analysed = needs_pass && passed && !state.paused;
        let state = if (over || analysed) && !behind_steps { self.next(state) } else { state };
        Ok(Outcome::update(Writes { trial: state, route }))
    }

    /// Whoever looks at it; while a question stands, until it is settled.
    fn watcher<'w>(&'w self, posed: Option<&'w Posed<'w>>) -> Watcher<'w> {
        Watcher {
            world: self.world,
            cx: self.cx,
            model: self.reads.plan.model.as_str(),
            candidate: &self.reads.slot.token,
            live: self.live,
            trial: self.trial,
            plan: &self.reads.plan,
            posed,
        }
    }

    /// Ends the trial where something bad was found.
    fn unharmed(&self, state: &TrialState, bad: Option<String>) -> Result<(), NodeError> {
        let Some(reason) = bad else { return Ok(()) };
        self.record(state, Verdict::Fail);
        Err(self.ended("failed", format!("the {} was stopped: {reason}", self.trial.called)).into())
    }

    /// How long a pass is waited for: as long as a decision may take, but not less than the judge needs.
    fn patience_ms(&self) -> u64 {
        self.reads.plan.approval.ttl_ms.max(self.trial.analysis.window_ms.saturating_mul(2))
    }

    /// The next step; the judge of a step `analysis` knows nothing of the shares before.
    fn next(&self, state: TrialState) -> TrialState {
        let next = state.next_step();
        if self.trial.steps.get(next.step) == Some(&CanaryStep::Analysis) { next.judged_anew() } else { next }
    }

    /// What the judge says at the end of the steps.
    fn verdict(&self, state: &TrialState) -> Verdict {
        let verdict = state.verdict();
        if verdict != Verdict::Pass {
            let why = state.reason();
            self.cx.progress(&format!("the judge cannot say: {why}; `tidegate promote` or `tidegate abort`"));
        }
        verdict
    }

    /// Puts the verdict with its samples into the thread's events.
    fn record(&self, state: &TrialState, verdict: Verdict) {
        let report = state.report.clone().unwrap_or_else(|| state.monitor.report());
        let answers = state.answers.as_ref().map(crate::judge::answers::Answers::report);
        let said = serde_json::json!({
            "of": self.trial.called, "verdict": verdict, "reason": state.reason(), "report": report, "answers": answers,
            "metrics": state.metrics.all,
        });
        self.cx.emit("verdict", said);
    }
}

/// A share in the gateway's parts.
fn parts(share: f64) -> u32 {
    match CanaryStep::share(share) {
        CanaryStep::Weight(parts) => parts.min(WHOLE),
        CanaryStep::Wait(_) | CanaryStep::Pause | CanaryStep::Analysis | CanaryStep::Approval => WHOLE,
    }
}

/// In the gateway's words.
fn sticky(by: &SplitBy) -> Sticky {
    match by {
        SplitBy::Cookie => Sticky::cookie(),
        SplitBy::ClientIp => Sticky::ClientIp,
        SplitBy::Header(name) => Sticky::Header { name: name.to_ascii_lowercase() },
    }
}
