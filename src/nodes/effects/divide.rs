//! A part of the traffic for a new version, beside the one that serves. Undone at once and wholly: all goes back to the stable version.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::switch::{given_back, moved_on, state};
use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::state::RouteState;
use crate::nodes::world::{port, runs};
use crate::ports::{Fence, Leg, Mirror, Route, RouteRequest, Sticky, TrafficPlan, WHOLE, first_of};

/// A version and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Its version.
    pub version: String,
    /// The token of its first replica.
    pub slot: String,
}

impl Side {
    /// All of its replicas that are there, but for those that leave.
    async fn leg(&self, world: &World, weight: u32, leaving: &[String]) -> Result<Leg, Failure> {
        let pool = world.pool(&self.slot).await.map_err(port)?;
        let pool = pool.into_iter().filter(runs).map(|slot| slot.token);
        let mut slots: Vec<String> = pool.filter(|token| !leaving.contains(token)).collect();
        if slots.is_empty() {
            slots.push(self.slot.clone());
        }
        Ok(Leg { version: self.version.clone(), slots, weight })
    }
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
    /// Replicas of the stable version that get nothing any more: they are about to go.
    #[serde(default)]
    pub leaving: Vec<String>,
    /// Keeps callers at their version.
    #[serde(default)]
    pub sticky: Option<Sticky>,
    /// Repeats requests at the candidate.
    #[serde(default)]
    pub mirror: Option<Mirror>,
    /// The route's generation that this was planned on; another one is refused, but for what the gateway made of it by giving all back.
    pub expected_generation: u64,
    /// All goes back where nobody renews it for so long, in milliseconds.
    pub renew_within_ms: u64,
}

impl DivideTraffic {
    fn request(&self, traffic: TrafficPlan, expected_generation: u64, cx: &EffectCx) -> RouteRequest {
        let fence = Fence { thread: cx.thread.to_string(), epoch: cx.epoch };
        RouteRequest { model: self.model.clone(), traffic, expected_generation, fence }
    }

    async fn divided(&self, world: &World) -> Result<TrafficPlan, Failure> {
        let weight = self.weight.min(WHOLE);
        let legs = vec![
            self.stable.leg(world, WHOLE - weight, &self.leaving).await?,
            self.candidate.leg(world, weight, &[]).await?,
        ];
        let (sticky, mirror) = (self.sticky.clone(), self.mirror.clone());
        let plan = TrafficPlan { legs, sticky, mirror, ..TrafficPlan::default() };
        // Where the candidate gets nothing there is nothing to give back.
        let renew_within_ms = plan.is_partial().then_some(self.renew_within_ms);
        Ok(TrafficPlan { renew_within_ms, ..plan })
    }

    /// What the route gives the candidate; `None` where it has no leg.
    pub fn weight_in(route: &Route, candidate: &str) -> Option<u32> {
        let leg =
            route.traffic.candidates().iter().find(|leg| leg.slots.iter().any(|slot| first_of(slot) == candidate));
        leg.map(|leg| leg.weight)
    }
}

#[async_trait]
impl Effect for DivideTraffic {
    const KIND: &'static str = "divide_traffic";
    type World = World;
    type Receipt = RouteState;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<RouteState, Failure> {
        let route = world.router.route(&self.model).await.map_err(port)?;
        let expected = given_back(route.as_ref(), self.expected_generation, &self.stable.slot);
        let request = self.request(self.divided(world).await?, expected, cx);
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
        let stable = TrafficPlan { legs: vec![self.stable.leg(world, WHOLE, &[]).await?], ..TrafficPlan::default() };
        world.router.put_route(&self.request(stable, route.generation, cx)).await.map_err(port)?;
        Ok(())
    }
}
