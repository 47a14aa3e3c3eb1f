//! A slot that runs a packaged model: started beside the live one, removed when the release fails.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::world::port;
use crate::ports::{PackagedModel, SlotRequest};

/// How long a slot may take to end by itself, in milliseconds: BentoML finishes the calls in flight on SIGTERM.
pub(crate) const STOP_GRACE_MS: u64 = 10_000;

/// Starts a slot. Its token is the effect's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartSlot {
    /// The model's public name.
    pub model: String,
    /// What runs in it.
    pub package: PackagedModel,
    /// The file with its variables and secrets: the path only.
    pub env_file: Option<PathBuf>,
}

/// What is kept of a started slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedSlot {
    /// Its token.
    pub token: String,
    /// The port of its first process.
    pub port: u16,
}

#[async_trait]
impl Effect for StartSlot {
    const KIND: &'static str = "start_slot";
    type World = World;
    type Receipt = StartedSlot;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<StartedSlot, Failure> {
        let slot_dir = world.slots_dir.join(&cx.token);
        let serve = world.packager.serve_command(&self.package, &slot_dir);
        let request = SlotRequest {
            token: cx.token.clone(),
            model: self.model.clone(),
            version: self.package.model_version.clone(),
            argv: serve.argv,
            cwd: serve.cwd,
            slot_dir,
            env: serve.env,
            env_file: self.env_file.clone(),
            ready_path: "/readyz".into(),
        };
        let slot = world.target.start_slot(&request).await.map_err(port)?;
        Ok(StartedSlot { token: slot.token, port: slot.port })
    }

    async fn probe(&self, world: &World, cx: &EffectCx) -> Result<Probe<StartedSlot>, Failure> {
        let slot = world.target.slot(&cx.token).await.map_err(port)?;
        Ok(slot.map_or(Probe::NotDone, |slot| Probe::Done(StartedSlot { token: slot.token, port: slot.port })))
    }

    async fn undo(&self, world: &World, slot: &StartedSlot, _cx: &EffectCx) -> Result<(), Failure> {
        world.target.remove_slot(&slot.token, STOP_GRACE_MS).await.map_err(port)
    }
}
