//! Side effects that happen once in the record: intent before, receipt after, probe for the gap, undo for the saga.
//!
//! The shape follows Steno's do/undo actions; the probe is what a crash between performing and recording needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, ThreadId};

/// What an effect may know about its place.
#[derive(Clone)]
pub struct EffectCx {
    /// Idempotency key: the same for every repetition of this effect in this thread.
    pub token: String,
    /// The thread.
    pub thread: ThreadId,
    /// The lease epoch of the thread's owner: what a fenced world checks.
    pub epoch: u64,
    /// Why it is undone, or probed to be undone; `None` while performing, or probing to go on.
    pub reason: Option<Failure>,
    /// How the attempt before failed, while probing; `None` where nobody saw its end.
    pub failed: Option<Failure>,
    /// Where to say what is going on.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe<R> {
    /// It happened; this is its receipt.
    Done(R),
    /// It did not happen, or nothing is left of it.
    NotDone,
    /// It cannot be told; a person must look.
    Unknown(String),
}

/// One kind of side effect. Its value is the input, stored in the journal; secrets do not belong into it.
#[async_trait]
pub trait Effect: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind's name in the journal.
    const KIND: &'static str;
    /// What it acts on: a port.
    type World: ?Sized + Send + Sync + 'static;
    /// What is kept of it.
    type Receipt: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Does it. May be called again with the same token after a crash or a failure.
    async fn perform(&self, world: &Self::World, cx: &EffectCx) -> Result<Self::Receipt, Failure>;
    /// Whether it happened. Called when an intent has no receipt.
    async fn probe(&self, world: &Self::World, cx: &EffectCx) -> Result<Probe<Self::Receipt>, Failure>;
    /// Takes it back. May be called again after a crash.
    async fn undo(&self, world: &Self::World, receipt: &Self::Receipt, cx: &EffectCx) -> Result<(), Failure>;
}

/// The kinds of effects that a process can perform, each bound to its world.
#[derive(Clone, Default)]
pub struct Effects {
    kinds: BTreeMap<&'static str, Arc<dyn ErasedEffect>>,
}

impl Effects {
    /// No effects: any use of one is an error.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind with the world it acts on.
    #[must_use]
    pub fn with<E: Effect>(mut self, world: Arc<E::World>) -> Self {
        let before = self.kinds.insert(E::KIND, Arc::new(Bound::<E> { world }));
        assert!(before.is_none(), "effect kind {} is bound twice", E::KIND);
        self
    }

    pub(super) fn get(&self, kind: &str) -> Result<&Arc<dyn ErasedEffect>, Failure> {
        self.kinds.get(kind).ok_or_else(|| {
            Failure::new("effect_unavailable", format!("this process cannot perform effects of kind `{kind}`"))
                .hint("use a binary of the version that began the thread")
        })
    }
}

/// An effect kind with its types erased.
#[async_trait]
pub(super) trait ErasedEffect: Send + Sync {
    async fn perform(&self, input: Value, cx: &EffectCx) -> Result<Value, Failure>;
    async fn probe(&self, input: Value, cx: &EffectCx) -> Result<Probe<Value>, Failure>;
    async fn undo(&self, input: Value, receipt: Value, cx: &EffectCx) -> Result<(), Failure>;
}

struct Bound<E: Effect> {
    world: Arc<E::World>,
}

#[async_trait]
impl<E: Effect> ErasedEffect for Bound<E> {
    async fn perform(&self, input: Value, cx: &EffectCx) -> Result<Value, Failure> {
        let effect: E = decode(input, E::KIND)?;
        encode(&effect.perform(&self.world, cx).await?, E::KIND)
    }

    async fn probe(&self, input: Value, cx: &EffectCx) -> Result<Probe<Value>, Failure> {
        let effect: E = decode(input, E::KIND)?;
        Ok(match effect.probe(&self.world, cx).await? {
            Probe::Done(receipt) => Probe::Done(encode(&receipt, E::KIND)?),
            Probe::NotDone => Probe::NotDone,
            Probe::Unknown(why) => Probe::Unknown(why),
        })
    }

    async fn undo(&self, input: Value, receipt: Value, cx: &EffectCx) -> Result<(), Failure> {
        let effect: E = decode(input, E::KIND)?;
        let receipt: E::Receipt = decode(receipt, E::KIND)?;
        effect.undo(&self.world, &receipt, cx).await
    }
}

pub(super) fn encode<T: Serialize>(value: &T, what: &str) -> Result<Value, Failure> {
    serde_json::to_value(value)
        .map_err(|e| Failure::new("not_json", format!("a value of `{what}` is not JSON")).because(e.to_string()))
}

pub(super) fn decode<T: DeserializeOwned>(value: Value, what: &str) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|e| {
        Failure::new("journal_mismatch", format!("what the journal holds for `{what}` cannot be read"))
            .because(e.to_string())
            .hint("use a binary of the version that began the thread")
    })
}
