//! A stretch of watching: renews the lease on the traffic, looks at the slot, shows the judge what is new.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::TRIAL_SIGNALS;
use super::memory::TrialState;
use crate::graph::{Context, NodeError, Posed};
use crate::judge::Verdict;
use crate::judge::answers::Answers;
use crate::nodes::World;
use crate::nodes::effects::DivideTraffic;
use crate::nodes::metrics::{Gauge, Held, Pair};
use crate::nodes::readiness::until_up_again;
use crate::nodes::world::port_err;
use crate::ports::{Fence, RenewRequest, SlotState, first_of};
use crate::release::{DeploymentPlan, Trial};

/// Pause between two looks: the gateway counts by the second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A stretch ends after this, so that what was seen is durable. The gateway keeps the seconds of three of them.
const STRETCH: Duration = Duration::from_secs(300);
/// Looks in a row at which the slot may be unready.
const UNREADY_LOOKS: u32 = 8;
/// Pages of answers taken at one look; more stay for the next.
const MOST_PAGES: usize = 20;

/// What a stretch of watching came to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stretch {
    pub(super) state: TrialState,
    /// The judge, or the slot itself, says that it must not go on.
    pub(super) bad: Option<String>,
    /// The gateway has given the traffic back; it is divided anew.
    pub(super) lapsed: bool,
    /// The question that stands has an answer, or gets none any more.
    #[serde(default)]
    pub(super) settled: bool,
}

impl Stretch {
    fn of(state: TrialState) -> Self {
        Self { state, bad: None, lapsed: false, settled: false }
    }
}

/// Who watches whom.
pub(super) struct Watcher<'a> {
    pub(super) world: &'a World,
    pub(super) cx: &'a Context,
    pub(super) model: &'a str,
    /// The new version's slot.
    pub(super) candidate: &'a str,
    /// The live version's slot.
    pub(super) live: &'a str,
    pub(super) trial: &'a Trial,
    pub(super) plan: &'a DeploymentPlan,
    /// A question that stands meanwhile.
    pub(super) posed: Option<&'a Posed<'a>>,
}

