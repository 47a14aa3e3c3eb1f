//! Room for a version where two do not fit: requests wait, the live version stops. Undone by starting it anew and letting them go on.

use std::path::PathBuf;

use async_trait::async_trait;
use chrono::Utc;
use serde::{Deserialize, Serialize};

use super::slot::{STOP_GRACE_MS, StartSlot};
use super::switch::{given_back, moved_on, state};
use crate::graph::{Effect, EffectCx, Failure, NodeError, Probe};
use crate::nodes::World;
use crate::nodes::readiness::until_ready;
use crate::nodes::state::RouteState;
use crate::nodes::world::{ledger, port};
use crate::ports::{Fence, Hold, Leg, PackagedModel, Route, RouteRequest, TrafficPlan, WHOLE, first_of};
use crate::release::ReleaseChange;

/// Longest wait for requests under way at the version that stops, in milliseconds.
pub(super) const DRAIN_TIMEOUT_MS: u64 = 30_000;

/// Lets a model's requests wait.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldRequests {
    /// The model's public name.
    pub model: String,
    /// The slot that answers now.
    pub live: String,
    /// How long a request may wait, in milliseconds.
    pub timeout_ms: u64,
    /// The route's generation that this was planned on; another one is refused.
    pub expected_generation: u64,
}

/// Stops the version that answered, while requests wait.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VacateSlot {
    /// The model's public name.
    pub model: String,
    /// Its slot.
    pub token: String,
    /// Its release, whose row learns of the slot that it is started anew in.
    pub deployment_id: String,
    /// What is started anew when this is undone.
    pub package: PackagedModel,
    /// The file with its variables and secrets: the path only.
    pub env_file: Option<PathBuf>,
    /// The numbers of its replicas, from 1; none: one replica.
    #[serde(default)]
    pub replicas: Vec<u32>,
    /// How many workers each of them has; absent: as the service's code says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// How long it may take to be ready again, in milliseconds.
    pub ready_timeout_ms: u64,
    /// How long a request may wait, in milliseconds.
    pub hold_ms: u64,
    /// The route's generation after the hold.
    pub expected_generation: u64,
}

pub(super) async fn route(world: &World, model: &str) -> Result<Option<Route>, Failure> {
    world.router.route(model).await.map_err(port)
}

pub(super) async fn put(
    world: &World,
    cx: &EffectCx,
    model: &str,
    traffic: TrafficPlan,
    generation: u64,
) -> Result<RouteState, Failure> {
    let fence = Fence { thread: cx.thread.to_string(), epoch: cx.epoch };
    let request = RouteRequest { model: model.to_owned(), traffic, expected_generation: generation, fence };
    Ok(state(world.router.put_route(&request).await.map_err(|e| moved_on(port(e)))?))
}

/// Nobody answers; requests wait.
pub(super) fn nobody(hold_ms: u64) -> TrafficPlan {
    TrafficPlan { hold: Some(Hold { timeout_ms: hold_ms }), ..TrafficPlan::default() }
}

#[async_trait]
impl Effect for HoldRequests {
    const KIND: &'static str = "hold_requests";
    type World = World;
    type Receipt = RouteState;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<RouteState, Failure> {
        let now = route(world, &self.model).await?;
        let generation = given_back(now.as_ref(), self.expected_generation, &self.live);
        let traffic = now.map(|route| route.traffic).unwrap_or_default();
        // Nobody stands by: the room is for the new version.
        let traffic = TrafficPlan { hold: Some(Hold { timeout_ms: self.timeout_ms }), standby: None, ..traffic };
        put(world, cx, &self.model, traffic, generation).await
    }

    async fn probe(&self, world: &World, _cx: &EffectCx) -> Result<Probe<RouteState>, Failure> {
        Ok(match route(world, &self.model).await? {
            Some(route) if route.traffic.hold.is_some() && route.generation > self.expected_generation => {
                Probe::Done(state(route))
            }
            _ => Probe::NotDone,
        })
    }

