//! One run's view of its thread: the journal in memory, the store behind it, and the rules of effects.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde_json::Value;
use tokio::sync::watch;

use super::driver::{Clock, Stops};
use super::durability::Behind;
use super::effect::{EffectCx, Effects, Probe};
use super::idle::Vigil;
use super::journal::{Entry, EntryEvent, EntryKind, EntryStatus, Interrupt, JournalKey};
use super::replay::Recorded;
use super::untracked::tracked_result;
use super::{
    Alarm, Checkpoint, CompiledGraph, Durability, Event, EventSink, Failure, InterruptId, Name, NodeError, Partial,
    Recall, Record, Store, StoreError, TaskResult, Thread, ThreadId,
};

/// Whether and how a run is asked to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    /// Go on.
    #[default]
    No,
    /// Stop where it is; whoever advances threads may go on with it.
    Drain,
    /// Stop where it is; the thread waits for a person to resume it.
    Hold,
    /// Stop and undo.
    Cancel,
}

pub(super) struct Scope {
    pub store: Arc<dyn Store>,
    pub effects: Effects,
    pub clock: Arc<dyn Clock>,
    pub sink: Arc<dyn EventSink>,
    pub thread: ThreadId,
    pub epoch: u64,
    pub recursion_limit: i64,
    pub durability: Durability,
    /// Set where supersteps do not wait for the store.
    pub behind: Option<Behind>,
    /// The run continues a thread that stood at a static interrupt: the first superstep passes.
    pub resuming: bool,
    pub stop: watch::Receiver<Stop>,
    /// Whether events say what nodes write.
    pub tells_writes: bool,
    /// Where this run stops beside the graph's own static interrupts.
    pub stops: Stops,
    /// Set in a replay: nothing is performed, everything is looked up here.
    pub recorded: Option<Arc<Recorded>>,
    /// Tasks that must show signs of life.
    pub vigil: Arc<Vigil>,
    memory: Mutex<Memory>,
    /// The lease has been given back.
    over: AtomicBool,
    /// One commit after the other where checkpoints wait for the next one, whoever makes it; and why one failed.
    pub turn: tokio::sync::Mutex<Option<StoreError>>,
}

/// What a run knows of its thread.
#[derive(Default)]
pub(super) struct Memory {
    entries: BTreeMap<JournalKey, Entry>,
    next_seq: u64,
    pub interrupts: BTreeMap<InterruptId, Interrupt>,
    /// Events and other records that wait for the next commit.
    pub waiting: Vec<Record>,
    /// The timers of waits that go on, and the signals that they wait for. Two tasks may wait.
    pub alarms: Vec<Option<Alarm>>,
    pub listens: BTreeSet<String>,
    /// Signals that this run has taken: two tasks must not take the same.
    pub taken: BTreeSet<u64>,
    /// Whether the thread's row may say what an earlier run waited for.
    pub waited: bool,
    /// Where the root stood when the run began.
    root: Option<(Arc<Checkpoint>, Partial)>,
}

pub(super) struct ScopeParts {
    pub store: Arc<dyn Store>,
    pub effects: Effects,
    pub clock: Arc<dyn Clock>,
    pub sink: Arc<dyn EventSink>,
    pub recursion_limit: i64,
    pub durability: Durability,
    pub resuming: bool,
    pub stop: watch::Receiver<Stop>,
    pub tells_writes: bool,
    pub stops: Stops,
    pub recorded: Option<Arc<Recorded>>,
}

