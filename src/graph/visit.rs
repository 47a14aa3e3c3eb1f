//! Visits of a subgraph that keeps its state: each begins with what the one before left. The journal notes that a visit has begun, in the
//! transaction of its first checkpoint, so that whoever takes over goes on with it and does not begin it again.

use serde_json::{Value, json};

use super::journal::{EntryKind, EntryStatus, JournalKey};
use super::scope::Scope;
use super::{Checkpoint, Entry, Failure, NodeError, Record, Task};

/// A visit that begins.
pub(super) struct NewVisit {
    /// Where the visit before ended.
    pub before: Option<Checkpoint>,
    key: JournalKey,
}

impl NewVisit {
    /// The record that it has begun.
    pub fn begun(self, scope: &Scope) -> Record {
        let receipt = Some(json!({"behind": self.before.map(|before| before.step)}));
        let entry = scope.fresh(&self.key, EntryKind::Pin, "", Value::Null);
        scope.note(Entry { status: EntryStatus::Done, receipt, ..entry })
    }
}

/// The place in the journal that says that a task's visit has begun.
pub(super) fn entered(checkpoint: &Checkpoint, task: &Task) -> JournalKey {
    JournalKey::of(checkpoint, task, "entered", 0)
}

/// The visit that `task` begins in `ns`; none if it has begun before.
pub(super) async fn new_visit(
    scope: &Scope,
    checkpoint: &Checkpoint,
    task: &Task,
    ns: &str,
) -> Result<Option<NewVisit>, NodeError> {
    if checkpoint.frontier.iter().filter(|other| other.node == task.node).count() > 1 {
        let message = format!("subgraph `{}` is due more than once in one superstep", task.node);
        return Err(Failure::new("subgraph_busy", message)
            .because("it keeps its state between its visits, so it can only be in one")
            .hint("send one item after the other, or let it begin anew with each visit (`persistence: invocation`)")
            .into());
    }
    let key = entered(checkpoint, task);
    if scope.entry(&key).is_some() {
        return Ok(None);
    }
    // What this run has left may not be durable yet.
    scope.flush().await?;
    let before = match scope.store.latest(&scope.thread, ns).await? {
        Some(before) => Some(before),
        None => inherited(scope, checkpoint.fork, ns).await?,
    };
    Ok(Some(NewVisit { before, key }))
}

/// In a branch that has not been here: the state that the line which it left had when it left.
async fn inherited(scope: &Scope, mut fork: u32, ns: &str) -> Result<Option<Checkpoint>, NodeError> {
    let root = if fork == 0 { Vec::new() } else { scope.store.history(&scope.thread, "").await? };
    while fork > 0 {
        let first = root.iter().find(|c| c.fork == fork);
        let left = first.and_then(|first| first.parent.as_ref());
        let Some(left) = left.and_then(|id| root.iter().find(|c| c.id == *id)) else { break };
        let line = scope.store.history(&scope.thread, &in_branch(ns, left.fork)).await?;
        // Ids are in order of time.
        if let Some(then) = line.into_iter().rev().find(|then| then.id <= left.id) {
            return Ok(Some(then));
        }
        fork = left.fork;
    }
    Ok(None)
}

/// The same namespace in another branch: its first part says which.
fn in_branch(ns: &str, fork: u32) -> String {
    let (first, rest) = ns.split_at(ns.find('|').unwrap_or(ns.len()));
    // A node's own name may have the sign; what follows the colon has it only for the branch.
    let colon = first.rfind(':').unwrap_or(first.len());
    let (node, visit) = first.split_at(colon);
    let visit = visit.split('~').next().unwrap_or(visit);
    let branch = if fork == 0 { String::new() } else { format!("~{fork}") };
    format!("{node}{visit}{branch}{rest}")
}
