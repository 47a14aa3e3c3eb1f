//! Runs one task to its end: attempts, timeouts, panics, subgraphs.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::core::{self, Finished};
use super::effect::{decode, encode};
use super::failure::RECURSION_LIMIT;
use super::journal::{EntryKind, EntryStatus, JournalKey, digest};
use super::namespace::{Line, NamespaceEnd, is_kept, run_namespace};
use super::scope::{Scope, millis, panic_message};
use super::visit::new_visit;
use super::{
    Body, Channel, Checkpoint, CompiledGraph, Context, Entry, Event, Failure, Goto, Name, NodeEntry, NodeError,
    Persistence, Produced, Record, State, Task, View, Write,
};

/// Runs `task`. `failed`: attempts that failed before this process took over. What few tasks need is boxed: each sibling of a superstep has
/// one of these futures, and it has room for all that it may ever wait for.
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
    if entry.policy.cache.is_some()
        && let Some(given) = Box::pin(given_before(scope, graph, checkpoint, task, entry)).await?
    {
        return Ok(given);
    }
    loop {
        let attempt = failed + 1;
        scope.later(Event::NodeStarted { ns: checkpoint.ns.clone(), node: task.node.clone(), attempt });
        let began = Instant::now();
        let end = match timed_out_then(scope, checkpoint, task, attempt, place)? {
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
        let policy = entry.policy.retry.iter().find(|policy| policy.takes(&failure));
        let pause = policy.and_then(|policy| policy.pause(failed, &failure));
        // A replay repeats the attempts (a node may look at their number), but has nothing to wait for.
        let pause = pause.map(|pause| if scope.recorded.is_some() { Duration::ZERO } else { pause });
        let retry_in_ms = pause.map(|p| u64::try_from(p.as_millis()).unwrap_or(u64::MAX));
        let (ns, node) = (checkpoint.ns.clone(), task.node.clone());
        let duration_ms = Some(millis(began));
        let by = entry.policy.on_error.as_ref().filter(|_| pause.is_none() && is_handled(&failure));
        let handler = by.map(|by| by.to.clone());
        if failure.is_of_time() && scope.recorded.is_none() && (by.is_some() || pause.is_some()) {
            note_out_of_time(scope, checkpoint, task, attempt, &failure)?;
        }
        let (at, why) = (ns.clone(), failure.clone());
        scope.later(Event::NodeFailed { ns: at, node, failure: why, retry_in_ms, duration_ms, handler });
        if let Some(by) = by {
            // What a subgraph asked has nobody to hear the answer.
            let inner = task.inner_ns(&ns, checkpoint.fork, entry.policy.persistence);
            scope.postpone(vec![Record::Withdraw { ns: Name::from(inner) }]);
            return Ok(core::handled(task, by, &failure));
        }
        let Some(pause) = pause else { return Err(NodeError::Failed(failure)) };
        if is_kept(&ns) {
            let attempts =
                Record::Attempts { ns, checkpoint: checkpoint.id.clone(), path: task.path.clone(), attempts: failed };
            Box::pin(scope.commit(vec![attempts])).await?;
        }
        Box::pin(tokio::time::sleep(pause)).await;
    }
}

/// In a replay: the failure of an attempt that had no time left.
fn timed_out_then(
    scope: &Scope,
    checkpoint: &Checkpoint,
    task: &Task,
    attempt: u32,
    place: impl Fn() -> String,
) -> Result<Option<Failure>, Failure> {
    let Some(recorded) = &scope.recorded else { return Ok(None) };
    match scope.pinned(&out_of_time(checkpoint, task, attempt)) {
        Some(failure) => decode(failure, OUT_OF_TIME).map(Some),
        None => Ok(recorded.timed_out(checkpoint, &place())),
    }
}

