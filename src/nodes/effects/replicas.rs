//! Replicas that come and go while a version is rolled out. What was started is removed, and what was given up is started anew.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::slot::{STOP_GRACE_MS, StartSlot};
use super::vacate::{DRAIN_TIMEOUT_MS, failed, put, route};
use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::readiness::until_ready;
use crate::nodes::world::{port, runs};
use crate::ports::{Leg, Slot, TrafficPlan, replica_token};

/// Starts further replicas of a version that runs already.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartReplicas {
    /// Token of the version's first replica.
    pub first: String,
    /// What is started, and the numbers of the replicas.
    pub start: StartSlot,
}

/// Removes replicas of the version before, which get nothing any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GiveUpReplicas {
    /// Token of the version's first replica.
    pub first: String,
    /// What is started anew when this is undone, and the numbers of the replicas.
    pub start: StartSlot,
    /// How long they may take to be ready again, in milliseconds.
    pub ready_timeout_ms: u64,
}

fn tokens(first: &str, start: &StartSlot) -> Vec<String> {
    start.replicas.iter().map(|nth| replica_token(first, *nth)).collect()
}

/// Those of the slots that are on record.
async fn there(world: &World, tokens: &[String]) -> Result<Vec<Slot>, Failure> {
    let mut there = Vec::new();
    for token in tokens {
        there.extend(world.target.slot(token).await.map_err(port)?);
    }
    Ok(there)
}

#[async_trait]
impl Effect for StartReplicas {
    const KIND: &'static str = "start_replicas";
    type World = World;
    type Receipt = Vec<String>;

    async fn perform(&self, world: &World, _cx: &EffectCx) -> Result<Vec<String>, Failure> {
        self.start.start(world, &self.first).await?;
        Ok(tokens(&self.first, &self.start))
    }

    async fn probe(&self, world: &World, cx: &EffectCx) -> Result<Probe<Vec<String>>, Failure> {
        let tokens = tokens(&self.first, &self.start);
        let there = there(world, &tokens).await?;
        // To be taken back one is enough.
        let done = there.len() == tokens.len() || (cx.reason.is_some() && !there.is_empty());
        Ok(if done { Probe::Done(tokens) } else { Probe::NotDone })
    }

    async fn undo(&self, world: &World, started: &Vec<String>, _cx: &EffectCx) -> Result<(), Failure> {
        for token in started {
            world.target.remove_slot(token, STOP_GRACE_MS).await.map_err(port)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Effect for GiveUpReplicas {
    const KIND: &'static str = "give_up_replicas";
    type World = World;
    type Receipt = Vec<String>;

    async fn perform(&self, world: &World, _cx: &EffectCx) -> Result<Vec<String>, Failure> {
        let tokens = tokens(&self.first, &self.start);
        // An attempt before this one may have removed some.
        for slot in there(world, &tokens).await? {
            world.router.drain(&slot.token, DRAIN_TIMEOUT_MS).await.map_err(port)?;
            world.target.remove_slot(&slot.token, STOP_GRACE_MS).await.map_err(port)?;
        }
        Ok(tokens)
    }

    async fn probe(&self, world: &World, cx: &EffectCx) -> Result<Probe<Vec<String>>, Failure> {
        let tokens = tokens(&self.first, &self.start);
        let there = there(world, &tokens).await?;
        // To be taken back it is enough that one does not run any more.
        let fewer = there.len() < tokens.len() || there.iter().any(|slot| !runs(slot));
        let done = there.is_empty() || (cx.reason.is_some() && fewer);
        Ok(if done { Probe::Done(tokens) } else { Probe::NotDone })
    }

    async fn undo(&self, world: &World, given_up: &Vec<String>, cx: &EffectCx) -> Result<(), Failure> {
        (cx.progress)("starting replicas of the version before anew");
        for slot in there(world, given_up).await?.iter().filter(|slot| !runs(slot)) {
            world.target.remove_slot(&slot.token, STOP_GRACE_MS).await.map_err(port)?;
        }
        self.start.start(world, &self.first).await?;
        for token in given_up {
            until_ready(world, token, self.ready_timeout_ms).await.map_err(failed)?;
        }
        let Some(now) = route(world, &self.start.model).await? else { return Ok(()) };
        let version = &self.start.package.model_version;
        let missing =
            |leg: &Leg| given_up.iter().filter(|token| !leg.slots.contains(token)).cloned().collect::<Vec<_>>();
        let Some(at) = now.traffic.legs.iter().position(|leg| leg.version == *version) else { return Ok(()) };
        let more = missing(&now.traffic.legs[at]);
        if more.is_empty() {
            return Ok(());
        }
        let mut legs = now.traffic.legs.clone();
        legs[at].slots.extend(more);
        let traffic = TrafficPlan { legs, ..now.traffic };
        put(world, cx, &self.start.model, traffic, now.generation).await.map(drop)
    }
}
