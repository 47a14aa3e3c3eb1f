//! Opens the release and plans it: what will be done, step by step, and why.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::effects::{OpenRelease, UpdateRelease};
use super::world::{ledger_err, port_err};
use super::{Situation, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::release::{
    DeployRequest, DeploymentPlan, PlanInput, ReleaseChange, ReleaseKind, ReleaseRow, Strategy, plan,
};

/// Reads the request, writes the plan. The planning itself is a pure function of the release room.
pub struct DeploymentPlanner(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    request: DeployRequest,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    plan: DeploymentPlan,
    situation: Situation,
}

#[async_trait]
impl Node for DeploymentPlanner {
    const KIND: &'static str = "deployment_planner";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let id = cx.thread().to_string();
        let at = cx.now().await?;
        let request = reads.request;
        let mut row = ReleaseRow::new(&id, request.model.as_str(), ReleaseKind::Deploy, at);
        row.deployment_strategy = request.strategy.unwrap_or(Strategy::BlueGreen);
        row.requested_by.clone_from(&request.requested_by);
        row.environment.clone_from(&request.environment);
        cx.effect("open", OpenRelease(row)).await?;

        let situation: Situation = cx.pin("situation", look(&self.0, request.model.as_str())).await?;
        let input = PlanInput {
            request,
            live: situation.live.clone(),
            machine: situation.machine,
            policy: self.0.policy.clone(),
        };
        let plan = plan(&input).map_err(|e| Failure::new(e.code(), e.to_string()).hint(e.hint()))?;
        let change = ReleaseChange {
            plan: Some(plan.to_value()),
            deployment_strategy: Some(plan.strategy),
            previous_version: plan.previous_version().map(str::to_owned),
            slot: Some(plan.slots.candidate.clone()),
            ..ReleaseChange::at(at)
        };
        cx.effect("record", UpdateRelease { deployment_id: id, change }).await?;
        Ok(Outcome::update(Writes { plan, situation }))
    }
}

/// What serves now and what the machine has.
pub(super) async fn look(world: &World, model: &str) -> Result<Situation, NodeError> {
    let live = world.ledger.live(model).await.map_err(ledger_err)?;
    let route = world.router.route(model).await.map_err(port_err)?;
    Ok(Situation {
        live: live.and_then(|row| row.as_live()),
        machine: world.machine.facts().await.map_err(port_err)?,
        generation: route.as_ref().map_or(0, |r| r.generation),
        live_slot: route.and_then(|r| r.live),
    })
}
