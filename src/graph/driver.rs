//! The local driver: runs what the core says is due on tokio and commits what it leaves to a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::core;
use super::effect::Effects;
use super::replay::{Instead, Recorded};
use super::scope::{Scope, ScopeParts, Stop};
use super::task::run_task;
use super::{
    Checkpoint, CompiledGraph, Event, EventSink, Failure, Interrupt, NoSink, NodeError, Owner, Record, Store,
    StoreError, TaskPath, TaskResult, Thread, ThreadEvent, ThreadId, ThreadStatus, Unwinding,
};

/// Tells the time; replaced in tests.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// Drives threads over a store. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) store: Arc<dyn Store>,
    pub(super) effects: Effects,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) sink: Arc<dyn EventSink>,
    pub(super) owner: Owner,
}

/// A thread to be accepted.
#[derive(Debug, Clone, Default)]
pub struct NewThread {
    /// Its id; `None`: a fresh one.
    pub id: Option<ThreadId>,
    /// The resolved workflow document; null for graphs built in Rust.
    pub document: Value,
    /// The graph's input.
    pub input: Map<String, Value>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// How to advance a thread.
#[derive(Debug, Clone)]
pub struct Advance {
    /// Most supersteps of one namespace in this run.
    pub recursion_limit: u32,
    /// Asks the run to end early.
    pub stop: watch::Receiver<Stop>,
}

impl Default for Advance {
    fn default() -> Self {
        // A closed channel keeps its last value: nobody will ever ask this run to stop.
        Self { recursion_limit: 100, stop: watch::channel(Stop::No).1 }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    /// What the thread is now. `Running`: it was drained and can be resumed.
    pub status: ThreadStatus,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// What a person sees of a thread.
#[derive(Debug, Clone, PartialEq)]
pub struct StateSnapshot {
    /// The thread.
    pub thread: Thread,
    /// The root's newest checkpoint.
    pub checkpoint: Checkpoint,
    /// Values, finished tasks of the unfinished superstep applied.
    pub values: super::State,
    /// What is due.
    pub next: Vec<String>,
    /// Open questions.
    pub interrupts: Vec<Interrupt>,
}

pub(super) enum NamespaceEnd {
    Finished(Box<Checkpoint>),
    Suspended,
}

impl Engine {
    /// An engine over a store, as `owner`.
    pub fn new(store: Arc<dyn Store>, effects: Effects, owner: Owner) -> Self {
        Self { store, effects, clock: Arc::new(SystemClock), sink: Arc::new(NoSink), owner }
    }

    /// Shows events to `sink`.
    #[must_use]
    pub fn with_sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sink = sink;
        self
    }

    /// Takes the time from `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Accepts a thread: when this returns, it is durable and will go on after any crash.
    pub async fn create(&self, graph: &CompiledGraph, new: NewThread) -> Result<ThreadId, EngineError> {
        let at = self.clock.now();
        let first = core::start(graph, "", None, &new.input, at)?;
        let id = new.id.unwrap_or_else(ThreadId::new);
        let thread = Thread {
            id: id.clone(),
            workflow: graph.name.clone(),
            document: new.document,
            fingerprint: graph.fingerprint(),
            node_versions: graph.node_versions(),
            input: Value::Object(new.input),
            status: ThreadStatus::Pending,
            failure: None,
            unwinding: None,
            committed_seq: 0,
            undone: false,
            labels: new.labels,
            owner: None,
            epoch: 0,
            attendant: None,
            created_at: at,
            updated_at: at,
        };
        let accepted = Event::Accepted { workflow: thread.workflow.clone() };
        self.store
            .create(&thread, vec![Record::Event(accepted), checkpointed(&first), Record::Checkpoint(Box::new(first))])
            .await?;
        Ok(id)
    }

    /// Takes the thread and goes on until it ends, waits or is asked to stop.
    pub async fn advance(
        &self,
        graph: &Arc<CompiledGraph>,
        id: &ThreadId,
        how: Advance,
    ) -> Result<RunEnd, EngineError> {
        self.drive(graph, id, how, None).await
    }

    pub(super) async fn drive(
        &self,
        graph: &Arc<CompiledGraph>,
        id: &ThreadId,
        how: Advance,
        recorded: Option<Arc<Recorded>>,
    ) -> Result<RunEnd, EngineError> {
        let thread = self.store.acquire(id, &self.owner).await?;
        let epoch = thread.epoch;
        let end = self.drive_held(graph, thread, how, recorded).await;
        // The result matters more than a lease that could not be given back: its owner's death frees it.
        let released = self.store.release(id, epoch).await;
        let end = end?;
        released?;
        Ok(end)
    }

    async fn drive_held(
        &self,
        graph: &Arc<CompiledGraph>,
        thread: Thread,
        how: Advance,
        recorded: Option<Arc<Recorded>>,
    ) -> Result<RunEnd, EngineError> {
        refuse_changed(graph, &thread)?;
        if thread.status == ThreadStatus::Succeeded && recorded.is_none() {
            return Ok(RunEnd { status: thread.status, failure: None });
        }
        refuse_over(&thread)?;
        let resuming = thread.status != ThreadStatus::Pending;
        let scope = Arc::new(self.scope(&thread, how, resuming, recorded).await?);
        if let Some(unwinding) = thread.unwinding.clone() {
            return Ok(super::saga::unwind(&scope, unwinding, thread.committed_seq).await?);
        }
        let running =
            thread.status.on(ThreadEvent::Advance).map_err(|e| Failure::new("illegal_event", e.to_string()))?;
        let advancing = Event::Advancing { owner: self.owner.to_string(), epoch: thread.epoch };
        scope
            .commit(vec![Record::Event(advancing), Record::Status { status: running, failure: None, unwinding: None }])
            .await?;
        let ended = run_namespace(&scope, graph, "", Map::new()).await;
        Ok(finish_run(&scope, ended).await?)
    }

    async fn scope(
        &self,
        thread: &Thread,
        how: Advance,
        resuming: bool,
        recorded: Option<Arc<Recorded>>,
    ) -> Result<Scope, StoreError> {
        let parts = ScopeParts {
            store: self.store.clone(),
            effects: self.effects.clone(),
            clock: self.clock.clone(),
            sink: self.sink.clone(),
            recursion_limit: i64::from(how.recursion_limit),
            resuming,
            stop: how.stop,
            recorded,
        };
        Scope::load(thread, parts).await
    }

    /// Ends a thread that nobody advances: undoes what it did since its commit point (unless `undo` is false).
    pub async fn cancel(
        &self,
        graph: &Arc<CompiledGraph>,
        id: &ThreadId,
        undo: bool,
        why: Failure,
    ) -> Result<RunEnd, EngineError> {
        let thread = self.store.acquire(id, &self.owner).await?;
        let end = self.cancel_held(graph, &thread, undo, why).await;
        let released = self.store.release(id, thread.epoch).await;
        let end = end?;
        released?;
        Ok(end)
    }

    async fn cancel_held(
        &self,
        graph: &Arc<CompiledGraph>,
        thread: &Thread,
        undo: bool,
        why: Failure,
    ) -> Result<RunEnd, EngineError> {
        refuse_changed(graph, thread)?;
        if thread.status.is_terminal() {
            let message = format!("thread {} has ended: it is {}", thread.id, thread.status.word());
            return Err(Failure::new("thread_over", message).into());
        }
        let scope = self.scope(thread, Advance::default(), false, None).await?;
        let unwinding =
            thread.unwinding.clone().unwrap_or(Unwinding { becomes: ThreadStatus::Cancelled, failure: why });
        let committed = if undo { thread.committed_seq } else { u64::MAX };
        Ok(super::saga::begin(&scope, unwinding, committed).await?)
    }

    /// Changes the state from outside, as if `as_node` had written it.
    pub async fn update(
        &self,
        graph: &CompiledGraph,
        id: &ThreadId,
        values: &Map<String, Value>,
        as_node: &str,
    ) -> Result<(), EngineError> {
        let thread = self.store.acquire(id, &self.owner).await?;
        let done = async {
            refuse_changed(graph, &thread)?;
            let latest = latest(&*self.store, id).await?;
            let partial = self.store.partial(id, "", &latest.id).await?;
            let at = self.clock.now();
            let next = core::update(graph, &latest, &partial.results, values, as_node, at)?;
            let status = if next.ended() { ThreadStatus::Succeeded } else { ThreadStatus::Interrupted };
            let records = vec![
                Record::Withdraw { ns: String::new() },
                checkpointed(&next),
                Record::Checkpoint(Box::new(next)),
                Record::Status { status, failure: None, unwinding: None },
            ];
            let transaction = super::Transaction { thread: id.clone(), epoch: thread.epoch, at, records };
            self.store.commit(transaction).await?;
            Ok(())
        }
        .await;
        let released = self.store.release(id, thread.epoch).await;
        released.map_err(EngineError::from).and(done)
    }

    /// What a person sees of the thread.
    pub async fn state(&self, graph: &CompiledGraph, id: &ThreadId) -> Result<StateSnapshot, EngineError> {
        let thread = self.store.thread(id).await?.ok_or_else(|| StoreError::NoThread(id.clone()))?;
        let checkpoint = latest(&*self.store, id).await?;
        let partial = self.store.partial(id, "", &checkpoint.id).await?;
        let seen = core::look(graph, &checkpoint, &partial.results);
        let interrupts = self.store.interrupts(Some(id), true).await?;
        Ok(StateSnapshot { thread, checkpoint, values: seen.values, next: seen.next, interrupts })
    }
}

/// What the engine refuses or suffers.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A refusal.
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl EngineError {
    /// As data for people.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Store(error) => error.failure(),
            Self::Refused(failure) => failure.clone(),
        }
    }
}

