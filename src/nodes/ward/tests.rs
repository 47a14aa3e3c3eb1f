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
            promoted: false,
            held: None,
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
