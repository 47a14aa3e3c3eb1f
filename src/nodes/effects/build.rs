//! A build: one per release, found again by its token, discarded when the release fails.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::world::{Lines, port};
use crate::ports::{PackageRequest, PackagedModel, PythonEnv};

/// Builds a project. The token comes from the effect's own place, so it is not part of the input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BuildModel {
    /// The project's folder, absolute.
    pub project: PathBuf,
    /// The environment to build with.
    pub env: PythonEnv,
    /// Command that trains the model when it is missing.
    pub train: Option<Vec<String>>,
    /// Models that the build needs.
    pub needs_models: Vec<String>,
    /// The service, `module:Class`.
    pub service: Option<String>,
    /// The version to give it.
    pub version: Option<String>,
    /// Files that must not come into the package, relative to the project.
    #[serde(default)]
    pub keep_out: Vec<PathBuf>,
}

#[async_trait]
impl Effect for BuildModel {
    const KIND: &'static str = "build_model";
    type World = World;
    type Receipt = PackagedModel;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<PackagedModel, Failure> {
        let request = PackageRequest {
            token: cx.token.clone(),
            project: self.project.clone(),
            env: self.env.clone(),
            train: self.train.clone(),
            needs_models: self.needs_models.clone(),
            service: self.service.clone(),
            version: self.version.clone(),
            keep_out: self.keep_out.clone(),
            expect_name: None,
        };
        world.packager.package(&request, &Lines(cx.progress.clone())).await.map_err(port)
    }

    async fn probe(&self, world: &World, cx: &EffectCx) -> Result<Probe<PackagedModel>, Failure> {
        if let Some(found) = world.packager.find(&cx.token).await.map_err(port)? {
            return Ok(Probe::Done(found));
        }
        // Half a build is of no use to anybody: a repetition begins anew, and a release that is given up leaves nothing.
        world.packager.discard(&cx.token).await.map_err(port)?;
        Ok(Probe::NotDone)
    }

    async fn undo(&self, world: &World, _model: &PackagedModel, cx: &EffectCx) -> Result<(), Failure> {
        world.packager.discard(&cx.token).await.map_err(port)
    }
}
