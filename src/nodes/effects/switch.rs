//! The one thing that users see: where their requests go. Undone by going back to what answered before.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::vacate::nobody;
use crate::graph::{Effect, EffectCx, Failure, FailureDetails, Probe};
use crate::nodes::World;
use crate::nodes::state::RouteState;
use crate::nodes::world::{port, runs};
use crate::ports::{Fence, PortError, Route, RouteRequest, SwitchRequest, TrafficPlan};

/// Sends all traffic of a model to one slot, keeping the one before warm.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SwitchTraffic {
    /// The model's public name.
    pub model: String,
    /// The slot that answers from now on.
    pub live: String,
    /// The slot that is kept warm.
    pub standby: Option<String>,
    /// The slot that answered before, for going back.
    pub before: Option<String>,
    /// Where nothing answered before because requests wait: how long each may, in milliseconds. They wait again when this is undone.
    #[serde(default)]
    pub held_ms: Option<u64>,
    /// The route's generation that this was planned on; another one refuses the switch.
    pub expected_generation: u64,
}

impl SwitchTraffic {
    fn request(&self, live: Option<String>, standby: Option<String>, generation: u64, cx: &EffectCx) -> SwitchRequest {
        SwitchRequest {
            model: self.model.clone(),
            live,
            standby,
            expected_generation: generation,
            fence: Fence { thread: cx.thread.to_string(), epoch: cx.epoch },
        }
    }
}

#[async_trait]
impl Effect for SwitchTraffic {
    const KIND: &'static str = "switch_traffic";
    type World = World;
    type Receipt = RouteState;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<RouteState, Failure> {
        let route = world.router.route(&self.model).await.map_err(port)?;
        let before = self.before.as_deref().unwrap_or_default();
        let expected = given_back(route.as_ref(), self.expected_generation, before);
        let to = self.request(Some(self.live.clone()), self.standby.clone(), expected, cx);
        Ok(state(all_to(world, to).await.map_err(|e| moved_on(port(e)))?))
    }

    async fn probe(&self, world: &World, _cx: &EffectCx) -> Result<Probe<RouteState>, Failure> {
        let route = world.router.route(&self.model).await.map_err(port)?;
        Ok(match route {
            // The gateway may have fallen back by itself since; the route still names our slot then.
            Some(route) if names(&route, &self.live) && route.generation > self.expected_generation => {
                Probe::Done(state(route))
            }
            _ => Probe::NotDone,
        })
    }

    async fn undo(&self, world: &World, _done: &RouteState, cx: &EffectCx) -> Result<(), Failure> {
        let Some(route) = world.router.route(&self.model).await.map_err(port)? else { return Ok(()) };
        if !names(&route, &self.live) {
            return Ok(());
        }
        let back = self.request(self.before.clone(), None, route.generation, cx);
        if let Some(hold_ms) = self.held_ms {
            let SwitchRequest { model, expected_generation, fence, .. } = back;
            let again = RouteRequest { model, traffic: nobody(hold_ms), expected_generation, fence };
            world.router.put_route(&again).await.map_err(port)?;
            return Ok(());
        }
        all_to(world, back).await.map_err(port)?;
        Ok(())
    }
}

/// Sends everything to a version: to all of its replicas.
async fn all_to(world: &World, request: SwitchRequest) -> Result<Route, PortError> {
    let pool = match &request.live {
        Some(first) => world.pool(first).await?.into_iter().filter(runs).collect(),
        None => Vec::new(),
    };
    let Some((version, _)) = pool.first().map(|slot| slot.version.clone()).zip(pool.get(1)) else {
        return world.router.switch(&request).await;
    };
    let slots = pool.into_iter().map(|slot| slot.token).collect();
    let SwitchRequest { model, standby, expected_generation, fence, .. } = request;
    let traffic = TrafficPlan::all_to(version, slots, standby);
    world.router.put_route(&RouteRequest { model, traffic, expected_generation, fence }).await
}

/// The generation to expect: the planned one, or the one that the gateway made by giving all traffic back to the stable slot, as it does
/// where nobody renewed a part of it in time.
pub(super) fn given_back(route: Option<&Route>, planned: u64, stable: &str) -> u64 {
    let by_gateway = |route: &&Route| {
        route.changed_by_gateway.is_some() && route.generation > planned && route.live.as_deref() == Some(stable)
    };
    route.filter(by_gateway).map_or(planned, |route| route.generation)
}

/// What a person can do when the route is not as it was planned on.
pub(super) fn moved_on(failure: Failure) -> Failure {
    if failure.code != "route_generation_conflict" {
        return failure;
    }
    let message = format!("the traffic was changed since this release was planned: {}", failure.message);
    Failure::from(FailureDetails { message, ..failure.into_details() })
        .hint("look with `tidegate status`, then release again")
}

fn names(route: &Route, token: &str) -> bool {
    route.live.as_deref() == Some(token) || route.standby.as_deref() == Some(token)
}

pub(super) fn state(route: Route) -> RouteState {
    let Route { model, generation, live, standby, endpoint_url, .. } = route;
    RouteState { model, endpoint_url, generation, live, standby }
}
