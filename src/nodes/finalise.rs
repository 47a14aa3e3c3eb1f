//! Ends a release well: the row is COMPLETED and live, the contract is written. The workflow's commit point.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::deployment_executor::package;
use super::effects::CompleteRelease;
use super::{BakeReport, RouteState, Situation, Validated, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::release::{DeploymentPlan, ModelDeployerOutput, PlanState, ReleaseChange, ReleaseFacts, finite_metrics};

/// Reads everything, writes the output.
pub struct Finalise(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    package: Value,
    situation: Situation,
    validated: Validated,
    route: RouteState,
    bake: BakeReport,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    output: ModelDeployerOutput,
}

#[async_trait]
impl Node for Finalise {
    const KIND: &'static str = "finalise";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let id = cx.thread().to_string();
        let at = cx.now().await?;
        let package = package(reads.package)?;
        let mut measured = reads.validated.metrics;
        measured.extend(reads.bake.p99_ms.map(|p99| ("bake_p99_ms".to_owned(), p99)));
        let (metrics, _) = finite_metrics(measured);
        let facts = ReleaseFacts {
            deployment_id: id.clone(),
            model_version: package.model_version.clone(),
            endpoint_url: reads.route.endpoint_url.trim_end_matches('/').to_owned(),
            finished_at: at,
            health_check_passed: reads.bake.passed && reads.validated.checks.iter().all(|c| c.passed),
            metrics_baseline: metrics.clone(),
            artifact: Some(package.content_digest),
        };
        let output = ModelDeployerOutput::new(&reads.plan, &facts).map_err(|e| {
            Failure::new("output_invalid", "the release's output cannot be written").because(e.to_string())
        })?;
        let change = ReleaseChange {
            output: serde_json::to_value(&output).ok(),
            metrics_baseline: Some(metrics),
            ..ReleaseChange::to(PlanState::Completed, at)
        };
        let complete = CompleteRelease {
            deployment_id: id,
            model: reads.plan.model.to_string(),
            version: package.model_version,
            previous: reads.situation.live.map(|live| (live.deployment_id, live.model_version)),
            change,
            at,
        };
        cx.effect("complete", complete).await?;
        Ok(Outcome::update(Writes { output }))
    }
}