async fn latest(store: &dyn Store, id: &ThreadId) -> Result<Checkpoint, StoreError> {
    let found = store.latest(id, "").await?;
    found.ok_or_else(|| StoreError::Damaged(format!("thread {id} has no checkpoint")))
}

fn refuse_changed(graph: &CompiledGraph, thread: &Thread) -> Result<(), Failure> {
    if graph.fingerprint() == thread.fingerprint {
        return Ok(());
    }
    let now = graph.node_versions();
    let changed: Vec<String> = thread
        .node_versions
        .iter()
        .filter(|(kind, version)| now.get(*kind) != Some(version))
        .map(|(kind, version)| match now.get(kind) {
            Some(now) => format!("node type `{kind}` was version {version} and is {now} now"),
            None => format!("node type `{kind}` (version {version}) is gone"),
        })
        .collect();
    let why = if changed.is_empty() { "its nodes, edges or channels differ".to_owned() } else { changed.join("; ") };
    Err(Failure::new("graph_changed", format!("thread {} began with another graph", thread.id))
        .because(why)
        .hint("use the binary and workflow that began it, or start a new thread"))
}

fn refuse_over(thread: &Thread) -> Result<(), Failure> {
    let over = thread.status == ThreadStatus::Cancelled || (thread.undone && thread.unwinding.is_none());
    if !over {
        return Ok(());
    }
    let over = Failure::new("thread_over", format!("thread {} has ended: it is {}", thread.id, thread.status.word()));
    // Whoever resumes what a crash ended learns here how it ended.
    let over = match &thread.failure {
        Some(failure) => over.because(format!("{}: {}", failure.code, failure.message)),
        None => over,
    };
    Err(over.hint("what it did is undone; start a new one"))
}

