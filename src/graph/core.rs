//! The pure core: what a superstep leaves, and what is due next. No clock, no disk, no task runs here.
//!
//! LangGraph keeps channel versions and asks which nodes have seen which; for its graphs that is the same as a frontier: a node is due
//! when an edge of the superstep before leads to it, or when all sources of a barrier have arrived (a full barrier stays full until its
//! node has run).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::change::refuse_untracked;
use super::channel::{Fold, apply_writes, check_writes, end_step, initial};
use super::command::command_of;
use super::{
    Checkpoint, CheckpointId, CompiledGraph, END, Failure, Goto, Leaving, Name, OnError, START, Source, State, Task,
    TaskPath, TaskResult, Trigger, Write,
};

/// What a person sees of a namespace: values with finished tasks applied, and what is due.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreState {
    /// Values, with the writes of finished tasks of the unfinished superstep applied.
    pub values: State,
    /// Names of the nodes due, sorted, one for each task.
    pub next: Vec<String>,
}

/// Checkpoint 0 of a namespace: the input applied, the first nodes due. With `before`, new input to a thread that has a past.
pub(super) fn start(
    graph: &CompiledGraph,
    ns: &Name,
    before: Option<&Checkpoint>,
    input: &Map<String, Value>,
    at: DateTime<Utc>,
) -> Result<Checkpoint, Failure> {
    if let Some(key) = input.keys().find(|key| !accepts(graph, key)) {
        let known: Vec<&str> = graph.channels.keys().filter(|k| accepts(graph, k)).map(Name::as_str).collect();
        return Err(Failure::new("unknown_input", format!("the input has an unknown key `{key}`"))
            .because(format!("graph `{}` takes: {}", graph.name, known.join(", ")))
            .hint("mend the key, or declare a channel of that name"));
    }
    if ns.is_empty() {
        refuse_untracked(graph, input, "the input")?;
    }
    let writes: Vec<Write> = input.iter().map(|(k, v)| Write::new(k.clone(), v.clone())).collect();
    let mut values = before.map_or_else(|| initial(&graph.channels), |b| b.values.clone());
    apply_writes(&graph.channels, &mut values, &writes)?;
    end_step(&graph.cleared, &mut values, writes.iter());
    let mut next = Checkpoint {
        id: CheckpointId::made(at),
        parent: before.map(|b| b.id.clone()),
        ns: ns.clone(),
        step: before.map_or(0, |b| b.step + 1),
        fork: before.map_or(0, |b| b.fork),
        source: if before.is_some() { Source::Input } else { Source::Loop },
        values,
        written: State::new(),
        barriers: before.map(|b| b.barriers.clone()).unwrap_or_default(),
        deferred: BTreeSet::new(),
        frontier: Vec::new(),
        visits: before.map(|b| b.visits.clone()).unwrap_or_default(),
        at,
    };
    use_up(graph, &mut next);
    let triggers = leave(graph, &START.into(), &next.values)?;
    plan(graph, &mut next, &triggers);
    bounded(&next)?;
    Ok(next)
}

/// What was due counts as having run, as in LangGraph: it has used up its barriers.
pub(super) fn use_up(graph: &CompiledGraph, next: &mut Checkpoint) {
    next.barriers.retain(|id, arrived| graph.barriers.get(id).is_none_or(|barrier| *arrived != barrier.from));
}

/// Whether an input may write this channel.
pub(super) fn accepts(graph: &CompiledGraph, key: &str) -> bool {
    graph.channels.contains_key(key) && graph.input_channels.as_ref().is_none_or(|input| input.contains(key))
}

/// A task that ended well.
pub(super) struct Finished {
    /// What it left.
    pub result: TaskResult,
    /// The state with its writes, where it is the only task of its superstep: nobody else writes to that.
    pub state: Option<State>,
}

