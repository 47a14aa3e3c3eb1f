//! What people do to a run's state: look at it, change it, give it new input, branch off, send it a signal.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::App;
use super::runner::spawn_detached;
use super::stops::needs_host;
use crate::graph::{
    Advance, Checkpoint, CheckpointId, CompiledGraph, Export, Failure, RunEnd, Signal, Source, StateSnapshot,
    StateUpdate, Stop, Thread, ThreadId, ThreadStatus,
};
use crate::store::{Prune, Pruned};
use crate::workflow::{ResolvedWorkflow, accept_input};

/// Pause between two looks at a run that sleeps.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which of a run's checkpoints; LangGraph's `filter`, `before` and `limit`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// At most this many.
    pub limit: Option<usize>,
    /// Only those older than this one: its id, or the beginning of it.
    pub before: Option<String>,
    /// Only those that came to be in this way.
    pub source: Option<Source>,
}

impl App {
    /// The state of a run: as it is, or as it was at a checkpoint (its id, or the beginning of it).
    pub async fn state(&self, id: &ThreadId, checkpoint: Option<&str>) -> Result<StateSnapshot, Failure> {
        let graph = self.graph_of(&self.thread(id).await?)?;
        match checkpoint {
            None => self.engine().state(&graph, id).await,
            Some(meant) => {
                let checkpoint = self.find_checkpoint(id, meant).await?;
                self.engine().state_at(&graph, id, &checkpoint).await
            }
        }
        .map_err(|e| e.failure())
    }

    /// The root's checkpoints that `which` names, newest first.
    pub async fn history(&self, id: &ThreadId, which: &HistoryFilter) -> Result<Vec<Checkpoint>, Failure> {
        let mut history = self.checkpoints(id).await?;
        if let Some(before) = &which.before {
            let before = self.find_checkpoint(id, before).await?;
            let at = history.iter().position(|c| c.id == before).map_or(0, |at| at + 1);
            history.drain(..at);
        }
        history.retain(|c| which.source.is_none_or(|source| source == c.source));
        history.truncate(which.limit.unwrap_or(usize::MAX));
        Ok(history)
    }

    /// The root's checkpoints, newest first.
    pub async fn checkpoints(&self, id: &ThreadId) -> Result<Vec<Checkpoint>, Failure> {
        let mut history = self.store.history(id, "").await.map_err(|e| e.failure())?;
        history.reverse();
        Ok(history)
    }

    async fn find_checkpoint(&self, id: &ThreadId, meant: &str) -> Result<CheckpointId, Failure> {
        let history = self.checkpoints(id).await?;
        let exact = history.iter().find(|c| c.id.as_str() == meant);
        let mut begins = history.iter().filter(|c| meant.len() >= 6 && c.id.as_str().starts_with(meant));
        let found = exact.or_else(|| begins.next());
        if exact.is_none() && begins.next().is_some() {
            return Err(Failure::new("checkpoint_ambiguous", format!("several checkpoints begin with `{meant}`"))
                .hint("write more of the id"));
        }
        found.map(|c| c.id.clone()).ok_or_else(|| {
            Failure::new("no_checkpoint", format!("run {id} has no checkpoint `{meant}`"))
                .hint(format!("`tidegate run history {id}` lists them"))
        })
    }

    /// Changes a run's state as if `as_node` had written it: its edges say what is due next.
    pub async fn update(&self, id: &ThreadId, values: &Map<String, Value>, as_node: &str) -> Result<(), Failure> {
        let graph = self.changeable(&self.thread(id).await?)?;
        self.engine().update(&graph, id, values, as_node).await.map_err(|e| e.failure())
    }

    /// Changes a run's state in several supersteps, each by several updates, all or none.
    pub async fn bulk_update(&self, id: &ThreadId, supersteps: &[Vec<StateUpdate>]) -> Result<(), Failure> {
        let graph = self.changeable(&self.thread(id).await?)?;
        self.engine().bulk_update(&graph, id, supersteps).await.map_err(|e| e.failure())
    }

    /// Branches a run off one of its checkpoints; the branch's first checkpoint.
    pub async fn fork(
        &self,
        id: &ThreadId,
        checkpoint: &str,
        values: &Map<String, Value>,
        as_node: Option<&str>,
    ) -> Result<CheckpointId, Failure> {
        let graph = self.changeable(&self.thread(id).await?)?;
        let from = self.find_checkpoint(id, checkpoint).await?;
        self.engine().fork(&graph, id, &from, values, as_node).await.map_err(|e| e.failure())
    }

    /// New input to a run that has a past: its graph begins anew on the state that it has. The workflow must be the one it began with.
    pub async fn input(
        &self,
        id: &ThreadId,
        workflow: &ResolvedWorkflow,
        input: Map<String, Value>,
    ) -> Result<(), Failure> {
        let thread = self.thread(id).await?;
        self.changeable(&thread)?;
        if thread.document != workflow.document {
            let message =
                format!("run {id} began with another workflow, or with another version of `{}`", workflow.name);
            return Err(Failure::new("workflow_changed", message)
                .hint("use the file that it began with, or another `--thread`"));
        }
        self.input_again(id, input).await
    }

