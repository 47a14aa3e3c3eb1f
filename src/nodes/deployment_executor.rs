//! Starts the new version in a slot beside the live one, waits until it says that it is ready, registers it.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::deployment_planner::planned_workers;
use super::effects::{RegisterModel, StartSlot, UpdateRelease};
use super::readiness::all_ready;
use super::{LiveSlot, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::ports::{PackagedModel, RegisteredModel};
use crate::release::{DeploymentPlan, ReleaseChange};

/// Reads plan and package, writes the slot.
pub struct DeploymentExecutor(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    package: Value,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    slot: LiveSlot,
}

#[async_trait]
impl Node for DeploymentExecutor {
    const KIND: &'static str = "deployment_executor";
    const VERSION: u32 = 2;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let package = package(reads.package)?;
        let plan = reads.plan;
        let start = StartSlot {
            model: plan.model.to_string(),
            package: package.clone(),
            env_file: plan.env_file.clone().map(PathBuf::from),
            replicas: (1..=plan.first_replicas()).collect(),
            workers: planned_workers(&plan.to_value(), &package),
        };
        let started = cx.effect("slot", start).await?;
        let at = cx.now().await?;
        let ready = cx.observe("ready", all_ready(&self.0, &started.token, plan.ready_timeout_ms)).await?;
        let registered = RegisteredModel {
            model_name: plan.model.to_string(),
            model_version: package.model_version.clone(),
            content_digest: package.content_digest.clone(),
            package,
            deployment_id: cx.thread().to_string(),
        };
        cx.effect("register", RegisterModel(registered)).await?;
        let change = ReleaseChange { slot_token: Some(started.token.clone()), ..ReleaseChange::at(at) };
        cx.effect("record", UpdateRelease { deployment_id: cx.thread().to_string(), change }).await?;
        Ok(Outcome::update(Writes { slot: ready }))
    }
}

/// A package out of its channel.
pub(super) fn package(value: Value) -> Result<PackagedModel, Failure> {
    serde_json::from_value(value).map_err(|e| {
        Failure::new("package_unreadable", "the package in the state cannot be read").because(e.to_string())
    })
}
