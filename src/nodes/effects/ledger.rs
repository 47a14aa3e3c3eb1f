//! The release's row in `ml_deployments`: opened first, FAILED with its reason when the release is undone.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::World;
use crate::nodes::world::{ledger, port};
use crate::release::{PlanState, ReleaseChange, ReleaseFilter, ReleaseKind, ReleaseRow};

/// Opens the row; refused while another release of the model is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenRelease(pub ReleaseRow);

#[async_trait]
impl Effect for OpenRelease {
    const KIND: &'static str = "open_release";
    type World = World;
    type Receipt = ();

    async fn perform(&self, world: &World, _cx: &EffectCx) -> Result<(), Failure> {
        let row = world.ledger.open(self.0.clone()).await.map_err(|e| ledger(&e))?;
        if row.status.is_terminal() {
            let why = row.reason.clone().unwrap_or_else(|| "no reason is recorded".to_owned());
            let over = Failure::new("release_over", format!("release {} is {} already", row.deployment_id, row.status));
            return Err(over.because(why).hint("release again"));
        }
        let under_way =
            world.ledger.list(&ReleaseFilter::in_progress(&self.0.model_name)).await.map_err(|e| ledger(&e))?;
        // Of two that opened at once the first goes on: a later one sees it, and its own time is later (see `opened_after`).
        let ours = (row.created_at, &row.deployment_id);
        // Going back must not wait for a deploy that only prepares; one that moves traffic goes back itself when it is cancelled.
        let matters = |o: &&ReleaseRow| self.0.kind == ReleaseKind::Deploy || o.status == PlanState::Executing;
        let older = |o: &&ReleaseRow| o.deployment_id != *ours.1 && (o.created_at, &o.deployment_id) < ours;
        let Some(other) = under_way.iter().filter(matters).find(older) else { return Ok(()) };
        let refusal = Failure::new(
            "release_in_progress",
            format!("another release of {} is under way: {} ({})", other.model_name, other.deployment_id, other.status),
        )
        .hint(format!("wait for it, or end it with `tidegate run cancel {}`", other.deployment_id));
        let refused = ReleaseChange::failed(&refusal.message, Utc::now());
        world.ledger.update(&self.0.deployment_id, refused).await.map_err(|e| ledger(&e))?;
        Err(refusal)
    }

    async fn probe(&self, world: &World, _cx: &EffectCx) -> Result<Probe<()>, Failure> {
        let row = world.ledger.get(&self.0.deployment_id).await.map_err(|e| ledger(&e))?;
        // A row that is there is opened again by `perform`, which also looks for other releases.
        Ok(match row {
            Some(row) if row.status == PlanState::Failed => Probe::NotDone,
            Some(_) => Probe::Done(()),
            None => Probe::NotDone,
        })
    }

    async fn undo(&self, world: &World, _receipt: &(), cx: &EffectCx) -> Result<(), Failure> {
        fail(world, &self.0.deployment_id, cx).await
    }
}

/// Marks the row FAILED with the reason of the undo.
async fn fail(world: &World, deployment_id: &str, cx: &EffectCx) -> Result<(), Failure> {
    let row = world.ledger.get(deployment_id).await.map_err(|e| ledger(&e))?;
    if row.is_none_or(|row| row.status == PlanState::Failed) {
        return Ok(());
    }
    let reason = cx.reason.as_ref().map_or_else(|| "undone".to_owned(), |f| f.message.clone());
    world.ledger.update(deployment_id, ReleaseChange::failed(&reason, Utc::now())).await.map_err(|e| ledger(&e))?;
    Ok(())
}

/// Changes the row. Never taken back by itself: the opening's undo ends the row, and what it says of the attempt stays true.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateRelease {
    /// The row.
    pub deployment_id: String,
    /// What changes.
    pub change: ReleaseChange,
}

#[async_trait]
impl Effect for UpdateRelease {
    const KIND: &'static str = "update_release";
    type World = World;
    type Receipt = ();

    async fn perform(&self, world: &World, _cx: &EffectCx) -> Result<(), Failure> {
        let changed = world.ledger.update(&self.deployment_id, self.change.clone()).await;
        changed.map(drop).map_err(|e| ledger(&e))
    }

    async fn probe(&self, _world: &World, _cx: &EffectCx) -> Result<Probe<()>, Failure> {
        // The same change again has the same result.
        Ok(Probe::NotDone)
    }

    async fn undo(&self, _world: &World, _receipt: &(), _cx: &EffectCx) -> Result<(), Failure> {
        Ok(())
    }
}

/// Ends the row well: COMPLETED, live, with its output; the registry's alias follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompleteRelease {
    /// The row.
    pub deployment_id: String,
    /// The model's public name.
    pub model: String,
    /// The version that serves now.
    pub version: String,
    /// The row that was live before.
    pub previous: Option<(String, String)>,
    /// What changes in the row.
    pub change: ReleaseChange,
    /// When.
    pub at: DateTime<Utc>,
}

#[async_trait]
impl Effect for CompleteRelease {
    const KIND: &'static str = "complete_release";
    type World = World;
    type Receipt = ();

    async fn perform(&self, world: &World, _cx: &EffectCx) -> Result<(), Failure> {
        // The row is COMPLETED last: until then it counts as under way, and no other release of the model begins.
        world.ledger.set_live(&self.model, Some(&self.deployment_id), self.at).await.map_err(|e| ledger(&e))?;
        world.registry.set_current(&self.model, Some(&self.version)).await.map_err(port)?;
        world.ledger.update(&self.deployment_id, self.change.clone()).await.map_err(|e| ledger(&e))?;
        Ok(())
    }

    async fn probe(&self, world: &World, _cx: &EffectCx) -> Result<Probe<()>, Failure> {
        let row = world.ledger.get(&self.deployment_id).await.map_err(|e| ledger(&e))?;
        // Once COMPLETED, a later release may have taken its place: doing it again would take that back.
        Ok(if row.is_some_and(|row| row.status == PlanState::Completed) { Probe::Done(()) } else { Probe::NotDone })
    }

    async fn undo(&self, world: &World, _receipt: &(), _cx: &EffectCx) -> Result<(), Failure> {
        let previous = self.previous.as_ref();
        let id = previous.map(|(id, _)| id.as_str());
        world.ledger.set_live(&self.model, id, Utc::now()).await.map_err(|e| ledger(&e))?;
        world.registry.set_current(&self.model, previous.map(|(_, version)| version.as_str())).await.map_err(port)
    }
}
