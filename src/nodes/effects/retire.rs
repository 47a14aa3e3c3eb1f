//! Slots that nobody needs any more. Runs behind the commit point, so there is nothing to undo.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::slot::STOP_GRACE_MS;
use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::world::port;
use crate::ports::{Fence, StandbyRequest};

/// Longest wait for requests under way at a slot that is removed, in milliseconds.
const DRAIN_TIMEOUT_MS: u64 = 30_000;

/// Drains and removes slots.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveSlots(pub Vec<String>);

/// Has the host keep a standby for so long and no longer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeepStandby {
    /// The model's public name.
    pub model: String,
    /// The route's generation; where it has changed since, nothing is asked.
    pub generation: u64,
    /// From now on, in milliseconds.
    pub keep_ms: u64,
}

#[async_trait]
impl Effect for KeepStandby {
    const KIND: &'static str = "keep_standby";
    type World = World;
    /// Whether the host keeps it so.
    type Receipt = bool;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<bool, Failure> {
        let Self { model, generation, keep_ms } = self.clone();
        let fence = Fence { thread: cx.thread.to_string(), epoch: cx.epoch };
        match world.router.keep_standby(&StandbyRequest { model, generation, keep_ms, fence }).await {
            Ok(()) => Ok(true),
            // A fall-back, or the next release: its standby is another one.
            Err(error) if error.code == "route_generation_conflict" => Ok(false),
            Err(error) => Err(port(error)),
        }
    }

    async fn probe(&self, _world: &World, _cx: &EffectCx) -> Result<Probe<bool>, Failure> {
        // Asked again it is the same.
        Ok(Probe::NotDone)
    }

    async fn undo(&self, _world: &World, _kept: &bool, _cx: &EffectCx) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl Effect for RemoveSlots {
    const KIND: &'static str = "remove_slots";
    type World = World;
    type Receipt = Vec<String>;

    async fn perform(&self, world: &World, _cx: &EffectCx) -> Result<Vec<String>, Failure> {
        for token in &self.0 {
            if world.target.slot(token).await.map_err(port)?.is_none() {
                // An attempt before this one removed it.
                continue;
            }
            world.router.drain(token, DRAIN_TIMEOUT_MS).await.map_err(port)?;
            world.target.remove_slot(token, STOP_GRACE_MS).await.map_err(port)?;
        }
        Ok(self.0.clone())
    }

    async fn probe(&self, world: &World, _cx: &EffectCx) -> Result<Probe<Vec<String>>, Failure> {
        for token in &self.0 {
            if world.target.slot(token).await.map_err(port)?.is_some() {
                return Ok(Probe::NotDone);
            }
        }
        Ok(Probe::Done(self.0.clone()))
    }

    async fn undo(&self, _world: &World, _removed: &Vec<String>, _cx: &EffectCx) -> Result<(), Failure> {
        Ok(())
    }
}