/// The thread's status after a run, committed; a failure or a cancel undoes first.
async fn finish_run(scope: &Arc<Scope>, ended: Result<NamespaceEnd, NodeError>) -> Result<RunEnd, StoreError> {
    let (event, failure) = match ended {
        Ok(NamespaceEnd::Finished(_)) => (ThreadEvent::Finish, None),
        Ok(NamespaceEnd::Suspended) | Err(NodeError::Suspended) => (ThreadEvent::Interrupt, None),
        Err(NodeError::Store(error)) => return Err(error),
        Err(NodeError::Drained) => return drained(scope).await,
        // The record is left as it is: a replay writes to no thread but its own.
        Err(NodeError::Diverged(failure)) => return Ok(RunEnd { status: ThreadStatus::Stuck, failure: Some(failure) }),
        Err(NodeError::Stuck(failure)) => (ThreadEvent::Stick, Some(failure)),
        // The limit is a pause, not a failure of what was done: nothing is undone and the thread can be continued.
        Err(NodeError::Failed(failure)) if failure.code == "recursion_limit" => (ThreadEvent::Fail, Some(failure)),
        Err(NodeError::Failed(failure)) => {
            return begin_unwinding(scope, Unwinding { becomes: ThreadStatus::Failed, failure }).await;
        }
        Err(NodeError::Cancelled) => {
            let failure = Failure::new("cancelled", "the run was cancelled");
            return begin_unwinding(scope, Unwinding { becomes: ThreadStatus::Cancelled, failure }).await;
        }
    };
    let status = after(ThreadStatus::Running, event)?;
    let mut records = Vec::new();
    if event == ThreadEvent::Finish {
        records.push(Record::Withdraw { ns: String::new() });
    }
    records.push(Record::Status { status, failure: failure.clone(), unwinding: None });
    records.push(Record::Event(Event::StatusChanged { status, failure: failure.clone() }));
    scope.commit(records).await?;
    Ok(RunEnd { status, failure })
}