/// The run goes on behind a failure by time, and a replay cannot know that there was no time left.
fn note_out_of_time(
    scope: &Scope,
    checkpoint: &Checkpoint,
    task: &Task,
    attempt: u32,
    failure: &Failure,
) -> Result<(), Failure> {
    let entry = scope.fresh(&out_of_time(checkpoint, task, attempt), EntryKind::Pin, "", Value::Null);
    let receipt = Some(encode(failure, OUT_OF_TIME)?);
    scope.postpone([scope.note(Entry { status: EntryStatus::Done, receipt, ..entry })]);
    Ok(())
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
                let cx = Context::new(scope.clone(), checkpoint, task, attempt, entry.policy.interrupt_ttl);
                let produced = node.run(&cx, &view(checkpoint, task)?).await?;
                cx.not_swallowed()?;
                Ok(produced)
            }
            Body::Subgraph(inner) => subgraph(scope, graph, inner, checkpoint, task, entry.policy.persistence).await,
        }
    };
    // Where it lies: it is as large as everything that the node keeps while it waits, and each hand it goes through would copy it.
    let mut work = pin!(work);
    let guarded = AssertUnwindSafe(work.as_mut()).catch_unwind();
    let ended = if is_limited(scope, entry) {
        Box::pin(in_time(scope, checkpoint, task, entry, guarded)).await?
    } else {
        guarded.await
    };
    let produced = ended.unwrap_or_else(|panic| Err(panicked(&task.node, panic.as_ref())))?;
    // What no checkpoint may have a cache may not have either.
    let elsewhere = produced.goto.iter().any(|goto| matches!(goto, Goto::Command(_)));
    if !elsewhere && !produced.writes.iter().any(|write| graph.untracked.contains(&write.channel)) {
        keep_for_others(scope, checkpoint, task, entry, &produced)?;
    }
    let routed = || core::finish(graph, checkpoint, task, produced.writes, produced.goto);
    let finished = std::panic::catch_unwind(AssertUnwindSafe(routed));
    Ok(finished.map_err(|panic| panicked(&task.node, panic.as_ref()))??)
}

/// A failure that a handler may take; running out of supersteps is a pause and no failure of the node.
fn is_handled(failure: &Failure) -> bool {
    failure.code != RECURSION_LIMIT
}

/// Whether time limits count. How long a replay takes says nothing about the record.
fn is_limited(scope: &Scope, entry: &NodeEntry) -> bool {
    scope.recorded.is_none() && (entry.policy.timeout.is_some() || entry.policy.idle_timeout.is_some())
}

/// Runs an attempt within its node's time limits.
async fn in_time<T>(
    scope: &Scope,
    checkpoint: &Checkpoint,
    task: &Task,
    entry: &NodeEntry,
    work: impl Future<Output = T>,
) -> Result<T, NodeError> {
    let (limit, idle) = (entry.policy.timeout, entry.policy.idle_timeout);
    let watch = scope.vigil.watch(checkpoint, task, entry.policy.persistence);
    tokio::select! {
        biased;
        ended = work => Ok(ended),
        () = tokio::time::sleep(limit.unwrap_or_default()), if limit.is_some() => {
            Err(timed_out(&task.node, limit.unwrap_or_default()))
        }
        () = watch.idle(idle.unwrap_or_default()), if idle.is_some() => {
            Err(idled(&task.node, idle.unwrap_or_default()))
        }
    }
}

/// The journal's name of an attempt that had no time left.
const OUT_OF_TIME: &str = "out of time";

fn out_of_time(checkpoint: &Checkpoint, task: &Task, attempt: u32) -> JournalKey {
    JournalKey::of(checkpoint, task, OUT_OF_TIME, attempt)
}

/// The journal's name of a result that came from the cache.
const CACHED: &str = "cached";

/// The digest under which a task's result is kept: the node and what it sees.
fn cache_key(checkpoint: &Checkpoint, task: &Task, entry: &NodeEntry, by: &[String]) -> Result<String, Failure> {
    let seen = view(checkpoint, task)?.0;
    let counts = |name: &str| match (by, &entry.info.reads) {
        ([], Some(reads)) => reads.contains_key(name),
        ([], None) => true,
        (by, _) => by.iter().any(|wanted| wanted == name),
    };
    let seen: Map<String, Value> =
        seen.into_iter().filter(|(name, _)| counts(name)).map(|(name, value)| (name.to_string(), value)).collect();
    let info = &entry.info;
    Ok(digest(&json!([task.node, info.kind, info.version, info.parameters, seen])))
}

