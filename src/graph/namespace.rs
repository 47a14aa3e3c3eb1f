//! One namespace of a thread (the root graph, or a subgraph's visit): superstep after superstep until it ends or waits.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::poll_immediate;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::checkpoint::UNKEPT;
use super::command::given;
use super::core::{self, Finished};
use super::failure::{RECURSION_LIMIT, STEP_TIMEOUT};
use super::replay::Instead;
use super::scope::{Scope, Stop};
use super::task::run_task;
use super::untracked::{Forgotten, tracked, tracked_result};
use super::visit::NewVisit;
use super::{
    Checkpoint, Command, CompiledGraph, Event, Failure, Name, NodeError, Partial, Record, State, StoreError, TaskPath,
    TaskResult, ThreadStatus,
};

pub(super) enum NamespaceEnd {
    Finished(Arc<Checkpoint>),
    /// A node gave a command to a graph around this one.
    Left(Box<Command>),
    Suspended,
}

/// Where a namespace begins.
pub(super) struct Line<'l> {
    pub ns: &'l str,
    /// The branch.
    pub fork: u32,
    /// Set where the visit of a subgraph that keeps its state begins.
    pub visit: Option<NewVisit>,
}

impl Line<'static> {
    /// The root's.
    pub const ROOT: Self = Self { ns: "", fork: 0, visit: None };
}

/// Whether a store gets the checkpoints of a namespace.
pub(super) fn is_kept(ns: &str) -> bool {
    !ns.contains(UNKEPT)
}

pub(super) fn checkpointed(checkpoint: &Checkpoint) -> Record {
    Record::Event(Event::Checkpointed {
        ns: checkpoint.ns.clone(),
        step: checkpoint.step,
        source: checkpoint.source,
        next: checkpoint.frontier.iter().map(|t| t.node.clone()).collect(),
    })
}

/// Runs one namespace from its newest checkpoint until it ends or waits. If it has none, or a visit begins, that is made from `input`.
pub(super) async fn run_namespace(
    scope: &Arc<Scope>,
    graph: &Arc<CompiledGraph>,
    line: Line<'_>,
    input: Map<String, Value>,
) -> Result<NamespaceEnd, NodeError> {
    let ns = line.ns;
    let found = if line.visit.is_some() || !is_kept(ns) { None } else { found(scope, ns).await? };
    let continued = scope.resuming && found.is_some();
    let (mut checkpoint, mut partial) = match found {
        Some((found, partial)) => {
            scope.forgets(graph, &found, &partial).await?;
            (found, partial)
        }
        None => (begin(scope, graph, line, &input).await?, Partial::default()),
    };
    // LangGraph's count: a run that begins has its input as a step of its own, one that continues has not.
    let last_step = checkpoint.step + scope.recursion_limit + if continued { 2 } else { 0 };
    let mut pass_static = continued;
    // Behind a static interrupt at its end a run is not out of steps, as in LangGraph.
    let mut over_in_time = false;
    let mut stop = scope.stop.clone();
    loop {
        match scope.recorded.as_ref().filter(|_| is_kept(ns)).and_then(|recorded| recorded.instead(&checkpoint)) {
            Some(Instead::Adopt(update)) => {
                adopt_left_behind(scope, &checkpoint, &update).await?;
                (checkpoint, partial, over_in_time) = (Arc::new(*update), Partial::default(), false);
                keep(scope, graph, &checkpoint, Vec::new()).await?;
                continue;
            }
            Some(Instead::OutOfSteps(failure)) => return Err(NodeError::Failed(failure)),
            None => {}
        }
        // First of all, as in LangGraph: a run that needed every step it had is out of steps too.
        if checkpoint.step >= last_step && !over_in_time {
            return Err(NodeError::Failed(too_long(graph, scope.recursion_limit)));
        }
        if checkpoint.ended() {
            return Ok(NamespaceEnd::Finished(checkpoint));
        }
        if !pass_static && stands_before(scope, graph, &checkpoint) {
            return Ok(NamespaceEnd::Suspended);
        }
        pass_static = false;
        // Only of a superstep that another run began is anything kept.
        let mut kept = std::mem::take(&mut partial);
        if let Some(forgotten) = scope.forgotten(graph, &checkpoint)? {
            kept.results = before_forgetting(scope, graph, &checkpoint, &forgotten, &mut stop).await?;
            checkpoint = tracked(graph, &checkpoint);
        }
        let (results, state) = superstep(scope, graph, &checkpoint, kept, &mut stop).await?;
        if let Some(command) = given(&results) {
            scope.postpone(commit_points(scope, graph, &results));
            return Ok(NamespaceEnd::Left(Box::new(command)));
        }
        let next = Arc::new(core::apply(graph, &checkpoint, &results, state, scope.now())?);
        let stands_after =
            results.iter().any(|r| graph.interrupt_after.contains(r.node.as_str()) || stops_after(scope, ns, &r.node));
        // As in LangGraph a subgraph stops behind its last node too; of a root nothing is left to go on with.
        let over = ns.is_empty() && next.ended();
        let stops = stands_after && !over && may_stop(scope, &next);
        let mut records = commit_points(scope, graph, &results);
        records.extend(stop_record(scope, graph, &next, stops));
        keep(scope, graph, &next, records).await?;
        checkpoint = next;
        if stops {
            return Ok(NamespaceEnd::Suspended);
        }
        over_in_time = stands_after && over;
    }
}

