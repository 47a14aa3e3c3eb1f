//! A version under watch: looked at all the time, and knocked at beside the looks.
//!
//! The gateway counts a request when it ends: as an error when the slot answered 5xx or broke off, as no error when the caller gave up
//! first. A service that hangs therefore has no errors at all, so what the watch's own requests come to counts for itself.

use std::convert::Infallible;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

use super::world::port_err;
use super::{BakeReport, LiveSlot, RouteState};
use crate::graph::NodeError;
use crate::ports::{
    ServiceCall, ServiceClient, SlotState, Target, TrafficRouter, VersionTraffic, first_of, replica_token, together,
};
use crate::release::DeploymentPlan;

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
    before_ms: u64,
    /// Not the clock on the wall, which may jump.
    here: Instant,
}

impl Watched {
    /// Since the watch began, or since the slot's process was first ready, whichever is later.
    pub fn since(began: DateTime<Utc>, ready: Option<DateTime<Utc>>) -> Self {
        let from = ready.map_or(began, |ready| ready.max(began));
        let before_ms = u64::try_from((Utc::now() - from).num_milliseconds()).unwrap_or(0);
        Self { before_ms, here: Instant::now() }
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
            // The last word is a request answered after the time was over; until there is one, it goes on.
            if unready == 0 && knocked.answered_since(limit) {
                return Ok(self.verdict(traffic.as_ref()));
            }
            let watched = self.watched_ms();
            if watched / 1000 > told {
                told = watched / 1000;
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
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use serde_json::Value;

    use super::*;
    use crate::ports::{PortError, Route, ServiceAnswer, Slot, SlotRequest, SwitchRequest, TrafficPlan};
    use crate::release::units::Millis;
    use crate::release::{DeployRequest, Machine, ModelName, PlanInput, Policy, Seen, SmokeCase, plan};

    /// How the service treats a request.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Does {
        Answer(u16),
        Hang,
    }

    /// A service behind a gateway that counts as the real one does.
    struct Fake {
        /// By the number of the knock, from 1.
        does: fn(u32) -> Does,
        state: SlotState,
        counted: Mutex<(u64, u64)>,
        knocks: AtomicU32,
        under_way: AtomicU32,
        most_under_way: AtomicU32,
    }

    impl Fake {
        fn new(does: fn(u32) -> Does) -> Self {
            let none = || AtomicU32::new(0);
            Self {
                does,
                state: SlotState::Ready,
                counted: Mutex::new((0, 0)),
                knocks: none(),
                under_way: none(),
                most_under_way: none(),
            }
        }

        fn count(&self, error: bool) {
            let mut counted = self.counted.lock().unwrap();
            *counted = (counted.0 + 1, counted.1 + u64::from(error));
        }

        /// The report of a watch over this many milliseconds; a knock has `knock_ms`.
        async fn watched(&self, for_ms: u64, knock_ms: u64) -> BakeReport {
            let plan = a_plan(for_ms, Some(knock_ms));
            let slot = LiveSlot { token: "green".into(), address: String::new(), port: 1, ready_ms: 1 };
            let ward = Ward {
                router: self,
                target: self,
                services: self,
                say: &|_| (),
                knock: Knock::new(&plan, &a_route(), None),
                plan: &plan,
                slot: &slot,
                time: Watched::since(Utc::now(), None),
            };
            ward.watch().await.unwrap()
        }
    }

    fn a_route() -> RouteState {
        let endpoint_url = "http://gateway/iris".to_owned();
        RouteState { model: "iris".into(), endpoint_url, generation: 1, live: Some("green".into()), standby: None }
    }

    fn a_plan(for_ms: u64, timeout_ms: Option<u64>) -> DeploymentPlan {
        let request = DeployRequest::for_project(ModelName::new("iris").unwrap(), "/p/iris");
        let (machine, seen, policy) = (Machine::default(), Seen::default(), Policy::default());
        let input = PlanInput { request, live: None, machine, seen, policy };
        let mut plan = plan(&input).unwrap();
        plan.bake.for_ms = for_ms;
        let case = timeout_ms.map(|ms| SmokeCase {
            name: "setosa".into(),
            path: "/predict".into(),
            body: Some(Value::Null),
            expect: None,
            tolerance: None,
            status: None,
            timeout: Some(Millis(ms)),
        });
        plan.smoke = case.into_iter().collect();
        plan
    }

    #[async_trait]
    impl ServiceClient for Fake {
        async fn call(&self, call: &ServiceCall) -> Result<ServiceAnswer, PortError> {
            let number = self.knocks.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_under_way.fetch_max(self.under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let does = (self.does)(number);
            if does == Does::Hang {
                tokio::time::sleep(Duration::from_millis(call.timeout_ms)).await;
            }
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            match does {
                Does::Answer(status) => {
                    self.count(status >= 500);
                    Ok(ServiceAnswer { status, body: Value::Null, latency_ms: 1.0 })
                }
                Does::Hang => {
                    self.count(false);
                    Err(PortError::new("service_call_failed", "no answer"))
                }
            }
        }
    }

    #[async_trait]
    impl TrafficRouter for Fake {
        async fn route(&self, _model: &str) -> Result<Option<Route>, PortError> {
            let RouteState { model, endpoint_url, generation, live, standby } = a_route();
            let traffic = TrafficPlan::default();
            Ok(Some(Route { model, generation, live, standby, traffic, endpoint_url, changed_by_gateway: None }))
        }
        async fn routes(&self) -> Result<Vec<Route>, PortError> {
            Ok(Vec::new())
        }
        async fn switch(&self, _request: &SwitchRequest) -> Result<Route, PortError> {
            Err(PortError::new("never", "a watch switches nothing"))
        }
        async fn drain(&self, _token: &str, _timeout_ms: u64) -> Result<u64, PortError> {
            Ok(0)
        }
        async fn traffic(&self, _model: &str) -> Result<Vec<VersionTraffic>, PortError> {
            let (requests, errors) = *self.counted.lock().unwrap();
            let (token, version) = ("green".to_owned(), "v2".to_owned());
            Ok(vec![VersionTraffic { token, version, requests, errors, client_errors: 0, in_flight: 0, latency: None }])
        }
        async fn endpoint_url(&self, _model: &str) -> Result<String, PortError> {
            Ok(a_route().endpoint_url)
        }
    }

    #[async_trait]
    impl Target for Fake {
        async fn start_slot(&self, _request: &SlotRequest) -> Result<Slot, PortError> {
            Err(PortError::new("never", "a watch starts nothing"))
        }
        async fn slot(&self, token: &str) -> Result<Option<Slot>, PortError> {
            Ok(Some(Slot {
                token: token.to_owned(),
                model: "iris".into(),
                version: "v2".into(),
                state: self.state,
                pid: Some(1),
                port: 1,
                log: "/log".into(),
                restarts: 0,
                last_exit: None,
                started_at: None,
                ready_at: None,
            }))
        }
        async fn slots(&self) -> Result<Vec<Slot>, PortError> {
            Ok(Vec::new())
        }
        async fn remove_slot(&self, _token: &str, _grace_ms: u64) -> Result<(), PortError> {
            Ok(())
        }
        async fn slot_log(&self, _token: &str, _lines: usize) -> Result<Vec<String>, PortError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_service_that_answers_passes_by_a_request_after_the_time() {
        let fake = Fake::new(|_| Does::Answer(200));
        let report = fake.watched(2_000, 100).await;
        assert!(report.passed && report.watched_ms >= 2_000 && report.requests >= 2, "{report:?}");
        let at_once = Fake::new(|_| Does::Answer(200)).watched(0, 100).await;
        assert!(at_once.passed && at_once.requests >= 1, "{at_once:?}");
    }

    #[tokio::test]
    async fn a_service_that_hangs_while_it_says_that_it_is_ready_goes_back() {
        let fake = Fake::new(|number| if number < 3 { Does::Answer(200) } else { Does::Hang });
        let report = fake.watched(60_000, 100).await;
        assert!(!report.passed && report.errors == 0 && report.watched_ms < 60_000, "{report:?}");
        assert_eq!(report.reason, "3 requests of the watch's own in a row got no answer within 0.1 s");
        assert_eq!(fake.most_under_way.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_service_that_hangs_from_the_first_request_on_never_passes() {
        // The requests that were given up are counted, and none of them as an error.
        let report = Fake::new(|_| Does::Hang).watched(0, 100).await;
        assert!(!report.passed && report.requests >= 3 && report.errors == 0, "{report:?}");
    }

    #[tokio::test]
    async fn a_single_lost_request_is_a_hiccup() {
        // The first one is lost, so however few there are: one of them was.
        let fake = Fake::new(|number| if number % 2 == 1 { Does::Hang } else { Does::Answer(200) });
        let report = fake.watched(1_000, 100).await;
        assert!(report.passed && report.requests >= 2, "{report:?}");
    }

    #[tokio::test]
    async fn looks_go_on_while_a_request_hangs() {
        let fake = Fake { state: SlotState::Unready, ..Fake::new(|_| Does::Hang) };
        let began = Instant::now();
        let report = fake.watched(600_000, 600_000).await;
        assert!(!report.passed && report.reason.contains("not ready at 8 looks"), "{report:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }

    #[test]
    fn the_time_in_which_the_version_did_not_run_is_not_watched() {
        let now = Utc::now();
        let ago = |seconds| now - chrono::Duration::seconds(seconds);
        assert!(Watched::since(ago(60), Some(ago(90))).ms() >= 60_000);
        assert!((5_000..30_000).contains(&Watched::since(ago(60), Some(ago(5))).ms()));
        // The clock was set back.
        assert!(Watched::since(ago(-60), None).ms() < 30_000);
    }

    #[tokio::test]
    async fn errors_are_judged_by_the_gateway_s_count() {
        let every_second = Fake::new(|number| Does::Answer(if number % 2 == 0 { 500 } else { 200 }));
        let report = every_second.watched(60_000, 100).await;
        assert!(!report.passed && report.errors >= 3 && report.reason.contains("requests failed ("), "{report:?}");
        let only_one = Fake::new(|_| Does::Answer(500)).watched(0, 100).await;
        assert!(!only_one.passed && only_one.reason.starts_with("1 of 1 requests failed"), "{only_one:?}");
        let not_found = Fake::new(|_| Does::Answer(404)).watched(0, 100).await;
        assert!(not_found.passed, "{not_found:?}");
    }

    #[test]
    fn a_knock_is_waited_for_by_what_validation_measured() {
        let limit = |case_ms, measured| Knock::new(&a_plan(0, case_ms), &a_route(), measured).0.timeout_ms;
        assert_eq!(limit(Some(10_000), Some(5.0)), 3_000);
        assert_eq!(limit(Some(10_000), Some(700.0)), 7_000);
        assert_eq!(limit(Some(10_000), Some(7_000.0)), 10_000);
        assert_eq!(limit(Some(500), Some(5.0)), 500);
        assert_eq!(limit(Some(30_000), None), 30_000);
        assert_eq!(limit(None, None), 10_000);
        assert_eq!(Knock::new(&a_plan(0, None), &a_route(), None).0.url, "http://gateway/iris/readyz");
    }
}