/// What a cached node gave for the same input before. The journal keeps it, so that a replay needs no cache.
async fn given_before(
    scope: &Scope,
    graph: &CompiledGraph,
    checkpoint: &Checkpoint,
    task: &Task,
    entry: &NodeEntry,
) -> Result<Option<Finished>, NodeError> {
    let Some(cache) = &entry.policy.cache else { return Ok(None) };
    let key = JournalKey::of(checkpoint, task, CACHED, 0);
    let produced = match scope.pinned(&key) {
        Some(known) => known,
        None if scope.recorded.is_some() => return Ok(None),
        None => {
            let found = scope.store.cached(&cache_key(checkpoint, task, entry, &cache.by)?, scope.now()).await?;
            let Some(found) = found else { return Ok(None) };
            let found = encode(&found, CACHED)?;
            scope.reading(key, EntryKind::Pin, async { Ok(found) }).await?
        }
    };
    let produced: Produced = decode(produced, CACHED)?;
    scope.later(Event::Cached { ns: checkpoint.ns.clone(), node: task.node.clone() });
    Ok(Some(core::finish(graph, checkpoint, task, produced.writes, produced.goto)?))
}

/// Keeps what a cached node gave, with its superstep.
fn keep_for_others(
    scope: &Scope,
    checkpoint: &Checkpoint,
    task: &Task,
    entry: &NodeEntry,
    produced: &Produced,
) -> Result<(), Failure> {
    let Some(cache) = entry.policy.cache.as_ref().filter(|_| scope.recorded.is_none()) else { return Ok(()) };
    let key = cache_key(checkpoint, task, entry, &cache.by)?;
    let ttl = cache.ttl.and_then(|ttl| chrono::Duration::from_std(ttl).ok());
    let expires_at = ttl.and_then(|ttl| scope.now().checked_add_signed(ttl));
    scope.postpone(vec![Record::Cached { key, produced: produced.clone(), expires_at }]);
    Ok(())
}

fn view(checkpoint: &Checkpoint, task: &Task) -> Result<View, Failure> {
    match &task.input {
        None => Ok(View(checkpoint.values.clone())),
        Some(Value::Object(payload)) => {
            Ok(View(payload.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()))
        }
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
    persistence: Persistence,
) -> BoxFuture<'a, Result<Produced, NodeError>> {
    Box::pin(async move {
        let seen = view(checkpoint, task)?.0;
        let input = shared_input(&seen, inner);
        let ns = Name::from(task.inner_ns(&checkpoint.ns, checkpoint.fork, persistence));
        let visit = match persistence {
            Persistence::Thread => new_visit(scope, checkpoint, task, &ns).await?,
            Persistence::Invocation | Persistence::Off => None,
        };
        match run_namespace(scope, inner, Line { ns: &ns, fork: checkpoint.fork, visit }, input).await? {
            NamespaceEnd::Finished(end) => Ok(Produced { writes: handed_back(&end, outer, inner), goto: Vec::new() }),
            NamespaceEnd::Left(command) => {
                // What the subgraph asked has nobody to hear the answer.
                scope.postpone(vec![Record::Withdraw { ns }]);
                if command.graph.is_around(&task.node, true) {
                    return Ok(Produced { writes: command.update, goto: command.goto });
                }
                Ok(Produced { writes: Vec::new(), goto: vec![Goto::Command(command)] })
            }
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
        let folded_here = inner.channels.get(name.as_str()).is_some_and(|c: &Channel| c.kind.fold().is_some());
        let value = if folded_here { value.clone() } else { end.values.get(name).unwrap_or(value).clone() };
        Write::new(name.clone(), value)
    };
    end.written.iter().filter(|(name, _)| both(name)).map(write).collect()
}

fn timed_out(node: &str, limit: Duration) -> NodeError {
    let failure = Failure::new("node_timeout", format!("node `{node}` did not end within {limit:?}"));
    NodeError::Failed(failure.hint("raise its `timeout`, or look at what it waits for").retryable())
}

fn idled(node: &str, limit: Duration) -> NodeError {
    let failure = Failure::new("node_idle", format!("node `{node}` gave no sign of life for {limit:?}"));
    NodeError::Failed(failure.hint("raise its `idle_timeout`, or let it report progress").retryable())
}

fn panicked(node: &str, panic: &(dyn std::any::Any + Send)) -> NodeError {
    let failure = Failure::new("node_panicked", format!("node `{node}` panicked"));
    NodeError::Failed(failure.because(panic_message(panic)).hint("this is a defect: report it"))
}
