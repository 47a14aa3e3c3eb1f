//! Moves the traffic to the new version, atomically; the version before stays warm.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::effects::{SwitchTraffic, UpdateRelease};
use super::readiness::all_ready;
use super::{LiveSlot, RouteState, Situation, World};
use crate::graph::{Context, Node, NodeError, Outcome};
use crate::release::{DeploymentPlan, PlanState, ReleaseChange};

/// Reads plan, slot and situation; writes the route.
pub struct TrafficShift(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    slot: LiveSlot,
    situation: Situation,
    /// Where the traffic goes by now, where a canary had a part of it.
    route: Option<RouteState>,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    route: RouteState,
}

#[async_trait]
impl Node for TrafficShift {
    const KIND: &'static str = "traffic_shift";
    const VERSION: u32 = 3;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let id = cx.thread().to_string();
        let at = cx.now().await?;
        // It was when it was validated; days may have gone by since, and the host may have been down.
        cx.observe("ready", all_ready(&self.0, &reads.slot.token, reads.plan.ready_timeout_ms)).await?;
        let change = ReleaseChange::to(PlanState::Executing, at);
        cx.effect("executing", UpdateRelease { deployment_id: id.clone(), change }).await?;
        // Where the live version had to stop first nobody is left to stand by.
        let held_ms = reads.plan.hold_ms;
        let before = reads.situation.live_slot.filter(|_| held_ms.is_none());
        let switch = SwitchTraffic {
            model: reads.plan.model.to_string(),
            live: reads.slot.token,
            standby: before.clone(),
            before,
            held_ms,
            expected_generation: reads.route.map_or(reads.situation.generation, |route| route.generation),
        };
        let route = cx.effect("switch", switch).await?;
        let change = ReleaseChange { endpoint_url: Some(route.endpoint_url.clone()), ..ReleaseChange::at(at) };
        cx.effect("record", UpdateRelease { deployment_id: id, change }).await?;
        Ok(Outcome::update(Writes { route }))
    }
}