impl Scope {
    pub fn new(thread: &Thread, parts: ScopeParts, recall: Recall) -> Self {
        let Recall { journal, interrupts, latest, partial } = recall;
        let waited = thread.wake.is_some() || journal.iter().any(|entry| entry.kind == EntryKind::Wait);
        let memory = Memory {
            next_seq: journal.iter().map(|e| e.seq).max().unwrap_or(0) + 1,
            entries: journal.into_iter().map(|e| (e.key.clone(), e)).collect(),
            interrupts: interrupts.into_iter().map(|i| (i.id.clone(), i)).collect(),
            waited,
            root: latest.map(|latest| (latest, partial)),
            ..Memory::default()
        };
        let behind = (parts.durability == Durability::Async).then(|| Behind::begin(parts.store.clone()));
        Self {
            durability: parts.durability,
            behind,
            store: parts.store,
            effects: parts.effects,
            clock: parts.clock,
            sink: parts.sink,
            thread: thread.id.clone(),
            epoch: thread.epoch,
            recursion_limit: parts.recursion_limit,
            resuming: parts.resuming,
            stop: parts.stop,
            tells_writes: parts.tells_writes,
            stops: parts.stops,
            recorded: parts.recorded,
            vigil: Arc::default(),
            memory: Mutex::new(memory),
            over: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Where the root stood when the run began; once.
    pub fn root(&self) -> Option<(Arc<Checkpoint>, Partial)> {
        self.memory().root.take()
    }

    /// Commits the run's last records and gives the lease back with them.
    pub async fn end(&self, mut records: Vec<Record>) -> Result<(), StoreError> {
        records.push(Record::Release);
        self.commit(records).await?;
        self.over.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the lease has been given back.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics while holding the lock; a poisoned one still holds whole values.
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// An event that goes along with the next commit.
    pub fn later(&self, event: Event) {
        let mut memory = self.memory();
        if memory.waiting.capacity() == 0 {
            // What a superstep of one node has.
            memory.waiting.reserve(6);
        }
        memory.waiting.push(Record::Event(event));
    }

    /// A task of `ns` has ended with `result`.
    pub fn ended(&self, graph: &CompiledGraph, ns: &Name, result: &TaskResult) {
        self.sink.result(ns, result);
        if self.tells_writes {
            let TaskResult { path, node, writes, .. } = tracked_result(graph, result).into_owned();
            self.later(Event::Wrote { ns: ns.clone(), node, path, writes });
        }
    }

    /// Records that go along with the next commit.
    pub fn postpone(&self, records: impl IntoIterator<Item = Record>) {
        self.memory().waiting.extend(records);
    }

    /// How many answers this run knew when it began.
    pub fn answers(&self) -> u64 {
        self.memory().interrupts.values().filter(|asked| asked.answer.is_some()).count() as u64
    }

    /// The highest journal number so far.
    pub fn last_seq(&self) -> u64 {
        self.memory().next_seq - 1
    }

    /// Entries above the commit point, newest first.
    pub fn undoable(&self, committed: u64) -> Vec<Entry> {
        let memory = self.memory();
        let mut entries: Vec<Entry> = memory
            .entries
            .values()
            .filter(|e| e.kind == EntryKind::Effect && e.seq > committed && !e.status.is_settled())
            .cloned()
            .collect();
        entries.sort_by_key(|e| std::cmp::Reverse(e.seq));
        entries
    }

    pub fn entry(&self, key: &JournalKey) -> Option<Entry> {
        self.memory().entries.get(key).cloned()
    }

    /// Writes an entry to memory and returns the record of it.
    pub fn note(&self, entry: Entry) -> Record {
        self.memory().entries.insert(entry.key.clone(), entry.clone());
        Record::Entry(Box::new(entry))
    }

    pub fn fresh(&self, key: &JournalKey, kind: EntryKind, effect: &str, input: Value) -> Entry {
        let at = self.now();
        let mut memory = self.memory();
        let seq = memory.next_seq;
        memory.next_seq += 1;
        Entry {
            seq,
            key: key.clone(),
            kind,
            effect: effect.to_owned(),
            input,
            status: EntryStatus::Intent,
            receipt: None,
            failure: None,
            attempts: 1,
            at,
            updated_at: at,
        }
    }

    /// Moves an entry on and commits it together with an event.
    pub async fn step(&self, entry: &mut Entry, on: EntryEvent, event: Option<Event>) -> Result<(), NodeError> {
        let next = entry.status.on(on).ok_or_else(|| {
            let why = format!("{} is {:?} and cannot take {on:?}", entry.key.place(), entry.status);
            Failure::new("journal_state", "the journal holds an effect in an impossible state").because(why)
        })?;
        entry.status = next;
        entry.updated_at = self.now();
        let mut records = vec![self.note(entry.clone())];
        records.extend(event.map(Record::Event));
        Ok(self.commit(records).await?)
    }

    pub fn effect_cx(&self, key: &JournalKey, reason: Option<Failure>) -> EffectCx {
        let (sink, thread, clock, key_) = (self.sink.clone(), self.thread.clone(), self.clock.clone(), key.clone());
        let (vigil, path) = (self.vigil.clone(), key.path());
        let progress = move |line: &str| {
            vigil.sign(&key_.ns, &path);
            let (ns, node) = (key_.ns.clone(), key_.node.clone());
            let event = Event::Custom { ns, node, name: "progress".into(), data: Value::String(line.to_owned()) };
            sink.event(&thread, clock.now(), &event);
        };
        EffectCx {
            token: key.token(&self.thread),
            thread: self.thread.clone(),
            epoch: self.epoch,
            reason,
            failed: None,
            progress: Arc::new(progress),
        }
    }

    /// An effect, at most once in the record: recalled, probed or performed.
    pub async fn effect(&self, key: JournalKey, kind: &str, input: Value) -> Result<Value, NodeError> {
        if let Some(recorded) = &self.recorded {
            let entry = recorded.effect(&key, kind, &input)?;
            let record = self.note(entry.clone());
            self.commit(vec![record]).await?;
            return match (entry.status, entry.failure) {
                (EntryStatus::Intent, _) | (EntryStatus::Failed, None) => Err(recorded.ends()),
                (EntryStatus::Failed, Some(failure)) => Err(NodeError::Failed(failure)),
                // An effect without a receipt of its own has null for one, which a file cannot tell from none.
                _ => Ok(entry.receipt.unwrap_or(Value::Null)),
            };
        }
        let mut entry = match self.entry(&key) {
            None => self.intend(&key, kind, input).await?,
            Some(entry) => {
                same_call(&entry, kind, &input)?;
                match entry.status {
                    EntryStatus::Done => return Ok(entry.receipt.unwrap_or(Value::Null)),
                    EntryStatus::Undoing | EntryStatus::Undone | EntryStatus::UndoFailed | EntryStatus::Accepted => {
                        return Err(undone(&entry).into());
                    }
                    EntryStatus::Intent | EntryStatus::Failed => match self.settle(entry, None).await? {
                        entry if entry.status == EntryStatus::Done => return Ok(entry.receipt.unwrap_or(Value::Null)),
                        mut entry => {
                            entry.attempts += 1;
                            self.step(&mut entry, EntryEvent::Attempt, None).await?;
                            entry
                        }
                    },
                }
            }
        };
        self.perform(&mut entry).await
    }

    async fn intend(&self, key: &JournalKey, kind: &str, input: Value) -> Result<Entry, NodeError> {
        self.effects.get(kind)?;
        let entry = self.fresh(key, EntryKind::Effect, kind, input);
        let event = Event::EffectIntended { place: key.place(), effect: kind.to_owned() };
        let record = self.note(entry.clone());
        self.commit(vec![record, Record::Event(event)]).await?;
        Ok(entry)
    }

    async fn perform(&self, entry: &mut Entry) -> Result<Value, NodeError> {
        let began = Instant::now();
        let world = self.effects.get(&entry.effect)?;
        let done = world.perform(entry.input.clone(), &self.effect_cx(&entry.key, None)).await;
        let (place, effect) = (entry.key.place(), entry.effect.clone());
        match done {
            Ok(receipt) => {
                entry.receipt = Some(receipt.clone());
                entry.failure = None;
                let duration_ms = millis(began);
                let event = Event::EffectDone { place, effect, duration_ms, probed: false };
                self.step(entry, EntryEvent::Receipt, Some(event)).await?;
                Ok(receipt)
            }
            Err(failure) => {
                entry.failure = Some(failure.clone());
                let event = Event::EffectFailed { place, effect, failure: failure.clone() };
                self.step(entry, EntryEvent::Fail, Some(event)).await?;
                Err(NodeError::Failed(failure))
            }
        }
    }

    /// Finds out whether an effect without receipt happened; afterwards it is `Done` or `Failed`. `reason`: why it is to be undone.
    pub async fn settle(&self, mut entry: Entry, reason: Option<&Failure>) -> Result<Entry, NodeError> {
        let world = self.effects.get(&entry.effect)?;
        let began = Instant::now();
        let failed = entry.failure.clone().filter(|_| entry.status == EntryStatus::Failed);
        let cx = EffectCx { failed, ..self.effect_cx(&entry.key, reason.cloned()) };
        let probe = unless_panicked("the probe", world.probe(entry.input.clone(), &cx)).await;
        let (place, effect) = (entry.key.place(), entry.effect.clone());
        match probe {
            Ok(Probe::Done(receipt)) => {
                if entry.status == EntryStatus::Failed {
                    entry.status = EntryStatus::Intent;
                }
                entry.receipt = Some(receipt);
                entry.failure = None;
                let event = Event::EffectDone { place, effect, duration_ms: millis(began), probed: true };
                self.step(&mut entry, EntryEvent::Receipt, Some(event)).await?;
            }
            Ok(Probe::NotDone) => {
                if entry.status == EntryStatus::Intent {
                    self.step(&mut entry, EntryEvent::Fail, None).await?;
                }
            }
            Ok(Probe::Unknown(why)) => return Err(NodeError::Stuck(cannot_tell(&place, why))),
            Err(failure) => return Err(NodeError::Stuck(cannot_tell(&place, failure.into_details().message))),
        }
        Ok(entry)
    }

    /// Commits a record together with the journal's note of it: once, however often the node runs.
    pub async fn once(
        &self,
        key: JournalKey,
        kind: &str,
        input: Value,
        record: impl FnOnce(DateTime<Utc>) -> Result<Record, Failure>,
    ) -> Result<(), NodeError> {
        if let Some(recorded) = &self.recorded {
            let note = self.note(recorded.effect(&key, kind, &input)?);
            return Ok(self.commit(vec![note]).await?);
        }
        if let Some(entry) = self.entry(&key) {
            return Ok(same_call(&entry, kind, &input)?);
        }
        let record = record(self.now())?;
        let entry = self.fresh(&key, EntryKind::Pin, kind, input);
        let note = self.note(Entry { status: EntryStatus::Done, receipt: Some(Value::Bool(true)), ..entry });
        Ok(self.commit(vec![note, record]).await?)
    }

    /// A reading that is kept: pinned ones are returned as they were first, observations are taken afresh.
    pub async fn reading<F>(&self, key: JournalKey, kind: EntryKind, read: F) -> Result<Value, NodeError>
    where
        F: Future<Output = Result<Value, NodeError>> + Send,
    {
        if let Some(recorded) = &self.recorded {
            let entry = recorded.reading(&key)?;
            let (value, failure) = (entry.receipt.clone().unwrap_or(Value::Null), entry.failure.clone());
            let record = self.note(entry);
            self.commit(vec![record]).await?;
            return failure.map_or(Ok(value), |failure| Err(NodeError::Failed(failure)));
        }
        let before = self.entry(&key);
        if let (EntryKind::Pin, Some(Entry { status: EntryStatus::Done, receipt, .. })) = (kind, &before) {
            return Ok(receipt.clone().unwrap_or(Value::Null));
        }
        let read = read.await;
        // A node may go on after a reading that failed; then a replay must fail it too.
        let (status, receipt, failure) = match &read {
            Ok(value) => (EntryStatus::Done, Some(value.clone()), None),
            Err(NodeError::Failed(failure)) => (EntryStatus::Failed, None, Some(failure.clone())),
            Err(other) => return Err(other.clone()),
        };
        let entry = before.unwrap_or_else(|| self.fresh(&key, kind, "", Value::Null));
        let record = self.note(Entry { status, receipt, failure, updated_at: self.now(), ..entry });
        self.commit(vec![record]).await?;
        read
    }

    /// What was pinned under a key, by this run or one before; in a replay, by the recorded one.
    pub fn pinned(&self, key: &JournalKey) -> Option<Value> {
        let entry = match &self.recorded {
            Some(recorded) => recorded.reading(key).ok(),
            None => self.entry(key),
        };
        entry.filter(|entry| entry.status == EntryStatus::Done).and_then(|entry| entry.receipt)
    }
}

fn same_call(entry: &Entry, kind: &str, input: &Value) -> Result<(), Failure> {
    if entry.effect == kind && entry.input == *input {
        return Ok(());
    }
    let was = format!("recorded: {} {}\nnow: {kind} {input}", entry.effect, entry.input);
    Err(Failure::new("effect_changed", format!("a node asks for another effect at {}", entry.key.place()))
        .because(was)
        .hint("a node must ask for the same effects when it runs again; pin what it reads of the world"))
}

fn undone(entry: &Entry) -> Failure {
    Failure::new("effect_undone", format!("the effect at {} has been undone", entry.key.place()))
        .hint("start a new thread")
}

fn cannot_tell(place: &str, why: String) -> Failure {
    Failure::new("effect_unknown", format!("nobody can tell whether the effect at {place} happened"))
        .because(why)
        .hint("look at the world, mend it, then resume or cancel the thread")
}

/// What an effect's own code leaves when it panics outside of a node: the thread must not be lost with it.
pub(super) async fn unless_panicked<T>(
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.unwrap_or_else(|panic| {
        let failure = Failure::new("effect_panicked", format!("{what} of an effect panicked"));
        Err(failure.because(panic_message(panic.as_ref())).hint("this is a defect: report it"))
    })
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

pub(super) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
