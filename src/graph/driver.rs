//! The local driver: runs what the core says is due on tokio and commits what it leaves to a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::core;
use super::effect::Effects;
use super::namespace::{Line, NamespaceEnd, run_namespace};
use super::opening::{accepting, advancing, begins_at_once, first_records, opening};
use super::replay::Recorded;
use super::scope::{Scope, ScopeParts, Stop};
use super::{
    Checkpoint, CompiledGraph, Durability, Event, EventSink, Failure, Interrupt, Name, NoSink, NodeError, Owner,
    Record, Store, StoreError, Thread, ThreadEvent, ThreadId, ThreadStatus, Unwinding, Uptime,
};

/// Tells the time; replaced in tests.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> DateTime<Utc>;
    /// How long the machine has been up, where that can be told.
    fn uptime(&self) -> Option<Uptime> {
        None
    }
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
    /// Who is about to advance it; nobody else takes it while this process lives.
    pub attendant: Option<Owner>,
}

/// How to advance a thread.
#[derive(Debug, Clone)]
pub struct Advance {
    /// Most supersteps of one namespace in this run.
    pub recursion_limit: u32,
    /// When checkpoints are committed.
    pub durability: Durability,
    /// Asks the run to end early.
    pub stop: watch::Receiver<Stop>,
    /// Whether the thread's events say what its nodes write ([`Event::Wrote`]): for those who follow a run by its record alone.
    pub tells_writes: bool,
    /// Where this run stops beside the graph's own static interrupts.
    pub stops: Stops,
}

/// Static interrupts of one run, in its root graph (LangGraph's `interrupt_before` and `interrupt_after` of a call).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stops {
    /// Nodes before which it stops.
    pub before: Nodes,
    /// Nodes behind which it stops.
    pub after: Nodes,
    /// The run begins with new input: no node that is due has been stopped before.
    pub begins: bool,
}

/// Some nodes, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    /// These.
    Named(BTreeSet<Name>),
    /// All.
    All,
}

impl Default for Nodes {
    fn default() -> Self {
        Self::Named(BTreeSet::new())
    }
}

impl Nodes {
    /// Whether it has this one.
    pub fn contains(&self, node: &str) -> bool {
        match self {
            Self::Named(nodes) => nodes.contains(node),
            Self::All => true,
        }
    }
}

