//! The one thing that users see: where their requests go. Undone by going back to what answered before.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::graph::{Effect, EffectCx, Failure, FailureDetails, Probe};
use crate::nodes::World;
use crate::nodes::state::RouteState;
use crate::nodes::world::port;
use crate::ports::{Fence, Route, SwitchRequest};

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
        let to = self.request(Some(self.live.clone()), self.standby.clone(), self.expected_generation, cx);
        Ok(state(world.router.switch(&to).await.map_err(|e| moved_on(port(e)))?))
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
        world.router.switch(&back).await.map_err(port)?;
        Ok(())
    }
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
