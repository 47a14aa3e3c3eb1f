//! When what a superstep leaves becomes durable. LangGraph's three modes; an effect's intent is durable before it is performed in all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::scope::Scope;
use super::{Checkpoint, CheckpointId, Event, Name, Record, Store, StoreError, Transaction};

/// When checkpoints are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Before the next superstep begins.
    #[default]
    Sync,
    /// While the next superstep runs.
    Async,
    /// When the run ends, waits or asks for an effect; superseded checkpoints are not kept.
    Exit,
}

/// Transactions that wait to be committed; beyond this a run is faster than its disk, and waits.
const MOST_WAITING: usize = 64;

/// Commits in order, beside whoever asks.
pub(super) struct Behind {
    queue: mpsc::Sender<Handed>,
}

/// A transaction, and who waits until it is durable.
type Handed = (Transaction, Option<oneshot::Sender<Result<(), StoreError>>>);

impl Behind {
    /// Begins to commit to `store`. Ends when it is dropped; what was taken by then is still committed.
    pub fn begin(store: Arc<dyn Store>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Handed>(MOST_WAITING);
        tokio::spawn(async move {
            let mut failed: Option<StoreError> = None;
            while let Some((transaction, tell)) = waiting.recv().await {
                // Nothing may be committed behind a gap.
                if failed.is_none() {
                    failed = store.commit(transaction).await.err();
                }
                if let Some(tell) = tell {
                    // Nobody listens any more: the run was dropped.
                    let _ = tell.send(failed.clone().map_or(Ok(()), Err));
                }
            }
        });
        Self { queue }
    }

    /// Hands a transaction over.
    pub async fn send(&self, transaction: Transaction) -> Result<(), StoreError> {
        self.queue.send((transaction, None)).await.map_err(|_| gone())
    }

    /// The same, and waits until it and all before it are durable.
    pub async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        self.queue.send((transaction, Some(tell))).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

fn gone() -> StoreError {
    StoreError::Failed("the task that commits has ended".to_owned())
}

impl Scope {
    /// Commits what a superstep leaves, as soon as the run's durability asks for it. `at`: the time, for whoever has just asked for it.
    pub async fn commit_step(&self, records: Vec<Record>, at: Option<DateTime<Utc>>) -> Result<(), StoreError> {
        match (self.durability, &self.behind) {
            (Durability::Sync, _) | (Durability::Async, None) => self.commit_at(records, at).await,
            (Durability::Async, Some(behind)) => match self.transaction(records, at) {
                Some((transaction, shown)) => {
                    let at = transaction.at;
                    behind.send(transaction).await?;
                    self.show(at, &shown);
                    Ok(())
                }
                None => Ok(()),
            },
            (Durability::Exit, _) => {
                let mut memory = self.memory();
                memory.waiting.extend(records);
                memory.waiting = superseded(std::mem::take(&mut memory.waiting));
                Ok(())
            }
        }
    }

    /// Commits records with the events that wait, then shows the events.
    pub async fn commit(&self, records: Vec<Record>) -> Result<(), StoreError> {
        self.commit_at(records, None).await
    }

    async fn commit_at(&self, records: Vec<Record>, at: Option<DateTime<Utc>>) -> Result<(), StoreError> {
        let Some((transaction, shown)) = self.transaction(records, at) else { return Ok(()) };
        let at = transaction.at;
        match &self.behind {
            None if self.durability == Durability::Exit => self.commit_in_turn(transaction).await?,
            None => self.store.commit(transaction).await?,
            Some(behind) => behind.commit(transaction).await?,
        }
        self.show(at, &shown);
        Ok(())
    }

    /// Whoever commits takes along what waits, checkpoints among it. If that fails, a sibling must not record what it did behind them.
    async fn commit_in_turn(&self, transaction: Transaction) -> Result<(), StoreError> {
        let mut failed = self.turn.lock().await;
        if let Some(error) = &*failed {
            return Err(error.clone());
        }
        let done = self.store.commit(transaction).await;
        *failed = done.clone().err();
        done
    }

    /// Waits until everything that was handed over is durable.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let Some(behind) = &self.behind else { return self.commit(Vec::new()).await };
        let nothing = || {
            (
                Transaction { thread: self.thread.clone(), epoch: self.epoch, at: self.now(), records: Vec::new() },
                Vec::new(),
            )
        };
        let (transaction, shown) = self.transaction(Vec::new(), None).unwrap_or_else(nothing);
        let at = transaction.at;
        behind.commit(transaction).await?;
        self.show(at, &shown);
        Ok(())
    }

    fn show(&self, at: DateTime<Utc>, shown: &[Event]) {
        shown.iter().for_each(|event| self.sink.event(&self.thread, at, event));
    }

    /// What waits and `records` as one transaction, and the events in it; `None` if there is nothing.
    fn transaction(&self, records: Vec<Record>, at: Option<DateTime<Utc>>) -> Option<(Transaction, Vec<Event>)> {
        let mut all = std::mem::take(&mut self.memory().waiting);
        if all.is_empty() {
            all = records;
        } else {
            all.extend(records);
        }
        if all.is_empty() {
            return None;
        }
        if self.durability == Durability::Exit {
            all = superseded(all);
        }
        let at = at.unwrap_or_else(|| self.now());
        let event = |record: &Record| if let Record::Event(event) = record { Some(event.clone()) } else { None };
        let shown: Vec<Event> = if self.sink.looks() { all.iter().filter_map(event).collect() } else { Vec::new() };
        Some((Transaction { thread: self.thread.clone(), epoch: self.epoch, at, records: all }, shown))
    }
}

/// Drops checkpoints that a later one in `records` supersedes, with what belongs to them. The later one goes on from the one before the dropped.
fn superseded(records: Vec<Record>) -> Vec<Record> {
    let mut newest: BTreeMap<Name, (CheckpointId, i64)> = BTreeMap::new();
    let mut before: BTreeMap<Name, Option<CheckpointId>> = BTreeMap::new();
    for record in &records {
        if let Record::Checkpoint(checkpoint) = record {
            before.entry(checkpoint.ns.clone()).or_insert_with(|| checkpoint.parent.clone());
            newest.insert(checkpoint.ns.clone(), (checkpoint.id.clone(), checkpoint.step));
        }
    }
    let stays = |ns: &Name, id: &CheckpointId| newest.get(ns).is_none_or(|(newest, _)| newest == id);
    let kept = records.into_iter().filter_map(|record| match record {
        Record::Checkpoint(checkpoint) if !stays(&checkpoint.ns, &checkpoint.id) => None,
        Record::Checkpoint(checkpoint) => {
            let parent = before.get(&checkpoint.ns).cloned().flatten();
            let same = parent == checkpoint.parent;
            let moved = || Arc::new(Checkpoint { parent: parent.clone(), ..(*checkpoint).clone() });
            Some(Record::Checkpoint(if same { checkpoint } else { moved() }))
        }
        Record::Result { ns, checkpoint, .. } | Record::Attempts { ns, checkpoint, .. } if !stays(&ns, &checkpoint) => {
            None
        }
        Record::Event(Event::Checkpointed { ns, step, .. })
            if newest.get(&ns).is_some_and(|(_, newest)| *newest != step) =>
        {
            None
        }
        other => Some(other),
    });
    kept.collect()
}