/// The first checkpoint of a namespace, or of a visit of one.
async fn begin(
    scope: &Scope,
    graph: &CompiledGraph,
    line: Line<'_>,
    input: &Map<String, Value>,
) -> Result<Arc<Checkpoint>, NodeError> {
    let Line { ns, fork, visit } = line;
    let before = visit.as_ref().and_then(|visit| visit.before.as_ref());
    let first = core::start(graph, &Name::from(ns), before, input, scope.now())?;
    // What a branch takes over from the line that it left is no parent of its own line.
    let parent = first.parent.clone().filter(|_| before.is_some_and(|before| *before.ns == *ns));
    let first = Arc::new(Checkpoint { fork, parent, ..first });
    let mut records = stop_record(scope, graph, &first, false);
    records.extend(visit.map(|visit| visit.begun(scope)));
    keep(scope, graph, &first, records).await?;
    Ok(first)
}

/// Where the namespace stands, and what is kept of its unfinished superstep.
async fn found(scope: &Scope, ns: &str) -> Result<Option<(Arc<Checkpoint>, Partial)>, StoreError> {
    if ns.is_empty()
        && let Some(root) = scope.root()
    {
        return Ok(Some(root));
    }
    let Some(latest) = scope.store.latest(&scope.thread, ns).await? else { return Ok(None) };
    let partial = scope.store.partial(&scope.thread, ns, &latest.id).await?;
    Ok(Some((Arc::new(latest), partial)))
}

/// Takes over from the record what subgraphs had come to that a change from outside left.
async fn adopt_left_behind(scope: &Scope, here: &Checkpoint, update: &Checkpoint) -> Result<(), StoreError> {
    let Some(recorded) = &scope.recorded else { return Ok(()) };
    let mut left = recorded.left_behind(here, update).peekable();
    if left.peek().is_none() {
        return Ok(());
    }
    scope.flush().await?;
    let mut records = Vec::new();
    for checkpoint in left {
        // What visits before came to was run.
        let run = scope.store.latest(&scope.thread, &checkpoint.ns).await?;
        if run.is_none_or(|run| run.step < checkpoint.step) {
            records.push(Record::Checkpoint(Arc::new(checkpoint.clone())));
        }
    }
    scope.memory().waiting.extend(records);
    Ok(())
}

/// Whether a static interrupt counts here. A replay knows where the record went on.
fn may_stop(scope: &Scope, checkpoint: &Checkpoint) -> bool {
    scope.recorded.as_ref().is_none_or(|recorded| recorded.rests_at(checkpoint))
}

/// Whether a static interrupt lies before what is due.
fn stands_before(scope: &Scope, graph: &CompiledGraph, checkpoint: &Checkpoint) -> bool {
    let stops = |node: &Name| {
        graph.interrupt_before.contains(node) || (checkpoint.ns.is_empty() && scope.stops.before.contains(node))
    };
    may_stop(scope, checkpoint) && checkpoint.frontier.iter().any(|t| stops(&t.node))
}

/// Whether this run, rather than its graph, stops behind a node.
fn stops_after(scope: &Scope, ns: &str, node: &str) -> bool {
    ns.is_empty() && scope.stops.after.contains(node)
}

/// A checkpoint at which the run will stop says so in its own transaction: found `running` after a crash, it would be passed.
fn stop_record(scope: &Scope, graph: &CompiledGraph, next: &Checkpoint, stops: bool) -> Vec<Record> {
    if !stops && !stands_before(scope, graph, next) {
        return Vec::new();
    }
    vec![Record::Status { status: ThreadStatus::Interrupted, failure: None, unwinding: None }]
}

fn too_long(graph: &CompiledGraph, limit: i64) -> Failure {
    Failure::new(RECURSION_LIMIT, format!("graph `{}` did not end within {limit} supersteps", graph.name))
        .hint("continue the thread, or raise the recursion limit")
}

