//! The model registry's entry of a version.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::world::port;
use crate::ports::RegisteredModel;

/// Registers a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterModel(pub RegisteredModel);

#[async_trait]
impl Effect for RegisterModel {
    const KIND: &'static str = "register_model";
    type World = World;
    type Receipt = ();

    async fn perform(&self, world: &World, _cx: &EffectCx) -> Result<(), Failure> {
        world.registry.register(&self.0).await.map_err(port)
    }

    async fn probe(&self, world: &World, _cx: &EffectCx) -> Result<Probe<()>, Failure> {
        let found = world.registry.find(&self.0.model_name, &self.0.model_version).await.map_err(port)?;
        Ok(if found.as_ref() == Some(&self.0) { Probe::Done(()) } else { Probe::NotDone })
    }

    async fn undo(&self, world: &World, _receipt: &(), _cx: &EffectCx) -> Result<(), Failure> {
        let found = world.registry.find(&self.0.model_name, &self.0.model_version).await.map_err(port)?;
        // The same version may have been registered by an earlier release, which goes on needing it.
        if found.is_some_and(|f| f.deployment_id == self.0.deployment_id) {
            world.registry.unregister(&self.0.model_name, &self.0.model_version).await.map_err(port)?;
        }
        Ok(())
    }
}