/// The run was asked to end early. Held by a person, the thread waits for one; else the next runner takes it.
async fn drained(scope: &Scope) -> Result<RunEnd, StoreError> {
    let held = *scope.stop.borrow() == Stop::Hold;
    let status = if held { after(ThreadStatus::Running, ThreadEvent::Interrupt)? } else { ThreadStatus::Running };
    let records = if held {
        vec![
            Record::Status { status, failure: None, unwinding: None },
            Record::Event(Event::StatusChanged { status, failure: None }),
        ]
    } else {
        Vec::new()
    };
    scope.commit(records).await?;
    Ok(RunEnd { status: ThreadStatus::Running, failure: None })
}

async fn begin_unwinding(scope: &Scope, unwinding: Unwinding) -> Result<RunEnd, StoreError> {
    let thread = scope.store.thread(&scope.thread).await?;
    let committed = thread.ok_or_else(|| StoreError::NoThread(scope.thread.clone()))?.committed_seq;
    super::saga::begin(scope, unwinding, committed).await
}

pub(super) fn after(status: ThreadStatus, event: ThreadEvent) -> Result<ThreadStatus, StoreError> {
    status.on(event).map_err(|e| StoreError::Damaged(e.to_string()))
}

pub(super) fn checkpointed(checkpoint: &Checkpoint) -> Record {
    Record::Event(Event::Checkpointed {
        ns: checkpoint.ns.clone(),
        step: checkpoint.step,
        source: checkpoint.source,
        next: checkpoint.frontier.iter().map(|t| t.node.clone()).collect(),
    })
}

/// Runs one namespace from its newest checkpoint (made from `input` if it has none) until it ends or waits.
pub(super) async fn run_namespace(
    scope: &Arc<Scope>,
    graph: &Arc<CompiledGraph>,
    ns: &str,
    input: Map<String, Value>,
) -> Result<NamespaceEnd, NodeError> {
    let (mut checkpoint, fresh) = match scope.store.latest(&scope.thread, ns).await? {
        Some(checkpoint) => (checkpoint, false),
        None => {
            let first = core::start(graph, ns, None, &input, scope.now())?;
            keep(scope, &first, Vec::new()).await?;
            (first, true)
        }
    };
    let continued = scope.resuming && !fresh;
    // LangGraph's count: a run that begins has its input as a step of its own, one that continues has not.
    let last_step = checkpoint.step + scope.recursion_limit + if continued { 2 } else { 0 };
    let mut pass_static = continued;
    loop {
        match scope.recorded.as_ref().and_then(|recorded| recorded.instead(&checkpoint)) {
            Some(Instead::Adopt(update)) => {
                keep(scope, &update, Vec::new()).await?;
                checkpoint = *update;
                continue;
            }
            Some(Instead::OutOfSteps(failure)) => return Err(NodeError::Failed(failure)),
            None => {}
        }
        // First of all, as in LangGraph: a run that needed every step it had is out of steps too.
        if checkpoint.step >= last_step {
            return Err(NodeError::Failed(too_long(graph, scope.recursion_limit)));
        }
        if checkpoint.ended() {
            return Ok(NamespaceEnd::Finished(Box::new(checkpoint)));
        }
        let due = || checkpoint.frontier.iter();
        if !pass_static && due().any(|t| graph.interrupt_before.contains(&t.node)) && scope.recorded.is_none() {
            return Ok(NamespaceEnd::Suspended);
        }
        pass_static = false;
        let results = superstep(scope, graph, &checkpoint).await?;
        let next = core::apply(graph, &checkpoint, &results, scope.now())?;
        let stops = results.iter().any(|r| graph.interrupt_after.contains(&r.node)) && scope.recorded.is_none();
        keep(scope, &next, commit_points(scope, graph, &results)).await?;
        checkpoint = next;
        if stops && !checkpoint.ended() {
            return Ok(NamespaceEnd::Suspended);
        }
    }
}

