//! A part of the traffic for a new version, beside the one that serves. Undone at once and wholly: all goes back to the stable version.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::switch::{moved_on, state};
use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::state::RouteState;
use crate::nodes::world::port;
use crate::ports::{Fence, Leg, Route, RouteRequest, TrafficPlan, WHOLE};

/// A version and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Its version.
    pub version: String,
    /// Its slot's token.
    pub slot: String,
}

/// Gives a part of a model's traffic to a candidate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DivideTraffic {
    /// The model's public name.
    pub model: String,
    /// The version that serves.
    pub stable: Side,
    /// The version that is tried.
    pub candidate: Side,
    /// The candidate's part of [`WHOLE`].
    pub weight: u32,
    /// The route's generation that this was planned on; another one is refused.
    pub expected_generation: u64,
    /// All goes back where nobody renews it for so long, in milliseconds.
    pub renew_within_ms: u64,
}

impl DivideTraffic {
    fn request(&self, traffic: TrafficPlan, expected_generation: u64, cx: &EffectCx) -> RouteRequest {
        let fence = Fence { thread: cx.thread.to_string(), epoch: cx.epoch };
        RouteRequest { model: self.model.clone(), traffic, expected_generation, fence }
    }

    fn divided(&self) -> TrafficPlan {
        let leg = |side: &Side, weight| Leg { version: side.version.clone(), slots: vec![side.slot.clone()], weight };
        let legs =
            vec![leg(&self.stable, WHOLE - self.weight.min(WHOLE)), leg(&self.candidate, self.weight.min(WHOLE))];
        TrafficPlan { legs, renew_within_ms: Some(self.renew_within_ms), ..TrafficPlan::default() }
    }

    /// What the route gives the candidate; `None` where it has no leg.
    pub fn weight_in(route: &Route, candidate: &str) -> Option<u32> {
        let leg = route.traffic.candidates().iter().find(|leg| leg.slots.iter().any(|slot| slot == candidate));
        leg.map(|leg| leg.weight)
    }
}

#[async_trait]
impl Effect for DivideTraffic {
    const KIND: &'static str = "divide_traffic";
    type World = World;
    type Receipt = RouteState;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<RouteState, Failure> {
        let request = self.request(self.divided(), self.expected_generation, cx);
        Ok(state(world.router.put_route(&request).await.map_err(|e| moved_on(port(e)))?))
    }

    async fn probe(&self, world: &World, _cx: &EffectCx) -> Result<Probe<RouteState>, Failure> {
        let route = world.router.route(&self.model).await.map_err(port)?;
        Ok(match route {
            Some(route)
                if route.generation > self.expected_generation
                    && Self::weight_in(&route, &self.candidate.slot) == Some(self.weight) =>
            {
                Probe::Done(state(route))
            }
            _ => Probe::NotDone,
        })
    }

    async fn undo(&self, world: &World, _done: &RouteState, cx: &EffectCx) -> Result<(), Failure> {
        let Some(route) = world.router.route(&self.model).await.map_err(port)? else { return Ok(()) };
        if Self::weight_in(&route, &self.candidate.slot).is_none() {
            // An undo before this one, or the gateway itself, has given all of it back.
            return Ok(());
        }
        let stable = TrafficPlan::all_to(self.stable.version.clone(), vec![self.stable.slot.clone()], None);
        world.router.put_route(&self.request(stable, route.generation, cx)).await.map_err(port)?;
        Ok(())
    }
}
