//! The Python environment of a build. It is shared and cached, so there is nothing to undo.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::world::{Lines, port};
use crate::ports::{EnvRequest, PythonEnv};

/// Makes sure that an environment is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnsureEnv(pub EnvRequest);

#[async_trait]
impl Effect for EnsureEnv {
    const KIND: &'static str = "ensure_env";
    type World = World;
    type Receipt = PythonEnv;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<PythonEnv, Failure> {
        world.envs.ensure(&self.0, &Lines(cx.progress.clone())).await.map_err(port)
    }

    async fn probe(&self, world: &World, _cx: &EffectCx) -> Result<Probe<PythonEnv>, Failure> {
        // What keeps it from being found (the requirements are gone) is said by who performs; nothing is lost by making it again.
        let found = world.envs.find(&self.0).await.ok().flatten();
        Ok(found.map_or(Probe::NotDone, Probe::Done))
    }

    async fn undo(&self, _world: &World, _env: &PythonEnv, _cx: &EffectCx) -> Result<(), Failure> {
        Ok(())
    }
}
