//! Back to a version that served before: no build; at once where its slot is still warm.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deployment_planner::{look, planned_workers};
use super::effects::{CompleteRelease, OpenRelease, StartReplicas, StartSlot, SwitchTraffic, UpdateRelease};
use super::make_room::{Occupant, vacate};
use super::readiness::all_ready;
use super::world::{ledger_err, port_err};
use super::{RouteState, Situation, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::ports::{PackagedModel, SlotState};
use crate::release::{
    DEFAULT_HOLD_MS, DEFAULT_READY_TIMEOUT_MS, ModelDeployerOutput, ModelName, PlanState, ReleaseChange, ReleaseKind,
    ReleaseRow, Strategy, leads_forward, rollback_target,
};

/// Reads the request, goes back, writes the output.
pub struct Rollback(pub Arc<World>);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The model.
    pub model: ModelName,
    /// The version to go back to; absent: the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
}

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    rollback: RollbackRequest,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    route: RouteState,
    output: ModelDeployerOutput,
}

/// Where it goes and what is there; pinned, because the ledger changes under way.
#[derive(Serialize, Deserialize)]
struct Way {
    target: ReleaseRow,
    live: ReleaseRow,
    situation: Situation,
    /// The target's slot, if it still runs and is ready.
    warm: Option<String>,
    /// What to start where it is not warm.
    package: Option<PackagedModel>,
}

impl Way {
    fn number(&self, row: &ReleaseRow, key: &str) -> Option<u64> {
        row.plan.as_ref().and_then(|plan| plan[key].as_u64())
    }

    /// How long the target may take to be ready, in milliseconds, as its own plan says.
    fn ready_timeout_ms(&self) -> u64 {
        self.number(&self.target, "ready_timeout_ms").unwrap_or(DEFAULT_READY_TIMEOUT_MS)
    }

    /// How long a request may wait, in milliseconds, as it was planned when one took the other's place.
    fn hold_ms(&self) -> u64 {
        let of = |row| self.number(row, "hold_ms");
        of(&self.live).or_else(|| of(&self.target)).unwrap_or(DEFAULT_HOLD_MS)
    }
}

#[async_trait]
impl Node for Rollback {
    const KIND: &'static str = "rollback";
    const VERSION: u32 = 3;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let request = reads.rollback;
        let id = cx.thread().to_string();
        let at = cx.now().await?;
        let way: Way = cx.pin("way", find_way(&self.0, &request, at)).await?;
        cx.effect("open", OpenRelease(row(&id, &request, &way, at))).await?;
        let held = self.make_room(cx, &request, &way, at).await?;
        let token = self.running_slot(cx, &request, &way).await?;
        let executing =
            ReleaseChange { slot_token: Some(token.clone()), ..ReleaseChange::to(PlanState::Executing, at) };
        cx.effect("executing", UpdateRelease { deployment_id: id.clone(), change: executing }).await?;
        let switch = SwitchTraffic {
            model: request.model.to_string(),
            live: token,
            standby: None,
            before: way.situation.live_slot.clone().filter(|_| held.is_none()),
            held_ms: held.as_ref().map(|_| way.hold_ms()),
            expected_generation: held.map_or(way.situation.generation, |route| route.generation),
        };
        let route = cx.effect("switch", switch).await?;
        let output = ModelDeployerOutput {
            deployment_id: id.clone(),
            endpoint_url: route.endpoint_url.trim_end_matches('/').to_owned(),
            deployment_strategy: way.target.deployment_strategy,
            previous_version: way.live.model_version.clone(),
            deployment_timestamp: at.fixed_offset(),
            health_check_passed: true,
            metrics_baseline: way.target.metrics_baseline.clone(),
        };
        let change = ReleaseChange {
            endpoint_url: Some(route.endpoint_url.clone()),
            output: serde_json::to_value(&output).ok(),
            ..ReleaseChange::to(PlanState::Completed, at)
        };
        let complete = CompleteRelease {
            deployment_id: id,
            model: request.model.to_string(),
            version: way.target.model_version.unwrap_or_default(),
            previous: way.live.model_version.map(|version| (way.live.deployment_id, version)),
            change,
            at,
        };
        cx.effect("complete", complete).await?;
        Ok(Outcome::update(Writes { route, output }))
    }
}

impl Rollback {
    /// Where one of the two took the other's place because both do not fit, the one that serves makes room again.
    async fn make_room(
        &self,
        cx: &Context,
        request: &RollbackRequest,
        way: &Way,
        at: DateTime<Utc>,
    ) -> Result<Option<RouteState>, NodeError> {
        let cold = way.warm.is_none() && way.package.is_some();
        let Some(occupant) = Occupant::of(&way.situation).filter(|_| cold) else { return Ok(None) };
        if ![&way.live, &way.target].into_iter().any(|row| row.deployment_strategy == Strategy::Recreate) {
            return Ok(None);
        }
        // From here on users notice: another rollback must not begin beside it.
        let change = ReleaseChange::to(PlanState::Executing, at);
        cx.effect("room", UpdateRelease { deployment_id: cx.thread().to_string(), change }).await?;
        vacate(&self.0, cx, request.model.as_str(), occupant, way.hold_ms()).await.map(Some)
    }

