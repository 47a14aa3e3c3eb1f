//! What people do to a thread's state from outside: change it, give it new input, go back and branch off.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::driver::{latest, refuse_changed, refuse_over};
use super::namespace::checkpointed;
use super::{
    Checkpoint, CheckpointId, CompiledGraph, Engine, EngineError, Event, Failure, Name, Record, StateSnapshot,
    StateUpdate, Thread, ThreadId, ThreadStatus, Transaction,
};
use super::{change, core};

/// Most updates in one transaction: it is held in memory as a whole.
const MOST_UPDATES: usize = 1_000;

impl Engine {
    /// Changes the state, as if `as_node` had written it (LangGraph's `update_state`).
    pub async fn update(
        &self,
        graph: &CompiledGraph,
        id: &ThreadId,
        values: &Map<String, Value>,
        as_node: &str,
    ) -> Result<(), EngineError> {
        let update = StateUpdate::new(values.clone(), as_node);
        self.bulk_update(graph, id, &[vec![update]]).await
    }

    /// Changes the state in several supersteps, in each of them by several updates at once, all or none (LangGraph's
    /// `bulk_update_state`). Each superstep leaves a checkpoint.
    pub async fn bulk_update(
        &self,
        graph: &CompiledGraph,
        id: &ThreadId,
        supersteps: &[Vec<StateUpdate>],
    ) -> Result<(), EngineError> {
        let many = supersteps.iter().map(Vec::len).sum::<usize>().max(supersteps.len());
        if supersteps.is_empty() || supersteps.iter().any(Vec::is_empty) || many > MOST_UPDATES {
            let failure = Failure::new("bad_updates", "a bulk update needs supersteps with updates in them");
            let failure = failure.because(format!("{} supersteps, {many} updates", supersteps.len()));
            return Err(failure
                .hint(format!("a list of lists of updates, none of them empty, {MOST_UPDATES} at most"))
                .into());
        }
        let thread = self.store.acquire(id, &self.owner).await?;
        let changed = async {
            refuse_over(&thread)?;
            let mut before = latest(&*self.store, id).await?;
            let partial = self.store.partial(id, "", &before.id).await?;
            let mut finished = partial.results;
            let mut all = Vec::with_capacity(supersteps.len());
            for updates in supersteps {
                let next = change::update(graph, &before, &finished, updates, self.clock.now())?;
                finished.clear();
                before.clone_from(&next);
                all.push(next);
            }
            self.put(graph, &thread, all, Vec::new()).await
        };
        let changed = changed.await;
        let released = self.store.release(id, thread.epoch).await;
        released.map_err(EngineError::from).and(changed)
    }

    /// Gives new input to a thread that has a past: it is applied to the state and the graph begins anew. What was due, or asked, before
    /// is not any more, and what was done before is not undone any more.
    pub async fn input(
        &self,
        graph: &CompiledGraph,
        id: &ThreadId,
        input: &Map<String, Value>,
    ) -> Result<(), EngineError> {
        let thread = self.store.acquire(id, &self.owner).await?;
        let given = async {
            refuse_over(&thread)?;
            let before = latest(&*self.store, id).await?;
            let next = core::start(graph, &Name::default(), Some(&before), input, self.clock.now())?;
            let done = self.store.journal(id).await?.iter().map(|entry| entry.seq).max().unwrap_or(0);
            // Accepted and not begun, like a new thread: no node that is due has been stopped before, whoever takes it on.
            let status = if next.ended() { ThreadStatus::Succeeded } else { ThreadStatus::Pending };
            self.put_as(status, graph, &thread, vec![next], vec![Record::CommitPoint(done)]).await
        };
        let given = given.await;
        let released = self.store.release(id, thread.epoch).await;
        released.map_err(EngineError::from).and(given)
    }