/// What a finished task sets going: its node's edges, chosen by the state with its own fresh writes (not its siblings'), and its gotos.
pub(super) fn finish(
    graph: &CompiledGraph,
    checkpoint: &Checkpoint,
    task: &Task,
    writes: Vec<Write>,
    mut gotos: Vec<Goto>,
) -> Result<Finished, Failure> {
    let is_root = checkpoint.ns.is_empty();
    if let Some(command) = command_of(&task.node, is_root, &writes, &mut gotos)? {
        let (writes, triggers, command) = (Vec::new(), Vec::new(), Some(Box::new(command)));
        let result = TaskResult { path: task.path.clone(), node: task.node.clone(), writes, triggers, command };
        return Ok(Finished { result, state: None });
    }
    let leaving = graph.leaving.get(&task.node);
    let alone = checkpoint.frontier.len() == 1;
    let mut fresh = checkpoint.values.clone();
    if alone || leaving.is_some_and(|leaving| !leaving.routers.is_empty()) {
        apply_writes(&graph.channels, &mut fresh, &writes)?;
    } else {
        check_writes(&graph.channels, &fresh, &writes)?;
    }
    let mut triggers = leaving.map_or_else(|| Ok(Vec::new()), |leaving| follow(leaving, &task.node, &fresh))?;
    triggers.extend(gotos.into_iter().filter_map(trigger));
    let result = TaskResult { path: task.path.clone(), node: task.node.clone(), writes, triggers, command: None };
    Ok(Finished { result, state: alone.then_some(fresh) })
}

/// What a failed task hands to the superstep when a handler takes the failure: none of its node's edges is followed.
pub(super) fn handled(task: &Task, by: &OnError, failure: &Failure) -> Finished {
    let told = json!({"code": failure.code, "message": failure.message, "cause": failure.cause, "node": failure.node});
    let writes = by.into.iter().map(|channel| Write::new(channel.clone(), told.clone())).collect();
    let triggers = trigger(Goto::Node(by.to.clone())).into_iter().collect();
    let result = TaskResult { path: task.path.clone(), node: task.node.clone(), writes, triggers, command: None };
    Finished { result, state: None }
}

pub(super) fn leave(graph: &CompiledGraph, node: &Name, state: &State) -> Result<Vec<Trigger>, Failure> {
    graph.leaving.get(node).map_or_else(|| Ok(Vec::new()), |leaving| follow(leaving, node, state))
}

fn follow(leaving: &Leaving, node: &Name, state: &State) -> Result<Vec<Trigger>, Failure> {
    let mut triggers = Vec::with_capacity(leaving.to.len() + leaving.barriers.len());
    triggers.extend(leaving.to.iter().filter(|to| *to != END).cloned().map(Trigger::Node));
    let arrivals = leaving.barriers.iter();
    triggers.extend(arrivals.map(|id| Trigger::Arrived { barrier: id.clone(), from: node.clone() }));
    for router in &leaving.routers {
        let chosen = router.route(state)?;
        if chosen.iter().any(|goto| matches!(goto, Goto::Command(_))) {
            let message = format!("a router behind `{node}` gives a command to a graph around it");
            return Err(Failure::new("bad_command", message).hint("let a node give it"));
        }
        triggers.extend(chosen.into_iter().filter_map(trigger));
    }
    Ok(triggers)
}

fn trigger(goto: Goto) -> Option<Trigger> {
    match goto {
        Goto::Node(to) if to == END => None,
        Goto::Node(to) => Some(Trigger::Node(to)),
        Goto::Send { to, input } => Some(Trigger::Send { to, input }),
        // Only a node gives one, and `finish` has taken it.
        Goto::Command(_) => None,
    }
}

/// Ends a superstep: folds the results in order of path and plans the next frontier. `state`: what the only task made of it.
pub(super) fn apply(
    graph: &CompiledGraph,
    before: &Checkpoint,
    results: &[TaskResult],
    state: Option<State>,
    at: DateTime<Utc>,
) -> Result<Checkpoint, Failure> {
    let (one, many);
    let sorted: &[&TaskResult] = match results {
        [only] => {
            one = [only];
            &one
        }
        _ => {
            many = in_order(results);
            &many
        }
    };
    let mut next = settle(graph, before, sorted, state, at)?;
    plan(graph, &mut next, sorted.iter().flat_map(|r| &r.triggers));
    bounded(&next)?;
    Ok(next)
}

/// Most tasks of one superstep: Sends in a cycle may double with each of them.
const MOST_TASKS: usize = 10_000;

fn bounded(next: &Checkpoint) -> Result<(), Failure> {
    let tasks = next.frontier.len();
    if tasks <= MOST_TASKS {
        return Ok(());
    }
    let failure = Failure::new("too_many_tasks", format!("superstep {} would have {tasks} tasks", next.step + 1));
    Err(failure
        .because(format!("at most {MOST_TASKS} are run at once"))
        .hint("send a part of the items at a time, in a cycle"))
}

