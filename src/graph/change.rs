//! Changes of the state from outside, as pure as the core: updates as if nodes had written them, and branches.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::channel::{apply_writes, end_step};
use super::core::{arrive, in_order, leave, plan, settle, use_up};
use super::{Checkpoint, CompiledGraph, END, Failure, Name, START, Source, Task, TaskPath, TaskResult, Trigger, Write};

/// A change of the state from outside (LangGraph's `StateUpdate`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateUpdate {
    /// What is written.
    #[serde(default)]
    pub values: Map<String, Value>,
    /// The node as which it is written: its edges say what is due next. `START`: the first nodes are; `END`: nothing is.
    pub as_node: Name,
    /// Nodes that are due instead of those to which that node's edges lead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goto: Vec<Name>,
}

impl StateUpdate {
    /// `values`, as if `as_node` had written them.
    pub fn new(values: Map<String, Value>, as_node: impl Into<Name>) -> Self {
        Self { values, as_node: as_node.into(), goto: Vec::new() }
    }
}

/// What comes from outside is kept with the thread: it cannot go to a channel that nothing keeps.
pub(super) fn refuse_untracked(graph: &CompiledGraph, values: &Map<String, Value>, who: &str) -> Result<(), Failure> {
    let Some(name) = values.keys().find(|name| graph.untracked.contains(name.as_str())) else { return Ok(()) };
    Err(Failure::new("untracked_input", format!("{who} cannot write channel `{name}`"))
        .because("it is untracked: no checkpoint has its value, so it would be lost before any node saw it")
        .hint("let a node write it, or declare the channel without `kind: untracked`"))
}

/// Changes from outside in one superstep: as if each `as_node` had written its `values` now. What was due before is not due any more (LangGraph's
/// `update_state`), and what finished tasks of the unfinished superstep wrote is not kept: that superstep never ends. Only whoever ends what is due, as
/// END, takes their writes along.
pub(super) fn update(
    graph: &CompiledGraph,
    before: &Checkpoint,
    finished: &[TaskResult],
    updates: &[StateUpdate],
    at: DateTime<Utc>,
) -> Result<Checkpoint, Failure> {
    for StateUpdate { values, as_node, goto } in updates {
        if as_node != START && as_node != END && !graph.nodes.contains_key(as_node) {
            return Err(Failure::new("unknown_node", format!("there is no node `{as_node}` to update as")));
        }
        if let Some(to) = goto.iter().find(|to| *to != END && !graph.nodes.contains_key(*to)) {
            return Err(Failure::new("unknown_node", format!("there is no node `{to}` to go to")));
        }
        refuse_untracked(graph, values, "a change from outside")?;
    }
    let ends = updates.iter().any(|update| update.as_node == END);
    let finished = if ends { finished } else { &[] };
    let mut next = settle(graph, before, &in_order(finished), None, at)?;
    for arrived in finished.iter().flat_map(|r| &r.triggers) {
        arrive(&mut next, arrived);
    }
    if ends {
        use_up(graph, &mut next);
        next.deferred.clear();
    }
    let mut all = Vec::new();
    let mut triggers = Vec::new();
    for StateUpdate { values, as_node, goto } in updates {
        let writes: Vec<Write> = values.iter().map(|(k, v)| Write::new(k.clone(), v.clone())).collect();
        // As a node's: its edges are chosen by the state with its own writes.
        let mut fresh = next.values.clone();
        apply_writes(&graph.channels, &mut fresh, &writes)?;
        match goto.as_slice() {
            [] => triggers.extend(leave(graph, as_node, &fresh)?),
            goto => triggers.extend(goto.iter().filter(|to| *to != END).cloned().map(Trigger::Node)),
        }
        all.extend(writes);
    }
    apply_writes(&graph.channels, &mut next.values, &all)?;
    // As in LangGraph it is a superstep of its own.
    end_step(&graph.cleared, &mut next.values, all.iter());
    next.source = Source::Update;
    plan(graph, &mut next, &triggers);
    if !ends {
        stay_due(graph, before, &mut next);
    }
    Ok(next)
}

/// Deferred nodes whose turn had come stay due until they have run, unless they are led to again (LangGraph's `LastValueAfterFinish`).
fn stay_due(graph: &CompiledGraph, before: &Checkpoint, next: &mut Checkpoint) {
    let stays = |task: &&Task| graph.deferred.contains(&task.node) && matches!(task.path, TaskPath::Pull(_));
    let again = |node: &Name| next.deferred.contains(node) || next.frontier.iter().any(|task| task.node == *node);
    let stay: Vec<Task> = before.frontier.iter().filter(stays).filter(|task| !again(&task.node)).cloned().collect();
    next.frontier.extend(stay);
    // Triggered nodes by name, then sends by index.
    next.frontier.sort_by(|a, b| a.path.cmp(&b.path));
}

/// A branch off `from`: its state with `values` applied. As `as_node` had written them, what that node's edges lead to is due; without it
/// what was due at `from` is.
pub(super) fn fork(
    graph: &CompiledGraph,
    from: &Checkpoint,
    number: u32,
    values: &Map<String, Value>,
    as_node: Option<&str>,
    at: DateTime<Utc>,
) -> Result<Checkpoint, Failure> {
    let mut next = match as_node {
        Some(node) => {
            let as_node = StateUpdate::new(values.clone(), node);
            update(graph, from, &[], &[as_node], at)?
        }
        None => {
            refuse_untracked(graph, values, "a change from outside")?;
            let mut next = settle(graph, from, &[], None, at)?;
            let writes: Vec<Write> = values.iter().map(|(k, v)| Write::new(k.clone(), v.clone())).collect();
            apply_writes(&graph.channels, &mut next.values, &writes)?;
            next.frontier.clone_from(&from.frontier);
            next
        }
    };
    (next.source, next.fork) = (Source::Fork, number);
    Ok(next)
}
