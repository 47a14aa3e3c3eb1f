//! A version under watch: looked at all the time, and knocked at beside the looks.
//!
//! The gateway counts a request when it ends: as an error when the slot answered 5xx or broke off, as no error when the caller gave up
//! first. A service that hangs therefore has no errors at all, so what the watch's own requests come to counts for itself.

use std::convert::Infallible;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

use super::metrics::{Held, Metrics};
use super::world::port_err;
use super::{BakeReport, LiveSlot, RouteState};
use crate::graph::NodeError;
use crate::ports::{
    ServiceCall, ServiceClient, SlotState, Target, TrafficRouter, VersionTraffic, first_of, replica_token, together,
};
use crate::release::DeploymentPlan;
use times::Times;

/// Pause between two looks, and between the end of a knock and the next one.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks in a row at which the slot may be unready before that counts.
const UNREADY_LOOKS: u32 = 8;
/// Requests before a share of errors counts; below this, as many errors as [`FEW_ERRORS`] do.
const ENOUGH_REQUESTS: u64 = 20;
/// Errors that are too many whatever the number of requests.
const FEW_ERRORS: u64 = 3;
/// Knocks in a row without an answer that are too many: one may be lost to a hiccup of the machine.
const SILENT_KNOCKS: u32 = 3;
/// A knock is waited for at least so long, in milliseconds: a laden machine is no broken service.
const KNOCK_TIMEOUT_MS: u64 = 3_000;
/// And so many times as long as validation's slowest calls took: a slow model is none either.
const KNOCK_TIMES_SLOWER: f64 = 10.0;
/// Longest a knock is waited for where no golden case says how long one may take, in milliseconds.
const READYZ_TIMEOUT_MS: u64 = 10_000;

/// The watch's own request through the public endpoint, so that a quiet hour is not taken for a good one.
pub(super) struct Knock(ServiceCall);

impl Knock {
    /// The first golden case, else readiness. `measured_ms`: how long validation's slowest calls took.
    pub fn new(plan: &DeploymentPlan, route: &RouteState, measured_ms: Option<f64>) -> Self {
        let case = plan.smoke.first();
        let path = case.map_or("/readyz", |case| &case.path);
        let most_ms = case.map_or(READYZ_TIMEOUT_MS, |case| case.timeout_ms());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casting saturates")]
        let slow_ms = measured_ms.map_or(most_ms, |ms| (ms * KNOCK_TIMES_SLOWER) as u64);
        Self(ServiceCall {
            url: format!("{}{path}", route.endpoint_url),
            body: case.and_then(|case| case.body.clone()),
            timeout_ms: slow_ms.max(KNOCK_TIMEOUT_MS).min(most_ms),
        })
    }
}

/// How long it has been watched. A watch that goes on after a crash does not begin anew: the gateway counted meanwhile. The time in
/// which the version itself did not run is not counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    began: DateTime<Utc>,
    before_ms: u64,
    /// Not the clock on the wall, which may jump.
    here: Instant,
}

impl Watched {
    /// Since the watch began, or since the slot's process was first ready, whichever is later.
    pub fn since(began: DateTime<Utc>, ready: Option<DateTime<Utc>>) -> Self {
        let from = ready.map_or(began, |ready| ready.max(began));
        let before_ms = u64::try_from((Utc::now() - from).num_milliseconds()).unwrap_or(0);
        Self { began, before_ms, here: Instant::now() }
    }

