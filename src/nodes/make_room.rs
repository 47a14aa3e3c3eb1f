//! Makes room for the new version where two copies do not fit: requests wait at the gateway, the live version stops.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deployment_planner::planned_workers;
use super::effects::{HoldRequests, UpdateRelease, VacateSlot};
use super::world::{ledger_err, port_err};
use super::{RouteState, Situation, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::ports::{PackagedModel, number_of};
use crate::release::{
    DEFAULT_HOLD_MS, DEFAULT_READY_TIMEOUT_MS, DeploymentPlan, LiveRelease, PlanState, ReleaseChange,
};

/// Reads plan and situation, writes the route. Nothing happens where nothing serves.
pub struct MakeRoom(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    situation: Situation,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteState>,
}

#[async_trait]
impl Node for MakeRoom {
    const KIND: &'static str = "make_room";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let Reads { plan, situation } = reads;
        let Some(live) = Occupant::of(&situation) else { return Ok(Outcome::update(Writes { route: None })) };
        let at = cx.now().await?;
        let change = ReleaseChange::to(PlanState::Executing, at);
        cx.effect("executing", UpdateRelease { deployment_id: cx.thread().to_string(), change }).await?;
        let hold_ms = plan.hold_ms.unwrap_or(DEFAULT_HOLD_MS);
        let route = vacate(&self.0, cx, plan.model.as_str(), live, hold_ms).await?;
        Ok(Outcome::update(Writes { route: Some(route) }))
    }
}

/// The version that is in the way.
pub(super) struct Occupant<'a> {
    pub(super) live: &'a LiveRelease,
    pub(super) token: &'a str,
    pub(super) generation: u64,
}

impl<'a> Occupant<'a> {
    pub(super) fn of(situation: &'a Situation) -> Option<Self> {
        let (live, token) = situation.live.as_ref().zip(situation.live_slot.as_deref())?;
        Some(Self { live, token, generation: situation.generation })
    }
}

/// Lets requests wait and stops the live version; proves first that it could be started anew.
pub(super) async fn vacate(
    world: &World,
    cx: &Context,
    model: &str,
    occupant: Occupant<'_>,
    hold_ms: u64,
) -> Result<RouteState, NodeError> {
    let way_back = cx.pin("occupant", way_back(world, model, occupant.live, occupant.token)).await?;
    let hold = HoldRequests {
        model: model.to_owned(),
        live: occupant.token.to_owned(),
        timeout_ms: hold_ms,
        expected_generation: occupant.generation,
    };
    let held = cx.effect("hold", hold).await?;
    cx.progress("requests wait while the live version stops");
    let vacate = VacateSlot {
        model: model.to_owned(),
        token: occupant.token.to_owned(),
        deployment_id: occupant.live.deployment_id.clone(),
        package: way_back.package,
        env_file: way_back.env_file,
        replicas: way_back.replicas,
        workers: way_back.workers,
        ready_timeout_ms: way_back.ready_timeout_ms,
        hold_ms,
        expected_generation: held.generation,
    };
    cx.effect("vacate", vacate).await
}

/// What a version that serves is started anew from, should it come to that.
#[derive(Serialize, Deserialize)]
pub(super) struct WayBack {
    pub(super) package: PackagedModel,
    pub(super) env_file: Option<PathBuf>,
    /// The numbers of its replicas.
    pub(super) replicas: Vec<u32>,
    /// How many workers each of them has; absent: as the service's code says.
    #[serde(default)]
    pub(super) workers: Option<u32>,
    /// How long it may take to be ready, in milliseconds, as its own plan says.
    pub(super) ready_timeout_ms: u64,
}

/// What the live version is started anew from; proven to be there before anything of it stops.
pub(super) async fn way_back(
    world: &World,
    model: &str,
    live: &LiveRelease,
    token: &str,
) -> Result<WayBack, NodeError> {
    let version = &live.model_version;
    let registered = world.registry.find(model, version).await.map_err(port_err)?;
    let gone = || {
        Failure::new("package_gone", format!("version {version} serves and is not in the registry any more"))
            .because("once stopped it could not be started again if the new version failed")
            .hint("release with another strategy, or release that version again first")
    };
    let package = registered.ok_or_else(gone)?.package;
    let row = world.ledger.get(&live.deployment_id).await.map_err(ledger_err)?;
    let plan = row.and_then(|row| row.plan);
    let env_file = plan.as_ref().and_then(|plan| plan["env_file"].as_str()).map(PathBuf::from);
    let replicas = world.pool(token).await.map_err(port_err)?.iter().map(|slot| number_of(&slot.token)).collect();
    let ready_timeout_ms = plan.as_ref().and_then(|plan| plan["ready_timeout_ms"].as_u64());
    let ready_timeout_ms = ready_timeout_ms.unwrap_or(DEFAULT_READY_TIMEOUT_MS);
    let workers = plan.as_ref().and_then(|plan| planned_workers(plan, &package));
    Ok(WayBack { package, env_file, replicas, workers, ready_timeout_ms })
}
