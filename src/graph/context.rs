//! What a node may ask of the engine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::effect::{decode, encode};
use super::journal::EntryKind;
use super::scope::Scope;
use super::{Effect, Event, Failure, JournalKey, Name, NodeError, Task, ThreadId};

/// A node's way to the world. Everything goes through the journal, so that a node that runs again from its top does nothing twice.
pub struct Context {
    scope: Arc<Scope>,
    ns: Name,
    node: Name,
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
        ns: &Name,
        task: &Task,
        attempt: u32,
        interrupt_ttl: Option<Duration>,
    ) -> Self {
        Self {
            scope,
            ns: ns.clone(),
            node: task.node.clone(),
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

    async fn ask<T: Serialize>(&self, question: &T, ttl: Option<Duration>) -> Result<Value, NodeError> {
        let value = encode(question, "interrupt")?;
        let answer = self.scope.ask(self.key("interrupt"), value, ttl).await;
        if matches!(answer, Err(NodeError::Suspended)) {
            self.suspended.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Says something to displays and to the record; it is committed with the next step.
    pub fn emit(&self, name: &str, data: Value) {
        let (ns, node) = (self.ns.clone(), self.node.clone());
        self.scope.later(Event::Custom { ns, node, name: name.to_owned(), data });
    }

    /// Shows a line of progress; not recorded.
    pub fn progress(&self, line: &str) {
        let (ns, node) = (self.ns.clone(), self.node.clone());
        let event = Event::Custom { ns, node, name: "progress".into(), data: Value::String(line.to_owned()) };
        self.scope.sink.event(&self.scope.thread, self.scope.now(), &event);
    }

    fn key(&self, name: &str) -> JournalKey {
        let mut ordinals = self.ordinals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = ordinals.entry(name.to_owned()).or_default();
        let ordinal = *next;
        *next += 1;
        JournalKey {
            fork: 0,
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
            format!("node `{}` asked a question and went on without the answer", self.node),
        )
        .hint("pass the error of `interrupt` on with `?`"))
    }
}
