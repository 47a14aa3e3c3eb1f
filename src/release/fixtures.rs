//! Small values for this room's tests.

use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::contract::ReleaseFacts;
use super::deployer::{DeployCall, DeployFailure, DeployFn, Deployed, RollbackCall, Surroundings};
use super::ledger::slot_token;
use super::name::ModelName;
use super::plan::{DeploymentPlan, LiveRelease, Machine, PlanInput, Seen};
use super::planner::plan;
use super::policy::Policy;
use super::request::DeployRequest;

/// 2026-11-20 10:00 UTC and some seconds.
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_795_168_800 + seconds)
}

/// What the planner sees for iris, with a live version or none.
pub fn input_of_iris(live: Option<&str>) -> PlanInput {
    PlanInput {
        request: DeployRequest::for_project(ModelName::new("iris").expect("name"), "/p/iris"),
        live: live.map(|version| LiveRelease {
            deployment_id: "d0".into(),
            model_version: version.into(),
            slot: Some("blue".into()),
            slot_token: Some("blue-d0".into()),
            content_digest: None,
            replicas: None,
        }),
        machine: Machine::default(),
        seen: Seen::default(),
        policy: Policy::default(),
    }
}

/// A plan for iris.
pub fn plan_of_iris(live: Option<&str>) -> DeploymentPlan {
    plan(&input_of_iris(live)).expect("a plan")
}

/// What a finished release of iris knows.
pub fn facts() -> ReleaseFacts {
    ReleaseFacts {
        deployment_id: "d1".into(),
        model_version: "v2".into(),
        endpoint_url: "http://127.0.0.1:7311/iris".into(),
        finished_at: at(0),
        health_check_passed: true,
        metrics_baseline: [("latency_p50_ms".to_owned(), 5.5)].into(),
        artifact: Some("sha256:00".into()),
    }
}

/// The result of a future that never has to wait.
pub fn wait<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the future waits"),
    }
}

/// A deploy function that does as it is told.
#[derive(Default)]
pub struct Scripted {
    /// Fails at this version.
    pub fails_on: Option<String>,
    /// Fails at every version.
    pub fails_always: bool,
    /// Fails to go back.
    pub fails_back: bool,
    /// Says that it keeps the ledger.
    pub keeps: bool,
}

fn broken() -> DeployFailure {
    DeployFailure { code: "broken".into(), message: "it broke".into() }
}

#[async_trait]
impl DeployFn for Scripted {
    async fn deploy(&self, call: &DeployCall) -> Result<Deployed, DeployFailure> {
        if self.fails_always || (self.fails_on.is_some() && self.fails_on == call.version) {
            return Err(broken());
        }
        Ok(Deployed {
            model_version: call.version.clone().unwrap_or_else(|| "built".into()),
            endpoint_url: format!("http://127.0.0.1:7311/{}", call.service),
            slot: Some("blue".into()),
            slot_token: Some(slot_token("blue", &call.deployment_id)),
            health_check_passed: true,
            ..Deployed::default()
        })
    }

    async fn roll_back(&self, _call: &RollbackCall) -> Result<(), DeployFailure> {
        if self.fails_back { Err(broken()) } else { Ok(()) }
    }

    fn keeps_ledger(&self) -> bool {
        self.keeps
    }
}

/// A clock that goes on by a second, and ids that count.
#[derive(Default)]
pub struct Ticking(AtomicI64);

impl Surroundings for Ticking {
    fn now(&self) -> DateTime<Utc> {
        at(self.0.fetch_add(1, Ordering::SeqCst))
    }

    fn new_id(&self) -> String {
        format!("d{}", self.0.fetch_add(1, Ordering::SeqCst))
    }
}