impl Watcher<'_> {
    /// Watches until the step has lasted `lasts` milliseconds, somebody says something, harm is found, or the stretch is long enough;
    /// where only a pass leads on also until what is seen is enough for a pass.
    pub(super) async fn watch(&self, state: TrialState, lasts: Option<u64>) -> Result<Stretch, NodeError> {
        // The host may have been down; what it started anew is not judged for its start.
        for slot in self.world.pool(self.candidate).await.map_err(port_err)? {
            until_up_again(self.world, &slot.token, self.plan.ready_timeout_ms).await?;
        }
        if state.metrics.all.is_empty() || !state.is_judged(self.trial) {
            return self.look_on(state, lasts, None).await;
        }
        let gauge = Gauge::of(self.world, self.cx, self.plan, self.candidate, None).await?;
        let held = Held::new(state.metrics.clone().tried_again());
        gauge.beside(&held, self.look_on(state, lasts, Some(&held))).await
    }

    async fn look_on(
        &self,
        mut state: TrialState,
        lasts: Option<u64>,
        held: Option<&Held>,
    ) -> Result<Stretch, NodeError> {
        let needs_pass = state.needs_pass(self.trial);
        let signals = TRIAL_SIGNALS.map(str::to_owned);
        let (began, before_ms) = (Instant::now(), state.waited_ms);
        // The gateway can be asked again for what it counted; what was measured of both versions is lost with a process that is killed.
        let compares = state.metrics.all.iter().any(|metric| metric.plan.compare);
        let stretch = if compares { STRETCH / 10 } else { STRETCH };
        let mut unready = 0;
        loop {
            if !self.renewed().await? {
                return Ok(Stretch { lapsed: true, ..Stretch::of(state) });
            }
            let found = match self.of_slot(&mut unready).await? {
                None => self.judged(&mut state).await?,
                found => found,
            };
            if let Some(held) = held {
                let (metrics, pairs) = held.news();
                state.metrics = metrics;
                for Pair { metric, live, candidate } in pairs {
                    state.monitor.measured(&metric, live, candidate);
                }
            }
            let found = found.or_else(|| state.metrics.failed());
            state.waited_ms = before_ms + u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            if found.is_some() {
                return Ok(Stretch { bad: found, ..Stretch::of(state) });
            }
            let passed = needs_pass && !state.paused && state.verdict() == Verdict::Pass;
            let over = passed || lasts.is_some_and(|ms| state.waited_ms >= ms) || began.elapsed() >= stretch;
            let settled = match self.posed {
                Some(posed) => posed.is_settled().await?,
                None => false,
            };
            let rests = (over || settled) && held.is_none_or(Held::rests);
            if rests || self.cx.is_signalled(&signals).await? {
                let report = state.ended(lasts);
                return Ok(Stretch { settled, ..Stretch::of(TrialState { report, ..state }) });
            }
            let word = if self.posed.is_some() { "approve" } else { "promote" };
            let until = format!("until `tidegate {word} {}`", self.model);
            self.cx.progress(&state.line(self.trial.called, lasts, &until));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What is wrong with the slot itself.
    async fn of_slot(&self, unready: &mut u32) -> Result<Option<String>, NodeError> {
        let pool = self.world.pool(self.candidate).await.map_err(port_err)?;
        if pool.is_empty() {
            return Ok(Some("its slot is gone".to_owned()));
        }
        if let Some(slot) = pool.iter().find(|slot| slot.restarts > 0) {
            let how = slot.last_exit.as_deref().unwrap_or("it ended");
            return Ok(Some(format!("its process ended by itself ({how})")));
        }
        *unready = if pool.iter().all(|slot| slot.state == SlotState::Ready) { 0 } else { *unready + 1 };
        let bad = *unready >= UNREADY_LOOKS;
        Ok(bad.then(|| format!("it said that it is not ready at {unready} looks in a row")))
    }

    /// Shows the judge what is new; what harm it finds.
    async fn judged(&self, state: &mut TrialState) -> Result<Option<String>, NodeError> {
        let failed = |judgement: Option<crate::judge::Judgement>| {
            judgement.filter(|judgement| judgement.verdict == Verdict::Fail).map(|judgement| judgement.reason)
        };
        if state.answers.is_none() {
            let page = self.world.router.series(self.model, state.seen).await.map_err(port_err)?;
            if !state.is_judged(self.trial) {
                state.pass_over(&page);
                return Ok(None);
            }
            return Ok(failed(state.look(&page, self.live, self.candidate)));
        }
        for _ in 0..MOST_PAGES {
            let (after, since) = state.compared.map_or((0, None), |(after, since)| (after, Some(since)));
            let mut page = self.world.router.mirrored(self.model, after).await.map_err(port_err)?;
            if since.is_some_and(|since| since != page.since) {
                // The gateway began anew and numbers them anew.
                page = self.world.router.mirrored(self.model, 0).await.map_err(port_err)?;
            }
            page.pairs.retain(|pair| first_of(&pair.candidate.slot) == self.candidate);
            if let Some(reason) = failed(state.compare(&page)?) {
                return Ok(Some(reason));
            }
            if page.pairs.is_empty() {
                break;
            }
        }
        let differ = state.answers.as_ref().filter(|answers| answers.differ_too_often());
        Ok(differ.map(Answers::report).map(|report| report.reason))
    }

    /// Renews the part of the traffic; whether there still is one.
    async fn renewed(&self) -> Result<bool, NodeError> {
        let Some(route) = self.world.router.route(self.model).await.map_err(port_err)? else { return Ok(false) };
        if DivideTraffic::weight_in(&route, self.candidate).is_none() {
            return Ok(false);
        }
        let fence = Fence { thread: self.cx.thread().to_string(), epoch: self.cx.epoch() };
        let request = RenewRequest { model: self.model.to_owned(), generation: route.generation, fence };
        self.world.router.renew(&request).await.map_err(port_err)?;
        Ok(true)
    }
}
