//! Runs one task to its end: attempts, timeouts, panics, subgraphs.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::core::{self, Finished};
use super::namespace::{NamespaceEnd, run_namespace};
use super::scope::{Scope, millis, panic_message};
use super::{
    Body, Channel, Checkpoint, CompiledGraph, Context, Event, Failure, Name, NodeEntry, NodeError, Produced, Record,
    State, Task, View, Write,
};

/// Runs `task`. `failed`: attempts that failed before this process took over.
pub(super) async fn run_task(
    scope: &Arc<Scope>,
    graph: &Arc<CompiledGraph>,
    checkpoint: &Checkpoint,
    task: &Task,
    mut failed: u32,
) -> Result<Finished, NodeError> {
    let entry = graph.nodes.get(&task.node).ok_or_else(|| {
        let failure =
            Failure::new("unknown_node", format!("node `{}` is due, but the graph has no such node", task.node));
        NodeError::Failed(failure.hint("a Send or goto must name a node of its own graph"))
    })?;
    let place = || match checkpoint.ns.is_empty() {
        true => task.node.to_string(),
        false => format!("{}|{}", checkpoint.ns, task.node),
    };
    loop {
        let attempt = failed + 1;
        scope.later(Event::NodeStarted { ns: checkpoint.ns.clone(), node: task.node.clone(), attempt });
        let began = Instant::now();
        let timed_out = scope.recorded.as_ref().and_then(|recorded| recorded.timed_out(checkpoint, &place()));
        let end = match timed_out {
            Some(failure) => Err(NodeError::Failed(failure)),
            None => attempt_once(scope, graph, checkpoint, task, entry, attempt).await,
        };
        let failure = match end {
            Ok(finished) => {
                let duration_ms = millis(began);
                scope.later(Event::NodeFinished { ns: checkpoint.ns.clone(), node: task.node.clone(), duration_ms });
                return Ok(finished);
            }
            Err(NodeError::Failed(failure)) => failure.at(place()),
            Err(other) => return Err(other),
        };
        failed += 1;
        let pause = entry.policy.retry.and_then(|retry| retry.pause(failed, &failure));
        // A replay repeats the attempts (a node may look at their number), but has nothing to wait for.
        let pause = pause.map(|pause| if scope.recorded.is_some() { Duration::ZERO } else { pause });
        let retry_in_ms = pause.map(|p| u64::try_from(p.as_millis()).unwrap_or(u64::MAX));
        let (ns, node) = (checkpoint.ns.clone(), task.node.clone());
        let duration_ms = Some(millis(began));
        scope.later(Event::NodeFailed { ns: ns.clone(), node, failure: failure.clone(), retry_in_ms, duration_ms });
        let Some(pause) = pause else { return Err(NodeError::Failed(failure)) };
        let attempts =
            Record::Attempts { ns, checkpoint: checkpoint.id.clone(), path: task.path.clone(), attempts: failed };
        scope.commit(vec![attempts]).await?;
        tokio::time::sleep(pause).await;
    }
}

async fn attempt_once(
    scope: &Arc<Scope>,
    graph: &Arc<CompiledGraph>,
    checkpoint: &Checkpoint,
    task: &Task,
    entry: &NodeEntry,
    attempt: u32,
) -> Result<Finished, NodeError> {
    let work = async {
        match &entry.body {
            Body::Leaf(node) => {
                let cx = Context::new(scope.clone(), &checkpoint.ns, task, attempt, entry.policy.interrupt_ttl);
                let produced = node.run(&cx, &view(checkpoint, task)?).await?;
                cx.not_swallowed()?;
                Ok(produced)
            }
            Body::Subgraph(inner) => subgraph(scope, graph, inner, checkpoint, task).await,
        }
    };
    let guarded = AssertUnwindSafe(work).catch_unwind();
    // How long a replay takes says nothing about the record.
    let ended = match entry.policy.timeout.filter(|_| scope.recorded.is_none()) {
        None => guarded.await,
        Some(limit) => {
            tokio::time::timeout(limit, guarded).await.unwrap_or_else(|_| Ok(Err(timed_out(&task.node, limit))))
        }
    };
    let produced = ended.unwrap_or_else(|panic| Err(panicked(&task.node, panic.as_ref())))?;
    let routed = || core::finish(graph, checkpoint, task, produced.writes, produced.goto);
    let finished = std::panic::catch_unwind(AssertUnwindSafe(routed));
    Ok(finished.map_err(|panic| panicked(&task.node, panic.as_ref()))??)
}

fn view(checkpoint: &Checkpoint, task: &Task) -> Result<View, Failure> {
    match &task.input {
        None => Ok(View(checkpoint.values.clone())),
        Some(Value::Object(payload)) => Ok(View(payload.clone().into_iter().collect())),
        Some(other) => {
            Err(Failure::new("send_payload", format!("node `{}` was sent something that is no object", task.node))
                .because(other.to_string())
                .hint("send an object whose keys are what the node reads"))
        }
    }
}

/// A subgraph runs in a namespace of its own and hands back what its nodes wrote to the channels that both have.
fn subgraph<'a>(
    scope: &'a Arc<Scope>,
    outer: &'a Arc<CompiledGraph>,
    inner: &'a Arc<CompiledGraph>,
    checkpoint: &'a Checkpoint,
    task: &'a Task,
) -> BoxFuture<'a, Result<Produced, NodeError>> {
    Box::pin(async move {
        let seen = view(checkpoint, task)?.0;
        let input = shared_input(&seen, inner);
        let ns = Name::from(task.inner_ns(&checkpoint.ns));
        match run_namespace(scope, inner, &ns, input).await? {
            NamespaceEnd::Finished(end) => Ok(Produced { writes: handed_back(&end, outer, inner), goto: Vec::new() }),
            NamespaceEnd::Suspended => Err(NodeError::Suspended),
        }
    })
}

fn shared_input(seen: &State, inner: &CompiledGraph) -> Map<String, Value> {
    let taken = seen.iter().filter(|(name, _)| core::accepts(inner, name));
    taken.map(|(name, value)| (name.to_string(), value.clone())).collect()
}

fn handed_back(end: &Checkpoint, outer: &CompiledGraph, inner: &CompiledGraph) -> Vec<Write> {
    let both = |name: &str| outer.channels.contains_key(name) && inner.channels.contains_key(name);
    let write = |(name, value): (&Name, &Value)| {
        // Where only the parent folds, the subgraph's last value is one write to be folded, as any node's is.
        let folded_here = inner.channels.get(name.as_str()).map(|c: &Channel| c.reducer.is_some()) == Some(true);
        let value = if folded_here { value.clone() } else { end.values.get(name).unwrap_or(value).clone() };
        Write::new(name.clone(), value)
    };
    end.written.iter().filter(|(name, _)| both(name)).map(write).collect()
}

fn timed_out(node: &str, limit: Duration) -> NodeError {
    let failure = Failure::new("node_timeout", format!("node `{node}` did not end within {limit:?}"));
    NodeError::Failed(failure.hint("raise its `timeout`, or look at what it waits for").retryable())
}

fn panicked(node: &str, panic: &(dyn std::any::Any + Send)) -> NodeError {
    let failure = Failure::new("node_panicked", format!("node `{node}` panicked"));
    NodeError::Failed(failure.because(panic_message(panic)).hint("this is a defect: report it"))
}