/// Replays what ended before the recorded run forgot its untracked values.
async fn before_forgetting(
    scope: &Arc<Scope>,
    graph: &Arc<CompiledGraph>,
    checkpoint: &Checkpoint,
    forgotten: &Forgotten,
    stop: &mut watch::Receiver<Stop>,
) -> Result<Vec<TaskResult>, NodeError> {
    let mut results = siblings(scope, graph, &forgotten.first(checkpoint), Partial::default(), stop).await?;
    for result in results.iter_mut().filter(|result| forgotten.lost.contains(&result.path)) {
        *result = tracked_result(graph, result).into_owned();
    }
    Ok(results)
}

async fn keep(
    scope: &Scope,
    graph: &CompiledGraph,
    checkpoint: &Arc<Checkpoint>,
    records: Vec<Record>,
) -> Result<(), NodeError> {
    if !is_kept(&checkpoint.ns) {
        scope.postpone(records);
        scope.sink.checkpoint(checkpoint);
        return Ok(());
    }
    let kept = tracked(graph, checkpoint);
    if let Some(recorded) = &scope.recorded {
        recorded.checkpoint(&kept)?;
    }
    // It has just been made, unless it is a recorded one.
    let at = scope.recorded.is_none().then_some(kept.at);
    let said = checkpointed(&kept);
    {
        let mut memory = scope.memory();
        memory.waiting.extend(records);
        memory.waiting.push(said);
        memory.waiting.push(Record::Checkpoint(kept));
    }
    // Where the run ends its last records follow at once, and both are committed together.
    if !(checkpoint.ns.is_empty() && checkpoint.ended()) {
        scope.commit_step(Vec::new(), at).await?;
    }
    scope.sink.checkpoint(checkpoint);
    Ok(())
}

fn commit_points(scope: &Scope, graph: &CompiledGraph, results: &[TaskResult]) -> Vec<Record> {
    if graph.commit_points.is_empty() {
        return Vec::new();
    }
    let Some(by) = results.iter().find(|result| graph.commit_points.contains(&result.node)) else { return Vec::new() };
    vec![Record::CommitPoint(scope.last_seq()), Record::Event(Event::CommitPoint { node: by.node.clone() })]
}

/// Runs all tasks of the frontier that have not finished before. All siblings come to their end before an error counts.
async fn superstep(
    scope: &Arc<Scope>,
    graph: &Arc<CompiledGraph>,
    checkpoint: &Checkpoint,
    partial: Partial,
    stop: &mut watch::Receiver<Stop>,
) -> Result<(Vec<TaskResult>, Option<State>), NodeError> {
    if let [task] = &*checkpoint.frontier
        && partial.results.is_empty()
    {
        let failed = partial.attempts.iter().find(|(path, _)| *path == task.path).map_or(0, |(_, failed)| *failed);
        if let Some(asked) = asked_by_now(stop) {
            return Err(asked);
        }
        let mut work = pin!(run_task(scope, graph, checkpoint, task, failed));
        // Most tasks end without a wait: whatever may come in between is only listened for where one waits.
        let ended = match poll_immediate(work.as_mut()).await {
            Some(ended) => ended,
            None => {
                // One that makes way for others must not be asked again at once.
                let mut asked_just_now = true;
                let waited = poll_fn(|cx| match std::mem::take(&mut asked_just_now) {
                    true => Poll::Pending,
                    false => work.as_mut().poll(cx),
                });
                tokio::select! {
                    biased;
                    asked = asked_to_stop(stop) => return Err(asked),
                    ended = waited => ended,
                    over = out_of_time(scope, graph) => return Err(over),
                }
            }
        };
        let Finished { result, state } = ended?;
        scope.ended(graph, &checkpoint.ns, &result);
        return Ok((vec![result], state));
    }
    Ok((siblings(scope, graph, checkpoint, partial, stop).await?, None))
}

