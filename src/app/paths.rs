//! The way that a run took.

use chrono::Utc;

use super::App;
use crate::graph::{CompiledGraph, Failure, Picture, Step, StoreError, Thread, Traced, path};

impl App {
    /// The path of a run's current branch, superstep by superstep.
    pub async fn path(&self, thread: &Thread) -> Result<Vec<Step>, Failure> {
        let of = |e: StoreError| e.failure();
        let roots = self.store.history(&thread.id, "").await.map_err(of)?;
        let asked = self.store.interrupts(Some(&thread.id), false).await.map_err(of)?;
        let events = self.store.events(&thread.id, 0, usize::MAX).await.map_err(of)?;
        Ok(path(thread, &roots, &asked, &events, Utc::now()))
    }

    /// A run drawn over its own graph.
    pub async fn picture_of(&self, thread: &Thread) -> Result<(std::sync::Arc<CompiledGraph>, Picture), Failure> {
        let graph = self.graph_of(thread)?;
        let traced = Traced::of(&graph, &self.path(thread).await?);
        let picture = Picture::of(&graph, Some(&traced));
        Ok((graph, picture))
    }
}
