//! Starts the new version in a slot beside the live one, waits until it says that it is ready, registers it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effects::{RegisterModel, StartSlot, UpdateRelease};
use super::world::port_err;
use super::{LiveSlot, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::ports::{PackagedModel, RegisteredModel, Slot, SlotState};
use crate::release::{DeploymentPlan, ReleaseChange};

/// Pause between two looks at a slot that starts.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the log of a slot that is not ready is searched for a failed start.
const READ_LOG_EVERY: Duration = Duration::from_millis(500);
/// Lines of the log that are searched.
const LOG_LINES: usize = 400;

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
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let package = package(reads.package)?;
        let plan = reads.plan;
        let start = StartSlot {
            model: plan.model.to_string(),
            package: package.clone(),
            env_file: plan.env_file.clone().map(PathBuf::from),
        };
        let started = cx.effect("slot", start).await?;
        let at = cx.now().await?;
        let ready = cx.observe("ready", until_ready(&self.0, &started.token, plan.ready_timeout_ms)).await?;
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

/// Waits until the slot is ready; fails with the service's own last traceback where there is one.
pub(super) async fn until_ready(world: &World, token: &str, timeout_ms: u64) -> Result<LiveSlot, NodeError> {
    let began = Instant::now();
    let limit = Duration::from_millis(timeout_ms);
    let mut log_read = Instant::now();
    loop {
        let slot = world.target.slot(token).await.map_err(port_err)?;
        let Some(slot) = slot else { return Err(gone(token).into()) };
        match slot.state {
            SlotState::Ready => return Ok(live_slot(&slot, began)),
            SlotState::Exited | SlotState::Stopped => {
                let how = slot.last_exit.as_deref().unwrap_or("no exit status");
                let failure = Failure::new("service_exited", format!("the service ended while it started ({how})"));
                return Err(explained(world, &slot, failure).await?.into());
            }
            SlotState::Starting | SlotState::Unready | SlotState::Restarting => {}
        }
        if began.elapsed() > limit {
            let message = format!("the service was not ready within {:.0} s", limit.as_secs_f64());
            let failure = Failure::new("not_ready_in_time", message)
                .hint("look at its log, mend `__is_ready__` or `__init__`, or raise `ready_timeout`");
            return Err(explained(world, &slot, failure).await?.into());
        }
        // A service whose `__init__` raises never ends: BentoML tries again for ever. Its log is the only witness.
        if log_read.elapsed() > READ_LOG_EVERY {
            log_read = Instant::now();
            let log = world.target.slot_log(token, LOG_LINES).await.map_err(port_err)?;
            if let Some(traceback) = world.packager.explain(&log) {
                let failure = Failure::new("service_start_failed", "the service raised an error while it started");
                return Err(failure.because(traceback).hint("mend the service and release again").into());
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn live_slot(slot: &Slot, began: Instant) -> LiveSlot {
    LiveSlot {
        token: slot.token.clone(),
        address: format!("http://127.0.0.1:{}", slot.port),
        port: slot.port,
        ready_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn gone(token: &str) -> Failure {
    Failure::new("slot_gone", format!("slot {token} is gone")).hint("somebody removed it; release again")
}

async fn explained(world: &World, slot: &Slot, failure: Failure) -> Result<Failure, NodeError> {
    let log = world.target.slot_log(&slot.token, LOG_LINES).await.map_err(port_err)?;
    let tail = || log.iter().rev().take(20).rev().cloned().collect::<Vec<_>>().join("\n");
    let cause = world.packager.explain(&log).unwrap_or_else(tail);
    let hint = failure.hint.clone().unwrap_or_else(|| "mend the service and release again".into());
    Ok(if cause.trim().is_empty() { failure.hint(hint) } else { failure.because(cause).hint(hint) })
}
