//! One step of a canary, or a stretch of it: sets the share of the traffic, or watches it for a while. The graph comes back here until the
//! steps are done, so that what the judge has seen is durable every few minutes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::effects::{DivideTraffic, Side, UpdateRelease};
use super::readiness::until_ready;
use super::world::port_err;
use super::{LiveSlot, RouteState, Situation, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome, Until, Woken};
use crate::judge::{Judgement, Monitor, Report, RuleError, Sample, Verdict};
use crate::ports::{RenewRequest, SeriesPage, SlotState};
use crate::release::units::duration_text;
use crate::release::{CanaryPlan, CanaryStep, DeploymentPlan, PlanState, ReleaseChange};

/// What a person may say to a canary.
pub const CANARY_SIGNALS: [&str; 4] = ["promote", "pause", "resume", "abort"];
/// Pause between two looks: the gateway counts by the second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A stretch ends after this, so that what was seen is durable. The gateway keeps the seconds of three of them.
const STRETCH: Duration = Duration::from_secs(300);
/// The part of the traffic goes back where nobody renews it for so long: a command that is started again takes some seconds.
const RENEW_WITHIN_MS: u64 = 60_000;
/// Looks in a row at which the slot may be unready.
const UNREADY_LOOKS: u32 = 8;
/// Signals taken in one stretch; more stay for the next.
const MOST_SIGNALS: usize = 16;

/// How far a canary has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CanaryState {
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
    /// What the judge knows.
    pub monitor: Monitor,
    /// The judge's report, once there is one that stands.
    pub report: Option<Report>,
    /// Whether all of the traffic may go to it.
    pub done: bool,
}

/// Reads plan, slot, situation and how far it has come; writes how far, and the route.
pub struct Canary(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    slot: LiveSlot,
    situation: Situation,
    route: Option<RouteState>,
    canary: Option<CanaryState>,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    canary: CanaryState,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteState>,
}

/// What a stretch of watching came to.
#[derive(Debug, Serialize, Deserialize)]
struct Stretch {
    state: CanaryState,
    /// The judge, or the slot itself, says that it must not go on.
    bad: Option<String>,
    /// The gateway has given the traffic back; it is divided anew.
    lapsed: bool,
}

#[async_trait]
impl Node for Canary {
    const KIND: &'static str = "canary";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let rule = reads.plan.canary.as_ref().map(|canary| canary.analysis.clone()).unwrap_or_default();
        let state = match reads.canary.clone() {
            Some(state) => state,
            None => CanaryState::new(Monitor::new(rule).map_err(|e| unusable(&e))?),
        };
        // The first version of a model has nothing to be compared with.
        let Some((canary, live)) = reads.plan.canary.as_ref().zip(reads.situation.live_slot.clone()) else {
            return Ok(Outcome::update(Writes { canary: CanaryState { done: true, ..state }, route: None }));
        };
        let state = self.told(cx, state, canary).await?;
        if state.done {
            return Ok(Outcome::update(Writes { canary: state, route: None }));
        }
        match canary.steps.steps().get(state.step) {
            Some(CanaryStep::Weight(weight)) if !state.paused => self.weigh(cx, &reads, state, &live, *weight).await,
            _ => self.stretch(cx, &reads, canary, state, &live).await,
        }
    }
}

impl CanaryState {
    fn new(monitor: Monitor) -> Self {
        let (step, weight, waited_ms, seen) = (0, 0, 0, 0);
        Self { step, weight, waited_ms, paused: false, promoted: None, seen, monitor, report: None, done: false }
    }

    fn next_step(self) -> Self {
        Self { step: self.step + 1, waited_ms: 0, paused: false, ..self }
    }
}

fn unusable(error: &RuleError) -> Failure {
    Failure::new("canary_invalid", "the canary's rule cannot be used").because(error.to_string())
}

impl Canary {
    /// Takes what people have said since the last stretch.
    async fn told(&self, cx: &Context, state: CanaryState, canary: &CanaryPlan) -> Result<CanaryState, NodeError> {
        let signals = CANARY_SIGNALS.map(str::to_owned);
        let mut state = state;
        for _ in 0..MOST_SIGNALS {
            let Woken::Signal { name, value, by } = cx.wait(&signals, Until::After(Duration::ZERO)).await? else {
                break;
            };
            cx.emit("canary", serde_json::json!({"told": name, "by": by}));
            state = match name.as_str() {
                "promote" if value["full"] == true || state.step >= canary.steps.steps().len() => {
                    CanaryState { promoted: Some(by), done: true, ..state }
                }
                "promote" => state.next_step(),
                "pause" => CanaryState { paused: true, ..state },
                "resume" => CanaryState { paused: false, ..state },
                _ => {
                    let why = value["reason"].as_str().unwrap_or("no reason was given").to_owned();
                    let failure = Failure::new("canary_aborted", format!("{by} aborted the canary: {why}"));
                    return Err(failure.hint("all traffic is back at the stable version").into());
                }
            };
        }
        Ok(state)
    }

