//! Opens the release and plans it: what will be done, step by step, and why.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

use super::effects::{OpenRelease, UpdateRelease};
use super::world::{ledger_err, port_err};
use super::{Situation, World, check_metrics};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::ports::{PackagedModel, PortError, SlotState};
use crate::release::{
    DeployRequest, DeploymentPlan, MOST_RPS, Machine, PlanInput, PlanState, Policy, ReleaseChange, ReleaseKind,
    ReleaseRow, Seen, Strategy, Workers, plan,
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

        let seen: Looked = cx.pin("situation", self.look(request.model.as_str())).await?;
        let situation = seen.situation;
        let input = PlanInput {
            request,
            live: situation.live.clone(),
            machine: situation.machine,
            seen: situation.seen.clone(),
            policy: seen.policy,
        };
        let plan = plan(&input).map_err(|e| Failure::new(e.code(), e.to_string()).hint(e.hint()))?;
        check_metrics(&*self.0.expressions, &plan.metrics)?;
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

/// What the planner looked at.
#[derive(Serialize, Deserialize)]
struct Looked {
    #[serde(flatten)]
    situation: Situation,
    /// The operator's rules of that moment.
    policy: Policy,
}

impl DeploymentPlanner {
    async fn look(&self, model: &str) -> Result<Looked, NodeError> {
        let policy = self.0.policy.policy()?;
        Ok(Looked { situation: look(&self.0, model).await?, policy })
    }
}

/// What serves now and what the machine has.
pub(super) async fn look(world: &World, model: &str) -> Result<Situation, NodeError> {
    let live = world.ledger.live(model).await.map_err(ledger_err)?;
    let route = world.router.route(model).await.map_err(port_err)?;
    let live_slot = route.as_ref().and_then(|route| route.live.clone());
    Ok(Situation {
        live: live.and_then(|row| row.as_live()),
        machine: machine(world, model).await.map_err(port_err)?,
        generation: route.as_ref().map_or(0, |r| r.generation),
        live_slot,
        seen: seen(world, model).await?,
    })
}

/// What the machine has, and what one copy of the model takes there now.
///
/// # Errors
/// When the machine cannot be asked. A host that does not answer has nothing running.
pub async fn machine(world: &World, model: &str) -> Result<Machine, PortError> {
    let facts = world.machine.facts().await?;
    let live = world.router.route(model).await.ok().flatten().and_then(|route| route.live);
    let slot = match live {
        Some(token) => world.target.slot(&token).await.ok().flatten(),
        None => None,
    };
    // One that is still starting has not loaded its model yet.
    let memory_needed_mb = match slot.filter(|slot| slot.state == SlotState::Ready).and_then(|slot| slot.pid) {
        Some(pid) => world.machine.memory_of(pid).await?,
        None => None,
    };
    let live = world.ledger.live(model).await.ok().flatten().filter(|_| memory_needed_mb.is_some());
    let workers = match live {
        Some(row) => workers(world, &row).await,
        None => None,
    };
    Ok(Machine { memory_needed_mb, workers, ..facts })
}

/// How many workers each replica of a release has, and how many its code asks for; `None` where its code leaves that to the machine, or is
/// not in the registry any more, or cannot be read there.
async fn workers(world: &World, row: &ReleaseRow) -> Option<Workers> {
    let registered = world.registry.find(&row.model_name, row.model_version.as_deref()?).await.ok()??;
    let own = registered.package.workers?;
    let planned = row.plan.as_ref().and_then(|plan| planned_workers(plan, &registered.package));
    Some(Workers { each: planned.unwrap_or(own), own })
}

/// How many workers a plan gives each replica of a package; `None`: as the service's code says.
pub(super) fn planned_workers(plan: &Value, package: &PackagedModel) -> Option<u32> {
    let workers = plan["workers"].as_u64().and_then(|workers| u32::try_from(workers).ok());
    let sized = plan["workers_sized"].as_bool().unwrap_or(false);
    workers.filter(|workers| !sized || package.workers.is_some_and(|own| own < *workers))
}

/// Seconds over which a model's traffic is averaged, and how many must have been counted to say anything.
const TRAFFIC_SECONDS: std::ops::RangeInclusive<u64> = 60..=600;
/// Releases that are looked back at.
const LAST_RELEASES: usize = 5;

/// How much a model is asked, and whether one of its last releases went bad in front of users.
///
/// # Errors
/// When the ledger cannot be read. A gateway that does not answer has seen nothing.
pub async fn seen(world: &World, model: &str) -> Result<Seen, Failure> {
    let rows = world.ledger.history(model).await.map_err(|e| Failure::new(e.code(), e.to_string()))?;
    let deploys = rows.iter().filter(|row| row.kind == ReleaseKind::Deploy && row.status.is_terminal());
    let went_bad =
        deploys.take(LAST_RELEASES).find(|row| row.status == PlanState::Failed && row.endpoint_url.is_some());
    let name = |row: &ReleaseRow| row.model_version.clone().unwrap_or_else(|| row.deployment_id.clone());
    let rps = world.router.series(model, 0).await.ok().and_then(|page| {
        let since = page.since.max((page.until + 1).saturating_sub(*TRAFFIC_SECONDS.end()));
        let counted = (page.until + 1).saturating_sub(since);
        let seconds = page.slots.iter().flat_map(|slot| &slot.seconds).filter(|second| second.second >= since);
        let requests: u64 = seconds.map(|second| second.requests).sum();
        TRAFFIC_SECONDS.contains(&counted).then(|| requests as f64 / counted as f64)
    });
    let completed = rows.iter().filter(|row| row.kind == ReleaseKind::Deploy && row.status == PlanState::Completed);
    let measured = completed.take(LAST_RELEASES).find_map(|row| {
        let most = row.metrics_baseline.get(MOST_RPS).copied()?;
        Some((most, row.as_live().and_then(|live| live.replicas)?, row))
    });
    let workers = match measured {
        Some((.., row)) => workers(world, row).await,
        None => None,
    };
    let (most_rps, replicas) = measured.map(|(most, replicas, _)| (most, replicas)).unzip();
    Ok(Seen { rps, most_rps, replicas, workers, went_bad: went_bad.map(name) })
}
