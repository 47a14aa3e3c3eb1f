//! Builds the package: environment, build, record.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Cleared;
use super::World;
use super::effects::{BuildModel, EnsureEnv, UpdateRelease};
use super::world::port_err;
use crate::graph::{Context, Node, NodeError, Outcome};
use crate::ports::{EnvRequest, GeneratedProject, ModelArtifact, PackagedModel};
use crate::release::{DeploymentPlan, ModelSource, ReleaseChange};

/// Reads the plan, writes the package.
pub struct PackagerNode(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    /// Where somebody had to say yes to beginning at all.
    cleared: Option<Cleared>,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    /// A [`PackagedModel`].
    package: Value,
}

#[async_trait]
impl Node for PackagerNode {
    const KIND: &'static str = "packager";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let built = self.build(cx, reads.plan, reads.cleared.as_ref()).await;
        if reads.cleared.is_some()
            && let Err(error) = self.0.packager.drop_copy(&cx.thread().to_string()).await
        {
            tracing::warn!(thread = %cx.thread(), code = error.code, "a copy of a project stays: {}", error.message);
        }
        let package = built?;
        let at = cx.now().await?;
        let change = ReleaseChange {
            model_version: Some(package.model_version.clone()),
            content_digest: Some(package.content_digest.clone()),
            release_dir: Some(package.release_dir.display().to_string()),
            ..ReleaseChange::at(at)
        };
        cx.effect("record", UpdateRelease { deployment_id: cx.thread().to_string(), change }).await?;
        Ok(Outcome::update(Writes { package: to_value(&package) }))
    }
}

impl PackagerNode {
    async fn build(
        &self,
        cx: &Context,
        mut plan: DeploymentPlan,
        cleared: Option<&Cleared>,
    ) -> Result<PackagedModel, NodeError> {
        let from = PathBuf::from(plan.build.source.path());
        if let Some(cleared) = cleared {
            let copy = cleared.copy(cx, &self.0, &plan).await?;
            plan.build.source.move_to(&copy.display().to_string());
        }
        let project = project(&self.0, cx, &plan).await?;
        let request = EnvRequest {
            project: project.project.clone(),
            requirements: project.requirements,
            python: plan.build.env.python.clone(),
        };
        let env = cx.effect("env", EnsureEnv(request)).await?;
        let secrets = plan.env_file.as_ref().and_then(|file| below(Path::new(file), &from));
        let build = BuildModel {
            keep_out: secrets.into_iter().collect(),
            project: project.project,
            env,
            train: (!project.train.is_empty()).then_some(project.train),
            needs_models: project.needs_models,
            service: (!project.service.is_empty()).then_some(project.service),
            version: plan.version,
        };
        cx.effect("build", build).await
    }
}

/// The rest of the path where it is below the folder, wherever it went on the way.
fn below(path: &Path, folder: &Path) -> Option<PathBuf> {
    let mut straight = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(straight.pop()),
            Component::CurDir => {}
            part => straight.push(part),
        }
    }
    let rest = straight.strip_prefix(folder).ok()?;
    (!rest.as_os_str().is_empty()).then(|| rest.to_owned())
}

/// A package as a channel's value.
pub(super) fn to_value(package: &PackagedModel) -> Value {
    // A package has text keys only, so JSON can always say it.
    serde_json::to_value(package).unwrap_or(Value::Null)
}

/// Where the code lies: the user's project, or one generated around an artifact.
async fn project(world: &World, cx: &Context, plan: &DeploymentPlan) -> Result<GeneratedProject, NodeError> {
    let build = &plan.build;
    match &build.source {
        ModelSource::Project { path } => Ok(GeneratedProject {
            project: PathBuf::from(path),
            requirements: PathBuf::from(&build.env.requirements),
            train: build.train.clone().unwrap_or_default(),
            needs_models: build.needs_models.clone(),
            service: build.service.clone().unwrap_or_default(),
        }),
        ModelSource::Artifact { path, framework } => {
            let name = plan.model.to_string();
            let artifact = ModelArtifact { path: PathBuf::from(path), framework: framework.clone(), name };
            cx.pin("project", async { world.packager.generate(&artifact).await.map_err(port_err) }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_folder_is_so_whatever_way_it_is_named() {
        let rest = |path: &str| below(Path::new(path), Path::new("/srv/churn")).map(|rest| rest.display().to_string());
        assert_eq!(rest("/srv/churn/.env").as_deref(), Some(".env"));
        assert_eq!(rest("/srv/churn/a/../b/./.env").as_deref(), Some("b/.env"));
        for outside in
            ["/srv/churn/../../home", "/srv/churn", "/srv/churn/a/..", "/srv/other/.env", "/srv/churn/../../../.."]
        {
            assert_eq!(rest(outside), None, "{outside}");
        }
    }
}
