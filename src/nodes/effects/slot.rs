//! A slot that runs a packaged model: started beside the live one, removed when the release fails.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::world::port;
use crate::ports::{PackagedModel, SlotRequest, replica_token};

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
    /// The numbers of its replicas, from 1; none: one replica.
    #[serde(default)]
    pub replicas: Vec<u32>,
    /// How many workers each of them has; absent: as the service's code says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
}

impl StartSlot {
    /// The tokens of its replicas: made from the first one's.
    fn tokens(&self, first: &str) -> Vec<String> {
        match self.replicas.as_slice() {
            [] => vec![first.to_owned()],
            numbers => numbers.iter().map(|nth| replica_token(first, *nth)).collect(),
        }
    }

    /// Starts the replicas that are to have tokens from `first`; those that have them already stay.
    pub(super) async fn start(&self, world: &World, first: &str) -> Result<StartedSlot, Failure> {
        let mut started = None;
        for token in self.tokens(first) {
            let slot = world.target.start_slot(&self.request(world, &token)).await.map_err(port)?;
            started.get_or_insert(StartedSlot { token: slot.token, port: slot.port });
        }
        started.ok_or_else(|| Failure::new("no_replica", "a version without replicas cannot be started"))
    }

    fn request(&self, world: &World, token: &str) -> SlotRequest {
        let slot_dir = world.slots_dir.join(token);
        let serve = world.packager.serve_command(&self.package, &slot_dir, self.workers);
        SlotRequest {
            token: token.to_owned(),
            model: self.model.clone(),
            version: self.package.model_version.clone(),
            argv: serve.argv,
            cwd: serve.cwd,
            slot_dir,
            env: serve.env,
            env_file: self.env_file.clone(),
            ready_path: "/readyz".into(),
        }
    }
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
        self.start(world, &cx.token).await
    }

    async fn probe(&self, world: &World, cx: &EffectCx) -> Result<Probe<StartedSlot>, Failure> {
        let (mut started, mut missing) = (None, false);
        for token in self.tokens(&cx.token) {
            match world.target.slot(&token).await.map_err(port)? {
                Some(slot) if started.is_none() => started = Some(StartedSlot { token: slot.token, port: slot.port }),
                Some(_) => {}
                None => missing = true,
            }
        }
        Ok(match started {
            // One that is missing is started by performing again; to be taken back one is enough.
            Some(started) if !missing || cx.reason.is_some() => Probe::Done(started),
            _ => Probe::NotDone,
        })
    }

    async fn undo(&self, world: &World, slot: &StartedSlot, _cx: &EffectCx) -> Result<(), Failure> {
        for token in self.tokens(crate::ports::first_of(&slot.token)) {
            world.target.remove_slot(&token, STOP_GRACE_MS).await.map_err(port)?;
        }
        Ok(())
    }
}
