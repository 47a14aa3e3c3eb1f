//! What a node may ask of the engine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::effect::{decode, encode};
use super::items::Shared;
use super::journal::EntryKind;
use super::question::Posed;
use super::scope::Scope;
use super::{Checkpoint, Effect, Event, Failure, JournalKey, Name, NodeError, Task, TaskPath, ThreadId, Until, Woken};

/// The name of the events that [`Context::message`] shows.
pub const MESSAGE: &str = "message";

/// A node's way to the world. Everything goes through the journal, so that a node that runs again from its top does nothing twice.
pub struct Context {
    pub(super) scope: Arc<Scope>,
    fork: u32,
    ns: Name,
    node: Name,
    path: TaskPath,
    visit: u64,
    send: Option<u32>,
    attempt: u32,
    interrupt_ttl: Option<Duration>,
    ordinals: Mutex<BTreeMap<String, u32>>,
    suspended: AtomicBool,
}

impl Context {
    pub(super) fn new(
        scope: Arc<Scope>,
        checkpoint: &Checkpoint,
        task: &Task,
        attempt: u32,
        interrupt_ttl: Option<Duration>,
    ) -> Self {
        Self {
            scope,
            fork: checkpoint.fork,
            ns: checkpoint.ns.clone(),
            node: task.node.clone(),
            path: task.path.clone(),
            visit: task.visit,
            send: task.send(),
            attempt,
            interrupt_ttl,
            ordinals: Mutex::new(BTreeMap::new()),
            suspended: AtomicBool::new(false),
        }
    }

    /// The thread.
    pub fn thread(&self) -> &ThreadId {
        &self.scope.thread
    }

    /// The lease epoch of the thread's owner: what a fenced world checks.
    pub fn epoch(&self) -> u64 {
        self.scope.epoch
    }

    /// The node's name in the graph.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The how-many-eth attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A side effect, performed at most once in the record: recalled if it has a receipt, probed if it has only an intent.
    pub async fn effect<E: Effect>(&self, name: &str, effect: E) -> Result<E::Receipt, NodeError> {
        let input = encode(&effect, E::KIND)?;
        let receipt = self.scope.effect(self.key(name), E::KIND, input).await?;
        self.sign();
        Ok(decode(receipt, E::KIND)?)
    }

    /// A reading of the world that is taken afresh on every attempt; the last one is kept for replay.
    pub async fn observe<T, F>(&self, name: &str, read: F) -> Result<T, NodeError>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, NodeError>> + Send,
    {
        self.reading(name, EntryKind::Observation, read).await
    }

    /// A reading of the world that stays as it was first read, also after a crash: what effects are built from.
    pub async fn pin<T, F>(&self, name: &str, read: F) -> Result<T, NodeError>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, NodeError>> + Send,
    {
        self.reading(name, EntryKind::Pin, read).await
    }

    async fn reading<T, F>(&self, name: &str, kind: EntryKind, read: F) -> Result<T, NodeError>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, NodeError>> + Send,
    {
        let read = async move { Ok(encode(&read.await?, name)?) };
        let value = self.scope.reading(self.key(name), kind, read).await?;
        self.sign();
        Ok(decode(value, name)?)
    }

    /// The time at which the node first asked; the same after a crash and in a replay.
    pub async fn now(&self) -> Result<DateTime<Utc>, NodeError> {
        self.pin("now", async { Ok(self.scope.now()) }).await
    }

    /// Asks a human. Returns the answer, or `Err(Suspended)`, which must be passed on with `?`; the node runs again from its top when
    /// the answer is there.
    pub async fn interrupt<T: Serialize>(&self, question: &T) -> Result<Value, NodeError> {
        self.ask(question, self.interrupt_ttl).await
    }

    /// The same, with its own time until an answer comes too late.
    pub async fn interrupt_within<T: Serialize>(&self, question: &T, ttl: Duration) -> Result<Value, NodeError> {
        self.ask(question, Some(ttl)).await
    }

