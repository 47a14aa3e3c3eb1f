//! Watches the new version while it has the traffic. It fails the release as soon as the evidence says so.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::metrics::{Gauge, Held, Metrics};
use super::readiness::{traceback, until_up_again};
use super::ward::{Knock, Ward, Watched};
use super::{BakeReport, LiveSlot, RouteState, TrialState, Validated, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::judge::Verdict;
use crate::ports::replica_token;
use crate::release::{DeploymentPlan, During};

/// Reads plan, slot, route and what validation measured; writes the report.
pub struct Watch(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    slot: LiveSlot,
    route: RouteState,
    /// Absent in releases that began before the watch read it, and in workflows that do not validate.
    validated: Option<Validated>,
    /// What came before, where there was a trial.
    trial: Option<TrialState>,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    bake: BakeReport,
}

#[async_trait]
impl Node for Watch {
    const KIND: &'static str = "watch";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let began = cx.now().await?;
        let bake: BakeReport = cx.observe("bake", self.bake(cx, &reads, began)).await?;
        if !bake.metrics.is_empty() || bake.report.is_some() {
            let verdict = if bake.passed { Verdict::Pass } else { Verdict::Fail };
            let BakeReport { reason, report, metrics, .. } = &bake;
            let said = json!({
                "of": "bake", "verdict": verdict, "reason": reason, "report": report, "answers": null, "metrics": metrics,
            });
            cx.emit("verdict", said);
        }
        if bake.passed {
            return Ok(Outcome::update(Writes { bake }));
        }
        let failure =
            Failure::new("bake_failed", format!("the new version went bad while it was watched: {}", bake.reason));
        let failure = bake.cause.into_iter().fold(failure, Failure::because);
        Err(failure.hint("the traffic is back where it was; `tidegate run show` has the figures").into())
    }
}

impl Watch {
    /// The watch itself: part of the reading, because a replay has no world to look at.
    async fn bake(&self, cx: &Context, reads: &Reads, began: DateTime<Utc>) -> Result<BakeReport, NodeError> {
        // The host may have been down since the last look; what it started anew is not judged for its start.
        let slot = until_up_again(&self.0, &reads.slot.token, reads.plan.ready_timeout_ms).await?;
        for nth in 2..=reads.plan.replicas {
            until_up_again(&self.0, &replica_token(&reads.slot.token, nth), reads.plan.ready_timeout_ms).await?;
        }
        let measured_ms = reads.validated.as_ref().and_then(|v| v.metrics.get("latency_p99_ms")).copied();
        let metrics = reads.plan.metrics_during(During::Bake);
        let held = Held::new(Metrics::of(metrics));
        let ward = Ward {
            router: &*self.0.router,
            target: &*self.0.target,
            services: &*self.0.services,
            say: &|line| cx.progress(line),
            plan: &reads.plan,
            slot: &reads.slot,
            knock: Knock::new(&reads.plan, &reads.route, measured_ms),
            time: Watched::since(began, slot.ready_at),
            promoted: reads.trial.as_ref().is_some_and(|trial| trial.promoted.is_some()),
            held: Some(&held),
        };
        let report = if held.now().all.is_empty() {
            ward.watch().await?
        } else {
            let gauge = Gauge::of(&self.0, cx, &reads.plan, &reads.slot.token, None).await?;
            gauge.beside(&held, ward.watch()).await?
        };
        let cause = if report.passed { None } else { traceback(&self.0, &reads.slot.token).await };
        Ok(BakeReport { cause, ..report })
    }
}