fn too_long(graph: &CompiledGraph, limit: i64) -> Failure {
    Failure::new("recursion_limit", format!("graph `{}` did not end within {limit} supersteps", graph.name))
        .hint("continue the thread, or raise the recursion limit")
}

async fn keep(scope: &Scope, checkpoint: &Checkpoint, mut records: Vec<Record>) -> Result<(), NodeError> {
    if let Some(recorded) = &scope.recorded {
        recorded.checkpoint(checkpoint)?;
    }
    records.push(checkpointed(checkpoint));
    records.push(Record::Checkpoint(Box::new(checkpoint.clone())));
    Ok(scope.commit(records).await?)
}

fn commit_points(scope: &Scope, graph: &CompiledGraph, results: &[TaskResult]) -> Vec<Record> {
    let sets = |r: &&TaskResult| graph.nodes.get(&r.node).is_some_and(|n| n.policy.commit_point);
    let Some(by) = results.iter().find(sets) else { return Vec::new() };
    vec![Record::CommitPoint(scope.last_seq()), Record::Event(Event::CommitPoint { node: by.node.clone() })]
}

/// Runs all tasks of the frontier that have not finished before. All siblings come to their end before an error counts.
async fn superstep(
    scope: &Arc<Scope>,
    graph: &Arc<CompiledGraph>,
    checkpoint: &Checkpoint,
) -> Result<Vec<TaskResult>, NodeError> {
    let partial = scope.store.partial(&scope.thread, &checkpoint.ns, &checkpoint.id).await?;
    let mut results = partial.results;
    let attempts: BTreeMap<TaskPath, u32> = partial.attempts.into_iter().collect();
    let due: Vec<_> = checkpoint.frontier.iter().filter(|t| results.iter().all(|r| r.path != t.path)).collect();
    let mut running: FuturesUnordered<_> = due
        .into_iter()
        .map(|task| run_task(scope, graph, checkpoint, task, attempts.get(&task.path).copied().unwrap_or(0)))
        .collect();
    let mut worst: Option<NodeError> = None;
    let mut stop = scope.stop.clone();
    loop {
        let ended = tokio::select! {
            biased;
            asked = asked_to_stop(&mut stop) => return Err(asked),
            ended = running.next() => ended,
        };
        match ended {
            None => break,
            Some(Ok(result)) => {
                if !running.is_empty() || worst.is_some() {
                    keep_result(scope, checkpoint, &result).await?;
                }
                results.push(result);
            }
            Some(Err(error)) => worst = Some(worse(worst, error)),
        }
    }
    match worst {
        None => Ok(results),
        Some(error) => {
            // The last one to finish went along with nobody; an answered question must not be asked again.
            for result in &results {
                keep_result(scope, checkpoint, result).await?;
            }
            Err(error)
        }
    }
}

async fn keep_result(scope: &Scope, checkpoint: &Checkpoint, result: &TaskResult) -> Result<(), NodeError> {
    let (ns, id) = (checkpoint.ns.clone(), checkpoint.id.clone());
    Ok(scope.commit(vec![Record::Result { ns, checkpoint: id, result: result.clone() }]).await?)
}

async fn asked_to_stop(stop: &mut watch::Receiver<Stop>) -> NodeError {
    loop {
        match *stop.borrow_and_update() {
            Stop::No => {}
            Stop::Drain | Stop::Hold => return NodeError::Drained,
            Stop::Cancel => return NodeError::Cancelled,
        }
        if stop.changed().await.is_err() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }
}

/// Which of two errors decides: what nobody may pass over comes first, waiting comes last.
fn worse(first: Option<NodeError>, second: NodeError) -> NodeError {
    let weight = |error: &NodeError| match error {
        NodeError::Store(_) => 6,
        NodeError::Diverged(_) => 5,
        NodeError::Stuck(_) => 4,
        NodeError::Cancelled => 3,
        NodeError::Failed(_) => 2,
        NodeError::Drained => 1,
        NodeError::Suspended => 0,
    };
    match first {
        Some(first) if weight(&first) >= weight(&second) => first,
        _ => second,
    }
}
