//! Standing retention: what a workflow says of its runs' history, carried out at the end of each run by whoever ran it.

use chrono::Utc;

use super::App;
use crate::graph::{Failure, Thread};
use crate::store::{Prune, RETENTION};
use crate::workflow::{ResolvedWorkflow, RetentionSpec, TextDuration};

/// Most runs, and most namespaces of one run, that go or are cut at the end of another: whoever ran it waits for that. What is left goes
/// with the next.
const MOST_AT_ONCE: usize = 100;

/// The label of a run of a workflow that says how long its runs stay.
pub(super) fn label(workflow: &ResolvedWorkflow) -> Option<(String, String)> {
    of(&workflow.document)?.ended.map(|_| (RETENTION.to_owned(), workflow.name.clone()))
}

fn of(document: &serde_json::Value) -> Option<RetentionSpec> {
    // It was checked as the workflow was loaded.
    document.get("retention").and_then(|spec| serde_json::from_value(spec.clone()).ok())
}

impl App {
    /// Cuts a run's history and drops runs of its workflow that ended long ago. The run's own end counts more: what fails here is said in
    /// the log, and tried again with the next.
    pub(super) async fn retain(&self, thread: &Thread) {
        let Some(spec) = of(&thread.document) else { return };
        for what in passes(thread, spec) {
            match self.database().prune(&what).await.map_err(|error| error.failure()) {
                Ok(pruned) => tracing::debug!(thread = %thread.id, ?pruned, "retention"),
                Err(failure) => warn(thread, &failure),
            }
        }
    }
}

fn warn(thread: &Thread, failure: &Failure) {
    tracing::warn!(thread = %thread.id, code = failure.code, "the history stays for now: {failure}");
}

/// The newest run's word counts for all runs of its workflow that ended; for its checkpoints each run's own.
fn passes(thread: &Thread, spec: RetentionSpec) -> Vec<Prune> {
    let keep = spec.checkpoints.and_then(|keep| usize::try_from(keep).ok());
    let cut = keep.map(|keep| Prune {
        thread: Some(thread.id.clone()),
        keep: Some(keep),
        most: Some(MOST_AT_ONCE),
        ..Prune::default()
    });
    let age = spec.ended.and_then(|TextDuration(age)| chrono::Duration::from_std(age).ok());
    let before = age.and_then(|age| Utc::now().checked_sub_signed(age));
    let drop = before.map(|before| Prune {
        ended_before: Some(before),
        retention: Some(thread.workflow.clone()),
        most: Some(MOST_AT_ONCE),
        ..Prune::default()
    });
    cut.into_iter().chain(drop).collect()
}
