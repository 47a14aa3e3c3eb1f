//! Untracked channels: a run keeps their values, no checkpoint does. A run that begins finds none, also where an earlier run of the thread
//! had written some; the journal notes where that was, so that a replay, which is one run, forgets them at the same place.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effect::{decode, encode};
use super::journal::{EntryKind, EntryStatus, JournalKey};
use super::scope::Scope;
use super::visit::entered;
use super::{
    Body, Checkpoint, CompiledGraph, Entry, Failure, Name, NodeError, Partial, Persistence, START, Task, TaskPath,
    TaskResult, Trigger,
};

/// The journal's name of a place where a run found nothing.
const FORGOTTEN: &str = "untracked";

/// A superstep that one run began and another one ended.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Forgotten {
    /// The tasks that had ended when a run first found the superstep, and the subgraphs that had begun: only they saw what the run before
    /// it had kept.
    pub saw: Vec<TaskPath>,
    /// The tasks that had ended when a run last found it: what they wrote to untracked channels is lost.
    pub lost: Vec<TaskPath>,
}

/// The checkpoint as a store may have it.
pub(super) fn tracked(graph: &CompiledGraph, checkpoint: &Arc<Checkpoint>) -> Arc<Checkpoint> {
    let untracked = &graph.untracked;
    if untracked.is_empty() {
        return checkpoint.clone();
    }
    let mut kept = Checkpoint::clone(checkpoint);
    for name in untracked {
        kept.values.remove(name);
        kept.written.remove(name);
    }
    kept.frontier.iter_mut().for_each(|task| task.input = task.input.take().map(|input| payload(untracked, input)));
    Arc::new(kept)
}

/// A result as a store may have it.
pub(super) fn tracked_result<'r>(graph: &CompiledGraph, result: &'r TaskResult) -> Cow<'r, TaskResult> {
    if graph.untracked.is_empty() {
        return Cow::Borrowed(result);
    }
    let mut kept = result.clone();
    kept.writes.retain(|write| !graph.untracked.contains(&write.channel));
    for trigger in &mut kept.triggers {
        if let Trigger::Send { input, .. } = trigger {
            *input = payload(&graph.untracked, std::mem::take(input));
        }
    }
    Cow::Owned(kept)
}

/// A Send's payload is often the state: what it has of untracked channels, at its top, is as little kept (as in LangGraph).
fn payload(untracked: &BTreeSet<Name>, input: Value) -> Value {
    match input {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(name, _)| !untracked.contains(name.as_str())).collect())
        }
        other => other,
    }
}

fn key(checkpoint: &Checkpoint) -> JournalKey {
    JournalKey {
        fork: checkpoint.fork,
        ns: checkpoint.ns.clone(),
        // No node has this name.
        node: START.into(),
        visit: u64::try_from(checkpoint.step).unwrap_or_default(),
        send: None,
        name: FORGOTTEN.to_owned(),
        ordinal: 0,
    }
}

impl Scope {
    /// Notes that this run found `checkpoint` in the store, with what is kept of the superstep behind it.
    pub async fn forgets(
        &self,
        graph: &CompiledGraph,
        checkpoint: &Checkpoint,
        partial: &Partial,
    ) -> Result<(), NodeError> {
        // Before the first superstep of a thread nothing can have been written.
        let fresh = checkpoint.ns.is_empty() && checkpoint.step == 0 && partial.results.is_empty();
        if graph.untracked.is_empty() || fresh || self.recorded.is_some() {
            return Ok(());
        }
        let key = key(checkpoint);
        let ended: Vec<TaskPath> = partial.results.iter().map(|result| result.path.clone()).collect();
        let before = self.entry(&key);
        let saw = match before.as_ref().and_then(|entry| entry.receipt.clone()) {
            Some(noted) => decode::<Forgotten>(noted, FORGOTTEN)?.saw,
            None => {
                let mut saw = ended.clone();
                for task in checkpoint.frontier.iter().filter(|task| !ended.contains(&task.path)) {
                    let Some(entry) = graph.nodes.get(&task.node) else { continue };
                    let persistence = entry.policy.persistence;
                    let ns = task.inner_ns(&checkpoint.ns, checkpoint.fork, persistence);
                    let begun = match (&entry.body, persistence) {
                        (Body::Leaf(_), _) | (_, Persistence::Off) => false,
                        (_, Persistence::Thread) => self.entry(&entered(checkpoint, task)).is_some(),
                        (_, Persistence::Invocation) => self.store.latest(&self.thread, &ns).await?.is_some(),
                    };
                    if begun {
                        saw.push(task.path.clone());
                    }
                }
                saw
            }
        };
        let receipt = Some(encode(&Forgotten { saw, lost: ended }, FORGOTTEN)?);
        let entry = before.unwrap_or_else(|| self.fresh(&key, EntryKind::Pin, "", Value::Null));
        let record = self.note(Entry { status: EntryStatus::Done, receipt, updated_at: self.now(), ..entry });
        self.postpone([record]);
        Ok(())
    }

    /// In a replay: what the recorded run, or the run after it, did not know here.
    pub fn forgotten(&self, graph: &CompiledGraph, checkpoint: &Checkpoint) -> Result<Option<Forgotten>, Failure> {
        if graph.untracked.is_empty() || self.recorded.is_none() {
            return Ok(None);
        }
        self.pinned(&key(checkpoint)).map(|noted| decode(noted, FORGOTTEN)).transpose()
    }
}

impl Forgotten {
    /// The superstep with only those tasks that saw everything.
    pub fn first(&self, checkpoint: &Checkpoint) -> Checkpoint {
        let frontier =
            checkpoint.frontier.iter().filter(|task: &&Task| self.saw.contains(&task.path)).cloned().collect();
        Checkpoint { frontier, ..checkpoint.clone() }
    }
}