/// The state with finished tasks applied, and what is still due.
pub(super) fn look(graph: &CompiledGraph, checkpoint: &Checkpoint, finished: &[TaskResult]) -> CoreState {
    let mut values = checkpoint.values.clone();
    let writes = in_order(finished).into_iter().flat_map(|r| r.writes.iter());
    // What was recorded has been applied to this very state before; a conflict shows when the superstep ends.
    if apply_writes(&graph.channels, &mut values, writes).is_err() {
        values = checkpoint.values.clone();
    }
    let done: BTreeSet<&TaskPath> = finished.iter().map(|r| &r.path).collect();
    let due = checkpoint.frontier.iter().filter(|t| !done.contains(&t.path));
    let mut next: Vec<String> = due.map(|t| t.node.to_string()).collect();
    next.sort();
    CoreState { values, next }
}

/// Whether what finished tasks of one superstep wrote can be applied together.
///
/// # Errors
/// As the superstep's end would have it.
pub(super) fn agree(graph: &CompiledGraph, checkpoint: &Checkpoint, finished: &[TaskResult]) -> Result<(), Failure> {
    let writes = in_order(finished).into_iter().flat_map(|r| r.writes.iter());
    check_writes(&graph.channels, &checkpoint.values, writes)
}

pub(super) fn in_order(results: &[TaskResult]) -> Vec<&TaskResult> {
    let mut sorted: Vec<&TaskResult> = results.iter().collect();
    if sorted.len() > 1 {
        sorted.sort_by(|a, b| a.path.cmp(&b.path));
    }
    sorted
}

/// The next checkpoint with the results' writes applied and nothing due yet.
pub(super) fn settle(
    graph: &CompiledGraph,
    before: &Checkpoint,
    sorted: &[&TaskResult],
    state: Option<State>,
    at: DateTime<Utc>,
) -> Result<Checkpoint, Failure> {
    let writes = || sorted.iter().flat_map(|r| r.writes.iter());
    let mut values = match state {
        Some(values) => values,
        None => {
            let mut values = before.values.clone();
            apply_writes(&graph.channels, &mut values, writes())?;
            values
        }
    };
    // Without a result no superstep has ended.
    if !sorted.is_empty() {
        end_step(&graph.cleared, &mut values, writes());
    }
    let written = note_written(graph, before, &values, writes());
    let mut barriers = before.barriers.clone();
    if !barriers.is_empty() {
        // A barrier is consumed by the node that it started, before this superstep's arrivals fill it again.
        let ran: BTreeSet<&str> =
            sorted.iter().filter(|r| matches!(r.path, TaskPath::Pull(_))).map(|r| r.node.as_str()).collect();
        barriers.retain(|id, arrived| {
            graph.barriers.get(id).is_none_or(|b| !(ran.contains(b.to.as_str()) && *arrived == b.from))
        });
    }
    Ok(Checkpoint {
        id: CheckpointId::made(at),
        parent: Some(before.id.clone()),
        ns: before.ns.clone(),
        step: before.step + 1,
        fork: before.fork,
        source: Source::Loop,
        values,
        written,
        barriers,
        deferred: before.deferred.clone(),
        frontier: Vec::new(),
        visits: before.visits.clone(),
        at,
    })
}