async fn siblings(
    scope: &Arc<Scope>,
    graph: &Arc<CompiledGraph>,
    checkpoint: &Checkpoint,
    partial: Partial,
    stop: &mut watch::Receiver<Stop>,
) -> Result<Vec<TaskResult>, NodeError> {
    let mut results = partial.results;
    let attempts: BTreeMap<TaskPath, u32> = partial.attempts.into_iter().collect();
    let finished: BTreeSet<&TaskPath> = results.iter().map(|r| &r.path).collect();
    let mut running: FuturesUnordered<_> = checkpoint
        .frontier
        .iter()
        .filter(|task| !finished.contains(&task.path))
        .map(|task| {
            let failed = attempts.get(&task.path).copied().unwrap_or(0);
            run_task(scope, graph, checkpoint, task, failed).map(|end| end.map_err(|error| (error, Some(&task.path))))
        })
        .collect();
    let mut kept = results.len();
    let mut worst: Option<Worst> = None;
    let mut over = pin!(out_of_time(scope, graph));
    while !running.is_empty() {
        let mut ended = tokio::select! {
            biased;
            asked = asked_to_stop(stop) => return Err(asked),
            ended = running.next() => ended,
            over = &mut over => {
                worst = Some(worse(worst, (over, None)));
                keep_results(scope, graph, checkpoint, &results[kept..]).await?;
                break;
            }
        };
        // Whoever else is ready shares the transaction.
        while let Some(end) = ended {
            match end {
                Ok(finished) => {
                    scope.ended(graph, &checkpoint.ns, &finished.result);
                    results.push(finished.result);
                }
                Err(error) => worst = Some(worse(worst, error)),
            }
            ended = running.next().now_or_never().flatten();
        }
        // Those that finish last need no transaction of their own, unless a sibling failed: what was answered must not be asked again.
        if !running.is_empty() || worst.is_some() {
            keep_results(scope, graph, checkpoint, &results[kept..]).await?;
            kept = results.len();
        }
    }
    match worst {
        None => Ok(results),
        // Nobody is left to hear the answer, as in LangGraph.
        Some((NodeError::Suspended, _)) if given(&results).is_some() => Ok(results),
        Some((NodeError::Suspended, _)) => {
            // What can never be applied is told at once, as in LangGraph (of the root), and not when somebody has answered.
            if checkpoint.ns.is_empty() {
                core::agree(graph, checkpoint, &results)?;
            }
            Err(NodeError::Suspended)
        }
        Some((worst, _)) => Err(worst),
    }
}

/// Comes when a superstep has used up its time. What of it ended is kept, the thread can be continued (LangGraph's `step_timeout`).
async fn out_of_time(scope: &Scope, graph: &CompiledGraph) -> NodeError {
    // How long a replay takes says nothing about the record.
    let Some(limit) = graph.step_timeout.filter(|_| scope.recorded.is_none()) else {
        return std::future::pending().await;
    };
    tokio::time::sleep(limit).await;
    let message = format!("a superstep of graph `{}` did not end within {limit:?}", graph.name);
    let hint = "continue the thread: what has ended is not run again; or raise the graph's `step_timeout`";
    NodeError::Failed(Failure::new(STEP_TIMEOUT, message).hint(hint))
}

async fn keep_results(
    scope: &Scope,
    graph: &CompiledGraph,
    checkpoint: &Checkpoint,
    results: &[TaskResult],
) -> Result<(), NodeError> {
    let record = |result: &TaskResult| Record::Result {
        ns: checkpoint.ns.clone(),
        checkpoint: checkpoint.id.clone(),
        result: Box::new(tracked_result(graph, result).into_owned()),
    };
    // A task that gave a command runs again: what it writes is the matter of another graph.
    let records: Vec<Record> = results.iter().filter(|result| result.command.is_none()).map(record).collect();
    if records.is_empty() || !is_kept(&checkpoint.ns) {
        return Ok(());
    }
    Ok(scope.commit_step(records, None).await?)
}

fn asked_by_now(stop: &mut watch::Receiver<Stop>) -> Option<NodeError> {
    match *stop.borrow_and_update() {
        Stop::No => None,
        Stop::Drain | Stop::Hold => Some(NodeError::Drained),
        Stop::Cancel => Some(NodeError::Cancelled),
    }
}

async fn asked_to_stop(stop: &mut watch::Receiver<Stop>) -> NodeError {
    loop {
        if let Some(asked) = asked_by_now(stop) {
            return asked;
        }
        if stop.changed().await.is_err() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }
}

/// What a sibling failed of, and which one it was.
type Worst<'t> = (NodeError, Option<&'t TaskPath>);

/// Which of two siblings' errors decides: what nobody may pass over comes first, waiting comes last. Of two of a kind the one of the lower
/// path, and of no task at all (the superstep's time) the last: who was first must not matter, or a replay would fail another way.
fn worse<'t>(first: Option<Worst<'t>>, second: Worst<'t>) -> Worst<'t> {
    let weight = |error: &NodeError| match error {
        NodeError::Store(_) => 6,
        NodeError::Diverged(_) => 5,
        NodeError::Stuck(_) => 4,
        NodeError::Cancelled => 3,
        NodeError::Failed(_) => 2,
        NodeError::Drained => 1,
        NodeError::Suspended => 0,
    };
    let rank = |(error, path): &Worst<'t>| (weight(error), path.map(std::cmp::Reverse));
    match first {
        Some(first) if rank(&first) >= rank(&second) => first,
        _ => second,
    }
}