    /// Sets the share of the traffic.
    async fn weigh(
        &self,
        cx: &Context,
        reads: &Reads,
        state: CanaryState,
        live: &str,
        weight: u32,
    ) -> Result<Outcome<Writes>, NodeError> {
        cx.observe("ready", until_ready(&self.0, &reads.slot.token, reads.plan.ready_timeout_ms)).await?;
        let at = cx.now().await?;
        let change = ReleaseChange::to(PlanState::Executing, at);
        if state.step == 0 {
            cx.effect("executing", UpdateRelease { deployment_id: cx.thread().to_string(), change }).await?;
        }
        let route = self.divide(cx, reads, live, weight).await?;
        cx.emit("canary", serde_json::json!({"weight": weight, "step": state.step}));
        // What the candidate did before it had traffic is not the canary's.
        let seen = if state.seen == 0 { u64::try_from(at.timestamp()).unwrap_or(0) } else { state.seen };
        let state = CanaryState { weight, seen, ..state.next_step() };
        Ok(Outcome::update(Writes { canary: state, route: Some(route) }))
    }

    async fn divide(&self, cx: &Context, reads: &Reads, live: &str, weight: u32) -> Result<RouteState, NodeError> {
        let model = reads.plan.model.to_string();
        let (stable, candidate) = cx.pin("sides", self.sides(live, &reads.slot.token)).await?;
        let planned = reads.route.as_ref().map_or(reads.situation.generation, |route| route.generation);
        let expected_generation = cx.pin("generation", self.generation(&model, planned)).await?;
        let divide =
            DivideTraffic { model, stable, candidate, weight, expected_generation, renew_within_ms: RENEW_WITHIN_MS };
        cx.effect("divide", divide).await
    }

    /// The generation that is expected: the one that was planned on, or what the gateway made of it by giving the traffic back.
    async fn generation(&self, model: &str, planned: u64) -> Result<u64, NodeError> {
        let route = self.0.router.route(model).await.map_err(port_err)?;
        let given_back = route.filter(|route| route.changed_by_gateway.is_some() && route.generation > planned);
        Ok(given_back.map_or(planned, |route| route.generation))
    }

    async fn sides(&self, live: &str, candidate: &str) -> Result<(Side, Side), NodeError> {
        let side = async |token: &str| {
            let slot = self.0.target.slot(token).await.map_err(port_err)?;
            let gone = || Failure::new("slot_gone", format!("the slot {token} is gone")).hint("release again");
            Ok::<_, NodeError>(Side { version: slot.ok_or_else(gone)?.version, slot: token.to_owned() })
        };
        Ok((side(live).await?, side(candidate).await?))
    }

    /// Watches until the step is over, somebody says something, the judge has found harm, or a stretch is long enough.
    async fn stretch(
        &self,
        cx: &Context,
        reads: &Reads,
        canary: &CanaryPlan,
        state: CanaryState,
        live: &str,
    ) -> Result<Outcome<Writes>, NodeError> {
        let lasts = match canary.steps.steps().get(state.step) {
            _ if state.paused => None,
            Some(CanaryStep::Wait(ms)) => Some(*ms),
            Some(CanaryStep::Pause | CanaryStep::Weight(_)) => None,
            None => match self.verdict(cx, &state) {
                Verdict::Pass => {
                    return Ok(Outcome::update(Writes { canary: CanaryState { done: true, ..state }, route: None }));
                }
                // A person must say what becomes of it, within the time that an approval has.
                Verdict::Fail | Verdict::Inconclusive => Some(reads.plan.approval.ttl_ms),
            },
        };
        let weight = state.weight;
        let Stretch { state, bad, lapsed } = cx.observe("watch", self.watch(cx, reads, state, live, lasts)).await?;
        if let Some(reason) = bad {
            let failure = Failure::new("canary_failed", format!("the canary was stopped: {reason}"));
            return Err(failure.hint("all traffic is back at the stable version").into());
        }
        let route = if lapsed { Some(self.divide(cx, reads, live, weight).await?) } else { None };
        let over = lasts.is_some_and(|ms| state.waited_ms >= ms);
        if over && state.step >= canary.steps.steps().len() {
            let why = state.report.as_ref().map_or_else(String::new, |report| report.judgement.reason.clone());
            let failure =
                Failure::new("canary_inconclusive", "nobody promoted the canary, and the judge could not say");
            return Err(failure
                .because(why)
                .hint("`tidegate promote MODEL` in time, or more traffic or time for the steps")
                .into());
        }
        let state = if over { state.next_step() } else { state };
        Ok(Outcome::update(Writes { canary: state, route }))
    }

    /// What the judge says at the end of the steps.
    fn verdict(&self, cx: &Context, state: &CanaryState) -> Verdict {
        let Some(report) = &state.report else { return Verdict::Inconclusive };
        if report.judgement.verdict != Verdict::Pass {
            cx.progress(&format!(
                "the judge cannot say: {}; `tidegate promote` or `tidegate abort`",
                report.judgement.reason
            ));
        }
        report.judgement.verdict
    }