/// Keeps the fold of what nodes wrote apart from what the input gave, so that a subgraph hands its parent only what is its own. Where
/// both are the same, as they nearly always are, they share the value.
fn note_written<'w>(
    graph: &CompiledGraph,
    before: &Checkpoint,
    values: &State,
    writes: impl Iterator<Item = &'w Write>,
) -> State {
    let mut written = before.written.clone();
    let mut apart: Vec<(&Name, bool)> = Vec::new();
    for write in writes {
        let declared = graph.channels.get_key_value(&write.channel);
        let (name, fold) = declared.map_or((&write.channel, None), |(name, channel)| (name, channel.kind.fold()));
        let twin = before.written.shares(name, &before.values) || is_new(before, name, fold);
        let Some(fold) = fold.filter(|_| !twin) else {
            written.share(name, values);
            continue;
        };
        let known = apart.iter_mut().find(|(apart, _)| *apart == name);
        let overwritten = known.as_ref().is_some_and(|(_, overwritten)| *overwritten);
        match (known, write.overwrite) {
            (Some(known), true) => known.1 = true,
            (None, overwrite) => apart.push((name, overwrite)),
            (Some(_), false) => {}
        }
        match written.get_mut(name) {
            // As in the state: an overwrite earlier in the superstep wins.
            Some(_) if overwritten && !write.overwrite => {}
            // The types were checked when the same write was applied to the state.
            Some(old) if !write.overwrite => drop(fold.fold(old, write.value.clone())),
            // A topic takes what is no list as one item, also the first and an overwrite.
            _ if fold == Fold::Topic => {
                let mut list = fold.initial();
                drop(fold.fold(&mut list, write.value.clone()));
                written.insert(name, list);
            }
            _ => written.insert(name, write.value.clone()),
        }
    }
    for (channel, _) in apart {
        if written.get(channel) == values.get(channel) {
            written.share(channel, values);
        }
    }
    // What the superstep cleared nobody is handed any more.
    for name in &graph.cleared {
        if !values.contains_key(name) {
            written.remove(name);
        }
    }
    written
}

/// Whether neither the input nor a node has written to a channel that begins with nothing in it.
fn is_new(before: &Checkpoint, channel: &Name, fold: Option<Fold>) -> bool {
    let empty = match before.values.get(channel) {
        None => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(keys)) => keys.is_empty(),
        Some(_) => false,
    };
    fold.is_some_and(Fold::adds) && empty && !before.written.contains_key(channel)
}

pub(super) fn arrive(checkpoint: &mut Checkpoint, trigger: &Trigger) {
    if let Trigger::Arrived { barrier, from } = trigger {
        checkpoint.barriers.entry(barrier.clone()).or_default().insert(from.clone());
    }
}

/// Fills `next.frontier`: triggered nodes and nodes behind full barriers by name, then sends by index.
pub(super) fn plan<'t>(graph: &CompiledGraph, next: &mut Checkpoint, triggers: impl IntoIterator<Item = &'t Trigger>) {
    let pull = |node: &Name| Task { path: TaskPath::Pull(node.clone()), node: node.clone(), visit: 0, input: None };
    let mut frontier: Vec<Task> = Vec::new();
    let mut sends: Vec<(&Name, &Value)> = Vec::new();
    for trigger in triggers {
        match trigger {
            // The usual case has one.
            Trigger::Node(to) if frontier.is_empty() => frontier = vec![pull(to)],
            Trigger::Node(to) => frontier.push(pull(to)),
            Trigger::Send { to, input } => sends.push((to, input)),
            Trigger::Arrived { .. } => arrive(next, trigger),
        }
    }
    let full = next.barriers.iter().filter_map(|(id, arrived)| graph.barriers.get(id).filter(|b| b.from == *arrived));
    frontier.extend(full.map(|b| pull(&b.to)));
    if frontier.len() > 1 {
        frontier.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        frontier.dedup_by(|a, b| a.node == b.node);
    }
    if !graph.deferred.is_empty() {
        let deferred = frontier.extract_if(.., |task| graph.deferred.contains(&task.node));
        next.deferred.extend(deferred.map(|task| task.node));
    }
    if frontier.is_empty() && sends.is_empty() {
        frontier.extend(std::mem::take(&mut next.deferred).iter().map(pull));
    }
    for task in &mut frontier {
        task.visit = next.visits.count(&task.node);
    }
    // However often a node is due in one superstep, it is one visit.
    let mut sent: BTreeMap<&Name, u64> = BTreeMap::new();
    frontier.reserve_exact(sends.len());
    for ((node, input), index) in sends.into_iter().zip(0..) {
        let visit = match sent.get(node) {
            Some(visit) => *visit,
            None => {
                let triggered = frontier.iter().find(|task| task.node == *node && task.input.is_none());
                let visit = triggered.map_or_else(|| next.visits.count(node), |task| task.visit);
                sent.insert(node, visit);
                visit
            }
        };
        frontier.push(Task { path: TaskPath::Push(index), node: node.clone(), visit, input: Some(input.clone()) });
    }
    next.frontier = frontier;
}

#[cfg(test)]
mod tests;
