//! Slots that nobody needs any more. Runs behind the commit point, so there is nothing to undo.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::slot::STOP_GRACE_MS;
use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::world::port;

/// Longest wait for requests under way at a slot that is removed, in milliseconds.
const DRAIN_TIMEOUT_MS: u64 = 30_000;

/// Drains and removes slots.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveSlots(pub Vec<String>);

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