    /// The same, whatever has become of the workflow: a run goes on with the one it began with.
    pub async fn input_again(&self, id: &ThreadId, input: Map<String, Value>) -> Result<(), Failure> {
        let thread = self.thread(id).await?;
        let graph = self.changeable(&thread)?;
        let input = accept_input(&thread.document, input)?;
        self.attend(id).await?;
        self.engine().input(&graph, id, &input).await.map_err(|e| e.failure())
    }

    fn changeable(&self, thread: &Thread) -> Result<Arc<CompiledGraph>, Failure> {
        if needs_host(thread) {
            let message = format!("the state of run {} cannot be changed from outside: it releases a model", thread.id);
            return Err(Failure::new("release_thread", message)
                .because("its checks and approvals belong to the state that they were made on")
                .hint("cancel it and release again, or roll back"));
        }
        self.graph_of(thread)
    }

    /// Leaves a signal for a run and sees to it that somebody goes on with it; the signal's number.
    pub async fn signal(&self, id: &ThreadId, name: &str, value: Value, by: &str) -> Result<u64, Failure> {
        let thread = self.thread(id).await?;
        if thread.status.is_terminal() {
            let message = format!("run {id} has ended: it is {}", thread.status.word());
            return Err(Failure::new("thread_over", message).hint("nothing in it waits for a signal any more"));
        }
        let signal = Signal { seq: 0, name: name.to_owned(), value, by: by.to_owned(), at: Utc::now() };
        let seq = self.store.signal(id, &signal).await.map_err(|e| e.failure())?;
        let cared_for = |owner: &Option<crate::graph::Owner>| owner.as_ref().is_some_and(|owner| self.is_alive(owner));
        let thread = self.thread(id).await?;
        if !thread.status.is_terminal() && !cared_for(&thread.owner) && !cared_for(&thread.attendant) {
            spawn_detached(self.home())?;
        }
        Ok(seq)
    }

    /// Advances a run to its end or a question, and waits in between as long as it sleeps. `how.stop` ends the wait too: held, it then waits
    /// for a person.
    pub async fn advance_through(&self, id: &ThreadId, how: Advance) -> Result<RunEnd, Failure> {
        loop {
            let end = self.advance_approved(id, how.clone()).await?;
            if end.status != ThreadStatus::Sleeping {
                return Ok(end);
            }
            if let Some(end) = self.slept(id, &how.stop).await? {
                return Ok(end);
            }
        }
    }

    /// Waits until a sleeping run is due; otherwise how it ended, by whoever.
    async fn slept(&self, id: &ThreadId, stop: &watch::Receiver<Stop>) -> Result<Option<RunEnd>, Failure> {
        // It goes on with the run should this process be killed meanwhile.
        spawn_detached(self.home())?;
        loop {
            let thread = self.thread(id).await?;
            let elsewhere = thread.owner.as_ref().is_some_and(|owner| *owner != self.owner && self.is_alive(owner));
            if thread.status != ThreadStatus::Sleeping && !elsewhere {
                return Ok(Some(RunEnd { status: thread.status, failure: thread.failure }));
            }
            let asked = *stop.borrow();
            match asked {
                Stop::No if !elsewhere && self.is_due(&thread).await? => return Ok(None),
                Stop::No => {}
                Stop::Drain => return Ok(Some(RunEnd { status: ThreadStatus::Running, failure: None })),
                Stop::Hold | Stop::Cancel => {
                    self.engine().hold(id).await.map_err(|e| e.failure())?;
                    return Ok(Some(RunEnd { status: ThreadStatus::Running, failure: None }));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Drops checkpoints but the `keep` newest, and whole runs that ended longer ago than `ended`; of one run, or of all but those of
    /// releases. The audit and the ledger stay.
    pub async fn prune(
        &self,
        thread: Option<ThreadId>,
        keep: Option<usize>,
        ended: Option<Duration>,
        dry_run: bool,
    ) -> Result<Pruned, Failure> {
        let age = ended.map(|age| chrono::Duration::from_std(age).unwrap_or(chrono::Duration::MAX));
        let ended_before = age.map(|age| Utc::now().checked_sub_signed(age).unwrap_or(chrono::DateTime::UNIX_EPOCH));
        let what = Prune { thread, keep, ended_before, dry_run, ..Prune::default() };
        self.sqlite.prune(&what).await.map_err(|e| e.failure())
    }

    /// Keeps a record that was made elsewhere: it can be looked at, replayed and exported, and is advanced by nobody here. Its release's row
    /// is not in it: what serves here is this home's own.
    pub async fn import(&self, export: Export, by: &str) -> Result<(), Failure> {
        self.sqlite.import(Arc::new(export), by, Utc::now()).await.map_err(|e| e.failure())
    }

    /// Gives the database's unused room back to the disk.
    pub async fn vacuum(&self) -> Result<(), Failure> {
        self.sqlite.vacuum().await.map_err(|e| e.failure())
    }

    /// Whether a run that waits must be gone on with: its time is over, or a signal has come.
    pub async fn is_due(&self, thread: &Thread) -> Result<bool, Failure> {
        let over = thread.wake.as_ref().is_some_and(|alarm| {
            let (now, uptime) = (self.clock.now(), self.clock.uptime());
            alarm.remaining(now, uptime.as_ref()).is_zero()
        });
        let waits = matches!(thread.status, ThreadStatus::Sleeping | ThreadStatus::Interrupted);
        Ok(waits && (over || self.store.inbox(&thread.id).await.map_err(|e| e.failure())?.signalled))
    }
}