    /// Goes back to a checkpoint of the root and branches off it, with `values` applied. What `as_node`'s edges lead to is due then,
    /// without it what was due there. The branch owns none of what was done before (none of it is undone by its failure) and inherits no
    /// answer; its own effects are new ones. Returns the branch's first checkpoint.
    pub async fn fork(
        &self,
        graph: &CompiledGraph,
        id: &ThreadId,
        from: &CheckpointId,
        values: &Map<String, Value>,
        as_node: Option<&str>,
    ) -> Result<CheckpointId, EngineError> {
        let thread = self.store.acquire(id, &self.owner).await?;
        let forked = async {
            let history = self.store.history(id, "").await?;
            let number = history.iter().map(|c| c.fork).max().unwrap_or(0) + 1;
            let from = history.iter().find(|c| c.id == *from).ok_or_else(|| no_checkpoint(id, from.as_str()))?;
            let next = change::fork(graph, from, number, values, as_node, self.clock.now())?;
            let done = self.store.journal(id).await?.iter().map(|entry| entry.seq).max().unwrap_or(0);
            let forked = next.id.clone();
            let event = Event::Forked { from: from.id.clone(), fork: number };
            let records = vec![Record::CommitPoint(done), Record::Undone(false), Record::Event(event)];
            self.put(graph, &thread, vec![next], records).await?;
            Ok(forked)
        };
        let forked = forked.await;
        let released = self.store.release(id, thread.epoch).await;
        released.map_err(EngineError::from).and(forked)
    }

    /// Makes a thread that sleeps wait for a person: neither its timer nor a runner goes on with it until somebody resumes it.
    pub async fn hold(&self, id: &ThreadId) -> Result<(), EngineError> {
        let thread = self.store.acquire(id, &self.owner).await?;
        let held = async {
            if thread.status != ThreadStatus::Sleeping {
                return Ok(());
            }
            let status = ThreadStatus::Interrupted;
            let records = vec![
                Record::Sleeps { wake: None, listens: BTreeSet::new() },
                Record::Status { status, failure: None, unwinding: None },
                Record::Event(Event::StatusChanged { status, failure: None }),
            ];
            let at = self.clock.now();
            let transaction = Transaction { thread: id.clone(), epoch: thread.epoch, at, records };
            self.store.commit(transaction).await.map_err(EngineError::from)
        };
        let held = held.await;
        let released = self.store.release(id, thread.epoch).await;
        released.map_err(EngineError::from).and(held)
    }

    /// The thread as it stood at a checkpoint of the root.
    pub async fn state_at(
        &self,
        graph: &CompiledGraph,
        id: &ThreadId,
        checkpoint: &CheckpointId,
    ) -> Result<StateSnapshot, EngineError> {
        let now = self.state(graph, id).await?;
        if now.checkpoint.id == *checkpoint {
            return Ok(now);
        }
        let history = self.store.history(id, "").await?;
        let then = history.into_iter().find(|c| c.id == *checkpoint);
        let then = then.ok_or_else(|| no_checkpoint(id, checkpoint.as_str()))?;
        let seen = core::look(graph, &then, &[]);
        Ok(StateSnapshot { checkpoint: then, values: seen.values, next: seen.next, interrupts: Vec::new(), ..now })
    }

    /// Makes the last of `line` the thread's newest checkpoint; what was asked before is withdrawn.
    async fn put(
        &self,
        graph: &CompiledGraph,
        thread: &Thread,
        line: Vec<Checkpoint>,
        records: Vec<Record>,
    ) -> Result<(), EngineError> {
        let ended = line.last().is_some_and(Checkpoint::ended);
        let status = if ended { ThreadStatus::Succeeded } else { ThreadStatus::Interrupted };
        self.put_as(status, graph, thread, line, records).await
    }

    async fn put_as(
        &self,
        status: ThreadStatus,
        graph: &CompiledGraph,
        thread: &Thread,
        line: Vec<Checkpoint>,
        mut records: Vec<Record>,
    ) -> Result<(), EngineError> {
        refuse_changed(graph, thread)?;
        if thread.unwinding.is_some() {
            let message = format!("thread {} is being undone: its state cannot be changed", thread.id);
            return Err(Failure::new("thread_unwinding", message).hint("resume or cancel it").into());
        }
        let Some(last) = line.last() else { return Ok(()) };
        let at = last.at;
        records.push(Record::Withdraw { ns: Name::default() });
        records.push(Record::Sleeps { wake: None, listens: BTreeSet::new() });
        records.extend(line.iter().map(checkpointed));
        records.push(Record::Status { status, failure: None, unwinding: None });
        records.extend(line.into_iter().map(|next| Record::Checkpoint(Arc::new(next))));
        let transaction = Transaction { thread: thread.id.clone(), epoch: thread.epoch, at, records };
        Ok(self.store.commit(transaction).await?)
    }
}

fn no_checkpoint(id: &ThreadId, checkpoint: &str) -> EngineError {
    let failure = Failure::new("no_checkpoint", format!("thread {id} has no checkpoint {checkpoint}"));
    failure.hint(format!("`tidegate run history {id}` lists them")).into()
}