    async fn watch(
        &self,
        cx: &Context,
        reads: &Reads,
        mut state: CanaryState,
        live: &str,
        lasts: Option<u64>,
    ) -> Result<Stretch, NodeError> {
        let signals = CANARY_SIGNALS.map(str::to_owned);
        let (began, before_ms) = (Instant::now(), state.waited_ms);
        let mut unready = 0;
        let end = |state, bad, lapsed| Ok(Stretch { state, bad, lapsed });
        loop {
            if self.renewed(cx, reads).await?.is_none() {
                return end(state, None, true);
            }
            match self.0.target.slot(&reads.slot.token).await.map_err(port_err)? {
                Some(slot) if slot.restarts > 0 => {
                    let how = slot.last_exit.unwrap_or_else(|| "it ended".to_owned());
                    return end(state, Some(format!("its process ended by itself ({how})")), false);
                }
                Some(slot) => unready = if slot.state == SlotState::Ready { 0 } else { unready + 1 },
                None => return end(state, Some("its slot is gone".to_owned()), false),
            }
            if unready >= UNREADY_LOOKS {
                return end(state, Some(format!("it said that it is not ready at {unready} looks in a row")), false);
            }
            let page = self.0.router.series(reads.plan.model.as_str(), state.seen).await.map_err(port_err)?;
            let judgement = state.look(&page, live, &reads.slot.token);
            state.waited_ms = before_ms + u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            if let Some(judgement) = judgement.filter(|judgement| judgement.verdict == Verdict::Fail) {
                return end(state, Some(judgement.reason), false);
            }
            if lasts.is_some_and(|ms| state.waited_ms >= ms)
                || began.elapsed() >= STRETCH
                || cx.is_signalled(&signals).await?
            {
                let report = state.ended(lasts);
                return end(CanaryState { report, ..state }, None, false);
            }
            cx.progress(&state.line(lasts));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Renews the part of the traffic; `None` where it has been given back.
    async fn renewed(&self, cx: &Context, reads: &Reads) -> Result<Option<()>, NodeError> {
        let model = reads.plan.model.as_str();
        let Some(route) = self.0.router.route(model).await.map_err(port_err)? else { return Ok(None) };
        if DivideTraffic::weight_in(&route, &reads.slot.token).is_none() {
            return Ok(None);
        }
        let fence = crate::ports::Fence { thread: cx.thread().to_string(), epoch: cx.epoch() };
        let request = RenewRequest { model: model.to_owned(), generation: route.generation, fence };
        self.0.router.renew(&request).await.map_err(port_err)?;
        Ok(Some(()))
    }
}

impl CanaryState {
    /// Shows the judge all seconds that are complete and that it has not seen.
    fn look(&mut self, page: &SeriesPage, live: &str, candidate: &str) -> Option<Judgement> {
        let mut samples: BTreeMap<u64, Sample> = BTreeMap::new();
        for slot in &page.slots {
            for second in slot.seconds.iter().filter(|second| second.second > self.seen && second.second <= page.until)
            {
                let sample = samples.entry(second.second).or_default();
                if slot.token == live {
                    sample.baseline.merge(&second.arm());
                } else if slot.token == candidate {
                    sample.candidate.merge(&second.arm());
                }
            }
        }
        if page.until > self.seen {
            // Also a silent second is one.
            samples.entry(page.until).or_default();
            self.seen = page.until;
        }
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

    /// The rule's window is over and the canary is not: what the judge says stands, and it goes on looking.
    fn begin_anew(&mut self) {
        if let Ok(fresh) = Monitor::new(self.monitor.rule().clone()) {
            let over = std::mem::replace(&mut self.monitor, fresh);
            self.report = Some(over.report());
        }
    }

    /// The judge's report at the end of a step: of the last window that is whole, else of what it has seen.
    fn ended(&self, lasts: Option<u64>) -> Option<Report> {
        let over = lasts.is_some_and(|ms| self.waited_ms >= ms);
        let whole = self.report.as_ref().filter(|report| report.judgement.verdict == Verdict::Pass);
        if !over || whole.is_some() {
            return self.report.clone();
        }
        let mut monitor = self.monitor.clone();
        monitor.end(self.seen * 1000);
        Some(monitor.report())
    }

    fn line(&self, lasts: Option<u64>) -> String {
        let report = self.monitor.report();
        let share = f64::from(self.weight) * 100.0 / f64::from(crate::release::WHOLE_WEIGHT);
        let time = match lasts {
            Some(ms) => format!("{} of {}", duration_text(self.waited_ms / 1000 * 1000), duration_text(ms)),
            None => "until it is promoted".to_owned(),
        };
        let [requests, errors] = report.candidate;
        format!("canary at {share} %, {time}: {requests} requests, {errors} errors")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Check, ErrorRatio, Rule};
    use crate::ports::{SlotSeries, TrafficSecond};

    fn state(window_s: u64) -> CanaryState {
        let checks = vec![Check::ErrorRatio(ErrorRatio::default())];
        let rule = Rule { window_ms: window_s * 1000, min_requests: 20, checks, ..Rule::default() };
        CanaryState { seen: 100, ..CanaryState::new(Monitor::new(rule).unwrap()) }
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
}
