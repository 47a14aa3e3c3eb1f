//! Watches the new version while it has the traffic. It fails the release as soon as the evidence says so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::world::port_err;
use super::{BakeReport, LiveSlot, RouteState, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::ports::{ServiceCall, SlotState, VersionTraffic};
use crate::release::{DeploymentPlan, SmokeCase};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks in a row at which the slot may be unready before that counts.
const UNREADY_LOOKS: u32 = 8;
/// Requests before a share of errors counts; below this, as many errors as [`FEW_ERRORS`] do.
const ENOUGH_REQUESTS: u64 = 20;
/// Errors that are too many whatever the number of requests.
const FEW_ERRORS: u64 = 3;

/// Reads plan, slot and route; writes the report.
pub struct Watch(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    slot: LiveSlot,
    route: RouteState,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    bake: BakeReport,
}

#[async_trait]
impl Node for Watch {
    const KIND: &'static str = "watch";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        // The deadline survives a crash: a watch that goes on does not begin anew.
        let began = cx.now().await?;
        let ward = Ward { world: &self.0, cx, plan: &reads.plan, slot: &reads.slot, route: &reads.route, began };
        let bake: BakeReport = cx.observe("bake", ward.watch()).await?;
        if bake.passed {
            return Ok(Outcome::update(Writes { bake }));
        }
        let failure =
            Failure::new("bake_failed", format!("the new version went bad while it was watched: {}", bake.reason));
        Err(failure.hint("the traffic is back where it was; `tidegate run show` has the figures").into())
    }
}

struct Ward<'a> {
    world: &'a World,
    cx: &'a Context,
    plan: &'a DeploymentPlan,
    slot: &'a LiveSlot,
    route: &'a RouteState,
    began: DateTime<Utc>,
}

/// What one look found wrong, or nothing.
enum Look {
    Good,
    Unready,
    Bad(String),
}

impl Ward<'_> {
    async fn watch(&self) -> Result<BakeReport, NodeError> {
        let limit = self.plan.bake.for_ms;
        let mut unready = 0;
        let mut told = 0;
        loop {
            self.knock().await;
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
            let watched = self.watched_ms();
            if watched >= limit && unready == 0 {
                return Ok(self.verdict(traffic.as_ref()));
            }
            if watched / 1000 > told {
                told = watched / 1000;
                let (requests, errors) = traffic.as_ref().map_or((0, 0), |t| (t.requests, t.errors));
                self.cx
                    .progress(&format!("watching: {told} of {} s, {requests} requests, {errors} errors", limit / 1000));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn watched_ms(&self) -> u64 {
        u64::try_from((Utc::now() - self.began).num_milliseconds()).unwrap_or(0)
    }

    /// One request of its own through the public endpoint, so that a quiet hour is not taken for a good one.
    async fn knock(&self) {
        let generated = SmokeCase {
            name: "readyz".into(),
            path: "/readyz".into(),
            body: None,
            expect: None,
            tolerance: None,
            status: None,
            timeout: None,
        };
        let case = self.plan.smoke.first().unwrap_or(&generated);
        let url = format!("{}{}", self.route.endpoint_url, case.path);
        // Whatever comes of it, the gateway has counted it.
        let _ = self
            .world
            .services
            .call(&ServiceCall { url, body: case.body.clone(), timeout_ms: case.timeout_ms() })
            .await;
    }

    async fn traffic(&self) -> Result<Option<VersionTraffic>, NodeError> {
        let all = self.world.router.traffic(self.plan.model.as_str()).await.map_err(port_err)?;
        Ok(all.into_iter().find(|t| t.token == self.slot.token))
    }

    async fn look(&self, traffic: Option<&VersionTraffic>) -> Result<Look, NodeError> {
        let route = self.world.router.route(self.plan.model.as_str()).await.map_err(port_err)?;
        if let Some(route) = route.filter(|r| r.live.as_deref() != Some(&self.slot.token)) {
            let why = route.changed_by_gateway.unwrap_or_else(|| "somebody changed the route".to_owned());
            return Ok(Look::Bad(format!("the traffic does not go to it any more: {why}")));
        }
        let slot = self.world.target.slot(&self.slot.token).await.map_err(port_err)?;
        let Some(slot) = slot else { return Ok(Look::Bad("its slot is gone".to_owned())) };
        if slot.restarts > 0 {
            let how = slot.last_exit.unwrap_or_else(|| "ended".to_owned());
            return Ok(Look::Bad(format!("its process ended by itself ({how})")));
        }
        if let Some(reason) = traffic.and_then(|t| self.too_many_errors(t)) {
            return Ok(Look::Bad(reason));
        }
        Ok(if slot.state == SlotState::Ready { Look::Good } else { Look::Unready })
    }

    fn too_many_errors(&self, traffic: &VersionTraffic) -> Option<String> {
        let (requests, errors) = (traffic.requests, traffic.errors);
        #[expect(clippy::cast_precision_loss, reason = "counts of a watch")]
        let rate = if requests == 0 { 0.0 } else { errors as f64 / requests as f64 };
        let counts = requests >= ENOUGH_REQUESTS || errors >= FEW_ERRORS;
        (counts && rate > self.plan.bake.max_error_rate).then(|| {
            let most = self.plan.bake.max_error_rate * 100.0;
            format!("{errors} of {requests} requests failed ({:.1} %, at most {most:.1} % may)", rate * 100.0)
        })
    }

    /// At the end of the time: no data is never a pass.
    fn verdict(&self, traffic: Option<&VersionTraffic>) -> BakeReport {
        let (requests, errors) = traffic.map_or((0, 0), |t| (t.requests, t.errors));
        if requests == 0 {
            let reason = "not one request reached it, so nothing can be said".to_owned();
            return self.report(false, reason, traffic);
        }
        self.report(true, format!("{errors} of {requests} requests failed"), traffic)
    }

    fn report(&self, passed: bool, reason: String, traffic: Option<&VersionTraffic>) -> BakeReport {
        BakeReport {
            passed,
            reason,
            watched_ms: self.watched_ms(),
            requests: traffic.map_or(0, |t| t.requests),
            errors: traffic.map_or(0, |t| t.errors),
            p99_ms: traffic.and_then(|t| t.latency).map(|l| l.p99_ms),
        }
    }
}
