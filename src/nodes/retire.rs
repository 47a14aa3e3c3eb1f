//! Removes the slots of a model that neither answer nor stand by, and says how long the standby is kept. Switch first, terminate second.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::effects::{KeepStandby, RemoveSlots};
use super::world::{ledger_err, port_err};
use super::{RouteState, World};
use crate::graph::{Context, Node, NodeError, Outcome};
use crate::ports::first_of;
use crate::release::{DeploymentPlan, ReleaseRow};

/// Reads the route, writes which slots are gone.
pub struct Retire(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    route: RouteState,
    /// Absent behind a rollback.
    plan: Option<DeploymentPlan>,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    retired: Vec<String>,
}

#[async_trait]
impl Node for Retire {
    const KIND: &'static str = "retire";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let keep_ms = reads.plan.as_ref().and_then(|plan| plan.standby_ms).filter(|_| reads.route.standby.is_some());
        if let Some(keep_ms) = keep_ms {
            let (model, generation) = (reads.route.model.clone(), reads.route.generation);
            cx.effect("standby", KeepStandby { model, generation, keep_ms }).await?;
        }
        let old: Vec<String> = cx.pin("slots", superfluous(&self.0, &reads.route)).await?;
        if old.is_empty() {
            return Ok(Outcome::update(Writes { retired: old }));
        }
        let retired = cx.effect("remove", RemoveSlots(old)).await?;
        Ok(Outcome::update(Writes { retired }))
    }
}

/// Slots of the model without a role that belong to a release which has ended. The slot of a release under way may be about to get
/// one, and one that no row knows is only just being started.
async fn superfluous(world: &World, route: &RouteState) -> Result<Vec<String>, NodeError> {
    // The route as it is now: a run that was resumed late must not judge by the one that it made.
    let now = world.router.route(&route.model).await.map_err(port_err)?;
    let now = now.as_ref();
    // All replicas of a version that serves or stands by stay, also those that a fall-back left without traffic.
    let in_use = now.map(|route| route.traffic.slots().map(|token| first_of(token).to_owned()).collect::<Vec<_>>());
    let in_use = in_use.unwrap_or_default();
    let slots = world.target.slots().await.map_err(port_err)?;
    let rows = world.ledger.history(&route.model).await.map_err(ledger_err)?;
    let token_in = |token: &str, ended: bool| {
        let of = |row: &ReleaseRow| row.slot_token.as_deref() == Some(first_of(token));
        rows.iter().any(|row| of(row) && row.status.is_terminal() == ended)
    };
    let slots = slots.into_iter().filter(|s| token_in(&s.token, true) && !token_in(&s.token, false));
    let idle = slots.filter(|s| s.model == route.model && !in_use.iter().any(|first| first == first_of(&s.token)));
    Ok(idle.map(|s| s.token).collect())
}