    fn ms(self) -> u64 {
        self.before_ms.saturating_add(u64::try_from(self.here.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// What has come of the knocks so far.
#[derive(Debug, Clone, Copy, Default)]
struct Knocks {
    /// When the newest answer was there, in milliseconds of the watch.
    answered_ms: Option<u64>,
    /// How many in a row have had none.
    silent: u32,
}

impl Knocks {
    /// Whether the newest one was answered, and not before `ms`.
    fn answered_since(self, ms: u64) -> bool {
        self.silent == 0 && self.answered_ms.is_some_and(|at| at >= ms)
    }
}

/// A version under watch.
pub(super) struct Ward<'a> {
    pub router: &'a dyn TrafficRouter,
    pub target: &'a dyn Target,
    pub services: &'a dyn ServiceClient,
    pub say: &'a (dyn Fn(&str) + Sync),
    pub plan: &'a DeploymentPlan,
    pub slot: &'a LiveSlot,
    pub knock: Knock,
    pub time: Watched,
    /// A person gave it all of the traffic, whatever could not be said: then only harm takes it back.
    pub promoted: bool,
    /// The user's own figures, where there are any.
    pub held: Option<&'a Held>,
}

/// What one look found wrong, or nothing.
enum Look {
    Good,
    Unready,
    Bad(String),
}

impl Ward<'_> {
    /// Looks until it is clear how the version fares; knocks beside it, so that a service that hangs is looked at as often as any.
    pub async fn watch(&self) -> Result<BakeReport, NodeError> {
        let (tell, knocks) = watch::channel(Knocks::default());
        tokio::select! {
            report = self.look_until_clear(knocks) => report,
            never = self.keep_knocking(tell) => match never {},
        }
    }

    /// One knock at a time: a service that hangs is not to be buried under our own requests.
    async fn keep_knocking(&self, tell: watch::Sender<Knocks>) -> Infallible {
        loop {
            let answered = self.services.call(&self.knock.0).await.is_ok();
            tell.send_modify(|knocks| {
                if answered {
                    // Also by an error: the gateway has counted that.
                    *knocks = Knocks { answered_ms: Some(self.watched_ms()), silent: 0 };
                } else {
                    knocks.silent += 1;
                }
            });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look_until_clear(&self, mut knocks: watch::Receiver<Knocks>) -> Result<BakeReport, NodeError> {
        let mut times = Times::of(self.plan, self.time.began);
        let report = self.look_on(&mut knocks, &mut times).await?;
        let metrics = self.held.map(|held| held.now().all).unwrap_or_default();
        Ok(BakeReport { metrics, report: times.map(|times| times.report()), ..report })
    }

    async fn look_on(
        &self,
        knocks: &mut watch::Receiver<Knocks>,
        times: &mut Option<Times>,
    ) -> Result<BakeReport, NodeError> {
        let limit = self.plan.bake.for_ms;
        let mut unready = 0;
        let mut told = 0;
        loop {
            // Before the figures: what was answered by now is counted in them.
            let knocked = *knocks.borrow_and_update();
            let traffic = self.traffic().await?;
            match self.look(traffic.as_ref()).await? {
                Look::Good => unready = 0,
                Look::Unready => unready += 1,
                Look::Bad(reason) => return Ok(self.report(false, reason, traffic.as_ref())),
            }
            if unready >= UNREADY_LOOKS {
                let reason = format!("it said that it is not ready at {unready} looks in a row");
                return Ok(self.report(false, reason, traffic.as_ref()));
            }
            if knocked.silent >= SILENT_KNOCKS {
                return Ok(self.report(false, self.silence(knocked.silent), traffic.as_ref()));
            }
            let metrics = self.held.map(Held::now);
            if let Some(reason) = metrics.as_ref().and_then(Metrics::failed) {
                return Ok(self.report(false, reason, traffic.as_ref()));
            }
            // The last word is a request answered after the time was over; until there is one, and until what is measured so many times
            // was, it goes on.
            let settled = metrics.as_ref().is_none_or(Metrics::are_settled);
            if unready == 0 && settled && knocked.answered_since(limit) {
                return Ok(match metrics.as_ref().filter(|_| !self.promoted).and_then(Metrics::doubt) {
                    Some(doubt) => self.report(false, doubt, traffic.as_ref()),
                    None => self.verdict(traffic.as_ref()),
                });
            }
            let watched = self.watched_ms();
            if watched / 1000 > told {
                told = watched / 1000;
                if let Some(times) = times.as_mut()
                    && let Some(reason) = times.look(self.router, self.plan, &self.slot.token).await?
                {
                    return Ok(self.report(false, reason, traffic.as_ref()));
                }
                let (requests, errors) = traffic.as_ref().map_or((0, 0), |t| (t.requests, t.errors));
                (self.say)(&format!("watching: {told} of {} s, {requests} requests, {errors} errors", limit / 1000));
            }
            if watched < limit {
                tokio::time::sleep(LOOK_EVERY).await;
            } else {
                // Either an answer, or time to look again anyway; both lead back to the top.
                let _ = tokio::time::timeout(LOOK_EVERY, knocks.changed()).await;
            }
        }
    }

    fn watched_ms(&self) -> u64 {
        self.time.ms()
    }

    async fn traffic(&self) -> Result<Option<VersionTraffic>, NodeError> {
        let all = self.router.traffic(self.plan.model.as_str()).await.map_err(port_err)?;
        Ok(together(all.into_iter().filter(|t| first_of(&t.token) == self.slot.token)))
    }

    async fn look(&self, traffic: Option<&VersionTraffic>) -> Result<Look, NodeError> {
        let route = self.router.route(self.plan.model.as_str()).await.map_err(port_err)?;
        if let Some(route) = route.filter(|r| r.live.as_deref() != Some(&self.slot.token)) {
            let why = route.changed_by_gateway.unwrap_or_else(|| "somebody changed the route".to_owned());
            return Ok(Look::Bad(format!("the traffic does not go to it any more: {why}")));
        }
        let mut ready = true;
        for nth in 1..=self.plan.replicas.max(1) {
            let slot = self.target.slot(&replica_token(&self.slot.token, nth)).await.map_err(port_err)?;
            let Some(slot) = slot else { return Ok(Look::Bad("its slot is gone".to_owned())) };
            if slot.restarts > 0 {
                let how = slot.last_exit.unwrap_or_else(|| "ended".to_owned());
                return Ok(Look::Bad(format!("its process ended by itself ({how})")));
            }
            ready &= slot.state == SlotState::Ready;
        }
        if let Some(reason) = traffic.and_then(|t| self.too_many_errors(t)) {
            return Ok(Look::Bad(reason));
        }
        Ok(if ready { Look::Good } else { Look::Unready })
    }

    fn too_many_errors(&self, traffic: &VersionTraffic) -> Option<String> {
        let counts = traffic.requests >= ENOUGH_REQUESTS || traffic.errors >= FEW_ERRORS;
        counts.then(|| self.above_the_limit(traffic)).flatten()
    }

    fn above_the_limit(&self, traffic: &VersionTraffic) -> Option<String> {
        let (requests, errors) = (traffic.requests, traffic.errors);
        #[expect(clippy::cast_precision_loss, reason = "counts of a watch")]
        let rate = if requests == 0 { 0.0 } else { errors as f64 / requests as f64 };
        (rate > self.plan.bake.max_error_rate).then(|| {
            let most = self.plan.bake.max_error_rate * 100.0;
            format!("{errors} of {requests} requests failed ({:.1} %, at most {most:.1} % may)", rate * 100.0)
        })
    }

    fn silence(&self, knocks: u32) -> String {
        let seconds = Duration::from_millis(self.knock.0.timeout_ms).as_secs_f64();
        format!("{knocks} requests of the watch's own in a row got no answer within {seconds} s")
    }

    /// At the end of the time: no data is never a pass, and neither are failures only, however few.
    fn verdict(&self, traffic: Option<&VersionTraffic>) -> BakeReport {
        let (requests, errors) = traffic.map_or((0, 0), |t| (t.requests, t.errors));
        if requests == 0 {
            let reason = "not one request reached it, so nothing can be said".to_owned();
            return self.report(false, reason, traffic);
        }
        let all_failed = traffic.filter(|_| errors == requests).and_then(|t| self.above_the_limit(t));
        let reason = all_failed.clone().unwrap_or_else(|| format!("{errors} of {requests} requests failed"));
        self.report(all_failed.is_none(), reason, traffic)
    }

    fn report(&self, passed: bool, reason: String, traffic: Option<&VersionTraffic>) -> BakeReport {
        BakeReport {
            passed,
            reason,
            watched_ms: self.watched_ms(),
            requests: traffic.map_or(0, |t| t.requests),
            errors: traffic.map_or(0, |t| t.errors),
            p99_ms: traffic.and_then(|t| t.latency).map(|l| l.p99_ms),
            cause: None,
            metrics: Vec::new(),
            report: None,
        }
    }
}

mod times;

#[cfg(test)]
mod tests;
