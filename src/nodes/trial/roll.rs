//! A batch of a rolling release: some replicas of the version before go, some of the new one come, and the traffic follows.

use std::path::PathBuf;

use super::OnTrial;
use crate::graph::NodeError;
use crate::nodes::deployment_executor::package;
use crate::nodes::deployment_planner::planned_workers;
use crate::nodes::effects::{GiveUpReplicas, StartReplicas, StartSlot};
use crate::nodes::make_room::{WayBack, way_back};
use crate::nodes::readiness::all_ready;
use crate::nodes::state::RouteState;
use crate::nodes::world::port_err;
use crate::release::Batch;

impl OnTrial<'_> {
    /// The batch of a step, where replicas are rolled out.
    pub(super) fn batch(&self, step: usize) -> Option<Batch> {
        let plan = &self.reads.plan;
        // Every batch is a share and a wait.
        plan.rolling.as_ref()?.batches(plan.replicas).get(step / 2).copied()
    }

    /// Lets a batch take its place: never more replicas than the surge allows, never fewer that serve than may be missing.
    pub(super) async fn roll(&self, batch: Batch, before: u32, weight: u32) -> Result<RouteState, NodeError> {
        let before_it = self.before_it().await?;
        let beyond = |count: u32| before_it.replicas.iter().copied().skip(count as usize).collect::<Vec<u32>>();
        let first = beyond(batch.before);
        let mut room = None;
        if !first.is_empty() {
            room = Some(self.divide("make_room", before, &first, None).await?);
            self.give_up("give_up", &before_it, first.clone()).await?;
        }
        self.grow(batch.new).await?;
        let after: Vec<u32> = beyond(batch.left).into_iter().filter(|nth| !first.contains(nth)).collect();
        let route = self.divide("divide", weight, &after, room.as_ref()).await?;
        if !after.is_empty() {
            self.give_up("give_up_more", &before_it, after).await?;
        }
        Ok(route)
    }

    /// The last batch: all replicas of the new version, beside as many of the version before as the surge allows. They get nothing any more
    /// and stay warm. Where nothing is rolled out nothing is missing.
    pub(super) async fn finish(&self, weight: u32) -> Result<Option<RouteState>, NodeError> {
        let mut route = None;
        if let Some(rolling) = &self.reads.plan.rolling {
            let before_it = self.before_it().await?;
            let stay = rolling.max_surge.max(1) as usize;
            let go: Vec<u32> = before_it.replicas.iter().copied().skip(stay).collect();
            if !go.is_empty() {
                route = Some(self.divide("make_room", weight, &go, None).await?);
                self.give_up("give_up", &before_it, go).await?;
            }
        }
        self.grow(self.reads.plan.replicas).await?;
        Ok(route)
    }

    /// Starts replicas of the new version until there are so many, and waits until all are ready.
    pub(super) async fn grow(&self, count: u32) -> Result<(), NodeError> {
        let (plan, first) = (&self.reads.plan, &self.reads.slot.token);
        // Those that are there already stay as they are, and are not this effect's to remove: the first one was never.
        let missing = async { self.world.missing(first, count).await.map_err(port_err) };
        let replicas = self.cx.pin("missing", missing).await?;
        if !replicas.is_empty() {
            self.cx.progress(&format!("starting {} of {} replicas", replicas.len(), plan.replicas));
            let package = package(self.reads.package.clone())?;
            let start = StartSlot {
                model: plan.model.to_string(),
                workers: planned_workers(&plan.to_value(), &package),
                package,
                env_file: plan.env_file.clone().map(PathBuf::from),
                replicas,
            };
            self.cx.effect("grow", StartReplicas { first: first.clone(), start }).await?;
        }
        self.cx.observe("grown", all_ready(self.world, first, plan.ready_timeout_ms)).await?;
        Ok(())
    }

    /// The version before, with the replicas that it still has.
    async fn before_it(&self) -> Result<WayBack, NodeError> {
        let (world, plan) = (self.world, &self.reads.plan);
        let live = self.reads.situation.live.as_ref().ok_or_else(|| {
            crate::graph::Failure::new("live_unknown", "no release owns the slot that serves")
                .hint("release with another strategy")
        })?;
        self.cx.pin("before", way_back(world, plan.model.as_str(), live, self.live)).await
    }

    async fn give_up(&self, name: &str, before_it: &WayBack, replicas: Vec<u32>) -> Result<(), NodeError> {
        let plan = &self.reads.plan;
        let start = StartSlot {
            model: plan.model.to_string(),
            package: before_it.package.clone(),
            env_file: before_it.env_file.clone(),
            replicas,
            workers: before_it.workers,
        };
        let (first, ready_timeout_ms) = (self.live.to_owned(), before_it.ready_timeout_ms);
        self.cx.effect(name, GiveUpReplicas { first, start, ready_timeout_ms }).await?;
        Ok(())
    }
}