    async fn undo(&self, world: &World, _done: &RouteState, cx: &EffectCx) -> Result<(), Failure> {
        let Some(route) = route(world, &self.model).await?.filter(|route| route.traffic.hold.is_some()) else {
            return Ok(());
        };
        if route.traffic.legs.is_empty() {
            // Without a leg and without a hold the model would be gone.
            let gone = Failure::new("version_not_back", format!("no version of {} is there to answer", self.model));
            return Err(gone.hint("`tidegate host status` shows what runs; `tidegate run undo retry T` tries again"));
        }
        let traffic = TrafficPlan { hold: None, ..route.traffic };
        put(world, cx, &self.model, traffic, route.generation).await.map(drop)
    }
}

#[async_trait]
impl Effect for VacateSlot {
    const KIND: &'static str = "vacate_slot";
    type World = World;
    type Receipt = RouteState;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<RouteState, Failure> {
        let pool = world.pool(&self.token).await.map_err(port)?;
        for slot in &pool {
            world.router.drain(&slot.token, DRAIN_TIMEOUT_MS).await.map_err(port)?;
        }
        let now = route(world, &self.model).await?;
        let vacated = now.filter(|route| route.traffic.legs.is_empty() && route.generation > self.expected_generation);
        let after = match vacated {
            // An attempt before this one came so far.
            Some(route) => state(route),
            None => put(world, cx, &self.model, nobody(self.hold_ms), self.expected_generation).await?,
        };
        for slot in &pool {
            world.target.remove_slot(&slot.token, STOP_GRACE_MS).await.map_err(port)?;
        }
        Ok(after)
    }

    async fn probe(&self, world: &World, cx: &EffectCx) -> Result<Probe<RouteState>, Failure> {
        let gone = world.pool(&self.token).await.map_err(port)?.is_empty();
        let vacated = route(world, &self.model).await?;
        let vacated = vacated.filter(|r| r.traffic.legs.is_empty() && r.generation > self.expected_generation);
        Ok(match vacated {
            // Half of it is enough to be taken back: nobody answers any more.
            Some(route) if gone || cx.reason.is_some() => Probe::Done(state(route)),
            _ => Probe::NotDone,
        })
    }

    async fn undo(&self, world: &World, _done: &RouteState, cx: &EffectCx) -> Result<(), Failure> {
        let now = route(world, &self.model).await?;
        let others =
            |route: &Route| route.traffic.stable().is_some_and(|leg| leg.slots.iter().all(|s| first_of(s) != cx.token));
        if now.as_ref().is_some_and(others) {
            // Somebody else answers by now: a release or a rollback after this one.
            return Ok(());
        }
        (cx.progress)("starting the version before anew; requests wait");
        // What is left of it was about to stop.
        for slot in world.pool(&self.token).await.map_err(port)? {
            world.target.remove_slot(&slot.token, STOP_GRACE_MS).await.map_err(port)?;
        }
        let (model, package, env_file) = (self.model.clone(), self.package.clone(), self.env_file.clone());
        let start = StartSlot { model, package, env_file, replicas: self.replicas.clone(), workers: self.workers };
        let slot = start.perform(world, cx).await?;
        let slots: Vec<String> = world.pool(&slot.token).await.map_err(port)?.into_iter().map(|s| s.token).collect();
        for token in &slots {
            until_ready(world, token, self.ready_timeout_ms).await.map_err(failed)?;
        }
        let leg = Leg { version: self.package.model_version.clone(), slots, weight: WHOLE };
        let now = route(world, &self.model).await?;
        let already = now.as_ref().is_some_and(|route| route.traffic.legs == [leg.clone()]);
        if !already {
            let traffic = TrafficPlan { legs: vec![leg], ..nobody(self.hold_ms) };
            put(world, cx, &self.model, traffic, now.map_or(0, |route| route.generation)).await?;
        }
        let change = ReleaseChange { slot_token: Some(slot.token), ..ReleaseChange::at(Utc::now()) };
        world.ledger.update(&self.deployment_id, change).await.map(drop).map_err(|e| ledger(&e))
    }
}

/// The version before does not come up again: a person must look.
pub(super) fn failed(error: NodeError) -> Failure {
    match error {
        NodeError::Failed(failure) => failure,
        other => Failure::new("version_not_back", other.to_string()),
    }
}