    /// The slot to go back to: the warm one, or one started from the package that was kept.
    async fn running_slot(&self, cx: &Context, request: &RollbackRequest, way: &Way) -> Result<String, NodeError> {
        let count = way.target.plan.as_ref().and_then(|plan| plan["replicas"].as_u64()).unwrap_or(1);
        let count = u32::try_from(count).unwrap_or(1).max(1);
        let env_file = way.target.plan.as_ref().and_then(|p| p["env_file"].as_str()).map(Into::into);
        let workers =
            |package: &PackagedModel| way.target.plan.as_ref().and_then(|plan| planned_workers(plan, package));
        let model = request.model.to_string();
        if let Some(token) = &way.warm {
            // A rolling release kept one of them.
            let missing = cx.pin("missing", async { self.0.missing(token, count).await.map_err(port_err) }).await?;
            if let Some(package) = way.package.clone().filter(|_| !missing.is_empty()) {
                let workers = workers(&package);
                let start = StartSlot { model, package, env_file, replicas: missing, workers };
                cx.effect("replicas", StartReplicas { first: token.clone(), start }).await?;
            }
            // It was when the way was found; the host may have been down since.
            cx.observe("ready", all_ready(&self.0, token, way.ready_timeout_ms())).await?;
            return Ok(token.clone());
        }
        let Some(package) = way.package.clone() else {
            let version = way.target.model_version.as_deref().unwrap_or("?");
            return Err(Failure::new("package_gone", format!("version {version} is not in the registry any more"))
                .hint("release that version again")
                .into());
        };
        let replicas = (1..=count).collect();
        let workers = workers(&package);
        let start = StartSlot { model, package, env_file, replicas, workers };
        let slot = cx.effect("slot", start).await?;
        cx.observe("ready", all_ready(&self.0, &slot.token, way.ready_timeout_ms())).await?;
        Ok(slot.token)
    }
}

async fn find_way(world: &World, request: &RollbackRequest, at: DateTime<Utc>) -> Result<Way, NodeError> {
    let model = request.model.as_str();
    let history = world.ledger.history(model).await.map_err(ledger_err)?;
    let Some(live) = history.iter().find(|row| row.live).cloned() else {
        return Err(Failure::new(
            "nothing_active",
            format!("nothing of {model} serves, so there is nothing to go back from"),
        )
        .hint("`tidegate list` shows all releases")
        .into());
    };
    let Some(target) = rollback_target(&history, request.to.as_deref()).cloned() else {
        return Err(no_target(model, request.to.as_deref(), &history).into());
    };
    if leads_forward(&history, &live, &target)
        && let Some(guard) = world.policy.policy()?.stands_before(target.environment.as_deref(), at)
    {
        return Err(past_the_gate(model, &target, &guard).into());
    }
    let situation = look(world, model).await?;
    let warm = warm_slot(world, &history, &target).await?;
    let version = target.model_version.clone().unwrap_or_default();
    let registered = world.registry.find(model, &version).await.map_err(port_err)?;
    Ok(Way { target, live, situation, warm, package: registered.map(|r| r.package) })
}

/// A ready slot of the target's version: its own, or one that a later rollback started.
async fn warm_slot(world: &World, history: &[ReleaseRow], target: &ReleaseRow) -> Result<Option<String>, NodeError> {
    let of_version = history.iter().filter(|row| row.model_version == target.model_version);
    for token in of_version.filter_map(|row| row.slot_token.as_deref()) {
        let slot = world.target.slot(token).await.map_err(port_err)?;
        if slot.is_some_and(|slot| slot.state == SlotState::Ready) {
            return Ok(Some(token.to_owned()));
        }
    }
    Ok(None)
}

/// Back is always free. What nobody would call back takes the way of a release, where one is guarded.
fn past_the_gate(model: &str, target: &ReleaseRow, guard: &str) -> Failure {
    let version = target.model_version.as_deref().unwrap_or("?");
    let what = format!("version {version} of {model} is no way back: it was gone back from when it served last");
    Failure::new("rollback_forward", what)
        .because(format!("{guard}, and a rollback asks nobody"))
        .hint("release it again with `tidegate deploy`; to any other version a rollback is free")
}

fn no_target(model: &str, to: Option<&str>, history: &[ReleaseRow]) -> Failure {
    let mut known: Vec<&str> = history
        .iter()
        .filter(|row| row.status == PlanState::Completed && row.kind == ReleaseKind::Deploy)
        .filter_map(|row| row.model_version.as_deref())
        .collect();
    known.dedup();
    let live = history.iter().find(|row| row.live).and_then(|row| row.model_version.as_deref());
    if let Some(version) = to.filter(|version| live == Some(version)) {
        return Failure::new("version_is_live", format!("version {version} of {model} is live already"))
            .hint(format!("`tidegate status {model}` shows how it fares"));
    }
    let what = match to {
        Some(version) => format!("{model} has no earlier completed release of version {version}"),
        None => format!("{model} has no earlier version to go back to"),
    };
    Failure::new("no_previous", what).because(format!("completed releases: {}", known.join(", "))).hint(match to {
        Some(_) => format!("`tidegate history {model}` shows them all"),
        None => format!("name one that is not live: `tidegate rollback {model} --to VERSION`"),
    })
}

fn row(id: &str, request: &RollbackRequest, way: &Way, at: DateTime<Utc>) -> ReleaseRow {
    let target = &way.target;
    ReleaseRow {
        model_version: target.model_version.clone(),
        deployment_strategy: target.deployment_strategy,
        previous_version: way.live.model_version.clone(),
        reason: request.reason.clone(),
        content_digest: target.content_digest.clone(),
        release_dir: target.release_dir.clone(),
        slot: target.slot.clone(),
        slot_token: target.slot_token.clone(),
        plan: target.plan.clone(),
        metrics_baseline: target.metrics_baseline.clone(),
        requested_by: request.requested_by.clone(),
        environment: target.environment.clone(),
        ..ReleaseRow::new(id, request.model.as_str(), ReleaseKind::Rollback, at)
    }
}