impl Default for Advance {
    fn default() -> Self {
        // A closed channel keeps its last value: nobody will ever ask this run to stop. One for all.
        static NEVER: LazyLock<watch::Receiver<Stop>> = LazyLock::new(|| watch::channel(Stop::No).1);
        Self {
            recursion_limit: 100,
            durability: Durability::Sync,
            stop: NEVER.clone(),
            tells_writes: false,
            stops: Stops::default(),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    /// What the thread is now. `Running`: it was drained and can be resumed.
    pub status: ThreadStatus,
    /// Why it failed, or why it was drained.
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

    /// The same engine on another store.
    #[must_use]
    pub fn on(&self, store: Arc<dyn Store>) -> Self {
        Self { store, ..self.clone() }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Accepts a thread: when this returns, it is durable and will go on after any crash.
    pub async fn create(&self, graph: &CompiledGraph, new: NewThread) -> Result<ThreadId, EngineError> {
        let (thread, first) = self.accepted(graph, new)?;
        self.store.create(&thread, accepting(&thread, &Arc::new(first))).await?;
        Ok(thread.id)
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
        let at = self.clock.now();
        let opening = opening(graph, &self.owner, recorded.is_some());
        let thread = self.store.begin(id, &self.owner, at, opening).await?;
        if begins_at_once(graph, &thread, recorded.is_some()) {
            self.sink.event(id, at, &advancing(&self.owner, thread.epoch));
        }
        let mut is_over = false;
        let end = self.drive_held(graph, &thread, how, recorded, &mut is_over).await;
        self.let_go(&thread, is_over, end).await
    }

    /// `is_over`: set when the lease has been given back.
    async fn drive_held(
        &self,
        graph: &Arc<CompiledGraph>,
        thread: &Thread,
        how: Advance,
        recorded: Option<Arc<Recorded>>,
        is_over: &mut bool,
    ) -> Result<RunEnd, EngineError> {
        let begun = begins_at_once(graph, thread, recorded.is_some());
        let migrated = if recorded.is_some() { thread.clone() } else { self.migrate(graph, thread.clone()).await? };
        let thread = &migrated;
        refuse_changed(graph, thread)?;
        if thread.status == ThreadStatus::Succeeded && recorded.is_none() {
            return Ok(RunEnd { status: thread.status, failure: None });
        }
        refuse_over(thread)?;
        let resuming = thread.status != ThreadStatus::Pending && !how.stops.begins;
        let recall = self.store.recall(&thread.id).await?;
        let scope = Arc::new(Scope::new(thread, self.parts(how, resuming, recorded), recall));
        let end = if let Some(unwinding) = thread.unwinding.clone() {
            super::saga::unwind(&scope, unwinding, thread.committed_seq).await
        } else {
            if !begun {
                scope.postpone(first_records(&self.owner, thread.epoch, scope.answers()));
            }
            let ended = run_namespace(&scope, graph, Line::ROOT, Map::new()).await;
            finish_run(&scope, ended).await
        };
        *is_over = scope.is_over();
        Ok(end?)
    }

    pub(super) fn parts(&self, how: Advance, resuming: bool, recorded: Option<Arc<Recorded>>) -> ScopeParts {
        ScopeParts {
            store: self.store.clone(),
            effects: self.effects.clone(),
            clock: self.clock.clone(),
            sink: self.sink.clone(),
            recursion_limit: i64::from(how.recursion_limit),
            durability: how.durability,
            resuming,
            stop: how.stop,
            tells_writes: how.tells_writes && recorded.is_none(),
            stops: how.stops,
            recorded,
        }
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
        let mut is_over = false;
        let end = async {
            let thread = self.migrate(graph, thread.clone()).await?;
            self.cancel_held(graph, &thread, undo, why, &mut is_over).await
        };
        let end = end.await;
        self.let_go(&thread, is_over, end).await
    }

    /// Accepts what an undo is stuck at as it is, and undoes the rest.
    pub async fn accept_undo(
        &self,
        graph: &Arc<CompiledGraph>,
        id: &ThreadId,
        by: &str,
    ) -> Result<RunEnd, EngineError> {
        let thread = self.store.acquire(id, &self.owner).await?;
        let accepted = async {
            refuse_changed(graph, &thread)?;
            let Some(unwinding) = thread.unwinding.clone().filter(|_| thread.status == ThreadStatus::Stuck) else {
                let message = format!("thread {id} is not stuck in an undo: it is {}", thread.status.word());
                return Err(Failure::new("not_stuck", message).hint("`tidegate run show` tells how it stands").into());
            };
            let recall = self.store.recall(id).await?;
            let scope = Scope::new(&thread, self.parts(Advance::default(), false, None), recall);
            Ok(super::saga::accept(&scope, unwinding, thread.committed_seq, by).await?)
        };
        let accepted = accepted.await;
        let released = self.store.release(id, thread.epoch).await;
        released.map_err(EngineError::from).and(accepted)
    }

    async fn cancel_held(
        &self,
        graph: &Arc<CompiledGraph>,
        thread: &Thread,
        undo: bool,
        why: Failure,
        is_over: &mut bool,
    ) -> Result<RunEnd, EngineError> {
        refuse_changed(graph, thread)?;
        if thread.status.is_terminal() && !continuable(thread) {
            let message = format!("thread {} has ended: it is {}", thread.id, thread.status.word());
            return Err(Failure::new("thread_over", message).into());
        }
        let recall = self.store.recall(&thread.id).await?;
        let scope = Scope::new(thread, self.parts(Advance::default(), false, None), recall);
        let unwinding =
            thread.unwinding.clone().unwrap_or(Unwinding { becomes: ThreadStatus::Cancelled, failure: why });
        let committed = if undo { thread.committed_seq } else { scope.last_seq() };
        if !undo {
            // Durable with the decision: after a crash nobody would know that undoing was declined.
            scope.postpone(vec![Record::CommitPoint(committed)]);
        }
        let end = super::saga::begin(&scope, unwinding, committed).await;
        *is_over = scope.is_over();
        Ok(end?)
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

pub(super) async fn latest(store: &dyn Store, id: &ThreadId) -> Result<Checkpoint, StoreError> {
    let found = store.latest(id, "").await?;
    found.ok_or_else(|| StoreError::Damaged(format!("thread {id} has no checkpoint")))
}

pub(super) fn refuse_changed(graph: &CompiledGraph, thread: &Thread) -> Result<(), Failure> {
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

pub(super) fn refuse_over(thread: &Thread) -> Result<(), Failure> {
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

/// A thread that ran out of supersteps, or of time for one, counts as failed, but nothing of it is undone: it can be continued, so it can be cancelled.
fn continuable(thread: &Thread) -> bool {
    thread.status == ThreadStatus::Failed && !thread.undone && thread.failure.as_ref().is_some_and(Failure::is_pause)
}

/// The thread's status after a run, committed; a failure or a cancel undoes first.
pub(super) async fn finish_run(
    scope: &Arc<Scope>,
    ended: Result<NamespaceEnd, NodeError>,
) -> Result<RunEnd, StoreError> {
    let (event, failure) = match ended {
        // The root is left by no command: the task that gives it fails with `no_parent_graph`.
        Ok(NamespaceEnd::Finished(_) | NamespaceEnd::Left(_)) => (ThreadEvent::Finish, None),
        Ok(NamespaceEnd::Suspended) | Err(NodeError::Suspended) if scope.only_sleeps() => (ThreadEvent::Sleep, None),
        Ok(NamespaceEnd::Suspended) | Err(NodeError::Suspended) => (ThreadEvent::Interrupt, None),
        Err(NodeError::Store(error)) => return Err(error),
        Err(NodeError::Drained) => return drained(scope).await,
        // The record is left as it is: a replay writes to no thread but its own.
        Err(NodeError::Diverged(failure)) => return Ok(RunEnd { status: ThreadStatus::Stuck, failure: Some(failure) }),
        Err(NodeError::Stuck(failure)) => (ThreadEvent::Stick, Some(failure)),
        // The limit is a pause, not a failure of what was done: nothing is undone and the thread can be continued.
        Err(NodeError::Failed(failure)) if failure.is_pause() => (ThreadEvent::Fail, Some(failure)),
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
        records.push(Record::Withdraw { ns: Name::default() });
    }
    records.extend(scope.sleeps());
    records.push(Record::Status { status, failure: failure.clone(), unwinding: None });
    records.push(Record::Event(Event::StatusChanged { status, failure: failure.clone() }));
    scope.end(records).await?;
    Ok(RunEnd { status, failure })
}

/// The run was asked to end early. Held by a person, the thread waits for one; else the next runner takes it.
async fn drained(scope: &Scope) -> Result<RunEnd, StoreError> {
    let held = *scope.stop.borrow() == Stop::Hold;
    let status = if held { after(ThreadStatus::Running, ThreadEvent::Interrupt)? } else { ThreadStatus::Running };
    let records = if held {
        vec![
            // No timer and no signal goes on with it, only a person.
            Record::Sleeps { wake: None, listens: BTreeSet::new() },
            Record::Status { status, failure: None, unwinding: None },
            Record::Event(Event::StatusChanged { status, failure: None }),
        ]
    } else {
        Vec::new()
    };
    scope.end(records).await?;
    Ok(RunEnd { status: ThreadStatus::Running, failure: None })
}

async fn begin_unwinding(scope: &Scope, unwinding: Unwinding) -> Result<RunEnd, StoreError> {
    scope.flush().await?;
    let thread = scope.store.thread(&scope.thread).await?;
    let committed = thread.ok_or_else(|| StoreError::NoThread(scope.thread.clone()))?.committed_seq;
    super::saga::begin(scope, unwinding, committed).await
}

pub(super) fn after(status: ThreadStatus, event: ThreadEvent) -> Result<ThreadStatus, StoreError> {
    status.on(event).map_err(|e| StoreError::Damaged(e.to_string()))
}