    /// Asks a human and goes on meanwhile: for a node that watches something as long as the question stands.
    pub async fn pose<T: Serialize>(&self, question: &T, ttl: Duration) -> Result<Posed<'_>, NodeError> {
        let value = encode(question, "interrupt")?;
        let key = self.key("interrupt");
        self.scope.pose(key.clone(), value.clone(), ttl).await?;
        Ok(Posed { cx: self, key, value, ttl })
    }

    async fn ask<T: Serialize>(&self, question: &T, ttl: Option<Duration>) -> Result<Value, NodeError> {
        let value = encode(question, "interrupt")?;
        self.scope_answer(self.key("interrupt"), value, ttl).await
    }

    /// The answer to a question that was posed.
    pub(super) async fn answer_to(
        &self,
        key: JournalKey,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<Value, NodeError> {
        self.scope.learn(&key).await?;
        self.scope_answer(key, value, ttl).await
    }

    async fn scope_answer(&self, key: JournalKey, value: Value, ttl: Option<Duration>) -> Result<Value, NodeError> {
        let answer = self.scope.ask(key, value, ttl).await;
        if matches!(answer, Err(NodeError::Suspended)) {
            self.suspended.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Waits for one of `signals`, or until the time is over, whichever comes first. As with [`Context::interrupt`] the error must be passed
    /// on with `?`: nobody runs while a thread sleeps, and the node runs again from its top afterwards. A length of time counts from when
    /// the node first asked. Each signal wakes one wait.
    pub async fn wait(&self, signals: &[String], until: Until) -> Result<Woken, NodeError> {
        let woken = self.scope.wait(self.key("wait"), signals, until).await;
        if matches!(woken, Err(NodeError::Suspended)) {
            self.suspended.store(true, Ordering::Relaxed);
        }
        woken
    }

    /// Whether one of `signals` has come that no wait has taken. Nothing is recorded: it ends a reading early, [`Context::wait`] takes the
    /// signal afterwards. In a replay nothing ever has.
    pub async fn is_signalled(&self, signals: &[String]) -> Result<bool, NodeError> {
        if self.scope.recorded.is_some() {
            return Ok(false);
        }
        let there = self.scope.store.signals(&self.scope.thread).await?;
        Ok(there.iter().any(|signal| signals.contains(&signal.name)))
    }

    /// Says something to displays and to the record; it is committed with the next step.
    pub fn emit(&self, name: &str, data: Value) {
        self.sign();
        let (ns, node) = (self.ns.clone(), self.node.clone());
        self.scope.later(Event::Custom { ns, node, name: name.to_owned(), data });
    }

    /// Shows a line of progress; not recorded.
    pub fn progress(&self, line: &str) {
        self.sign();
        let (ns, node) = (self.ns.clone(), self.node.clone());
        let event = Event::Custom { ns, node, name: "progress".into(), data: Value::String(line.to_owned()) };
        self.scope.sink.event(&self.scope.thread, self.scope.now(), &event);
    }

    /// Shows a piece of a message that grows, such as the tokens of a language model as they come (LangGraph's stream mode `messages`); not
    /// recorded. All pieces of one message have its `id`.
    pub fn message(&self, id: &str, chunk: &Value) {
        self.sign();
        let (ns, node) = (self.ns.clone(), self.node.clone());
        let data = json!({"id": id, "chunk": chunk, "attempt": self.attempt});
        let event = Event::Custom { ns, node, name: MESSAGE.into(), data };
        self.scope.sink.event(&self.scope.thread, self.scope.now(), &event);
    }

    /// What all threads of the store share: items by namespace and key (LangGraph's `BaseStore`).
    pub fn store(&self) -> Shared<'_> {
        Shared::of(self)
    }

    /// A sign of life, for the node's idle timeout. Everything that is asked of the context is one too.
    pub fn sign(&self) {
        self.scope.vigil.sign(&self.ns, &self.path);
    }

    pub(super) fn key(&self, name: &str) -> JournalKey {
        self.sign();
        let mut ordinals = self.ordinals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = ordinals.entry(name.to_owned()).or_default();
        let ordinal = *next;
        *next += 1;
        JournalKey {
            fork: self.fork,
            ns: self.ns.clone(),
            node: self.node.clone(),
            visit: self.visit,
            send: self.send,
            name: name.to_owned(),
            ordinal,
        }
    }

    /// Fails when the node caught the suspension instead of passing it on: the question would be lost.
    pub(super) fn not_swallowed(&self) -> Result<(), Failure> {
        if !self.suspended.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Failure::new(
            "interrupt_swallowed",
            format!("node `{}` asked, or waited, and went on without what it waited for", self.node),
        )
        .hint("pass the error of `interrupt` and `wait` on with `?`"))
    }
}
