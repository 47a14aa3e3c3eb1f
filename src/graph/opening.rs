//! How a run begins and ends: the lease is taken with the run's first records and given back with its last ones, so that neither costs
//! a transaction of its own.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::driver::{finish_run, refuse_changed, refuse_over};
use super::namespace::{Line, checkpointed, run_namespace};
use super::scope::Scope;
use super::{
    Advance, Checkpoint, CompiledGraph, Engine, EngineError, Event, Name, NewThread, Opening, Owner, Recall, Record,
    RunEnd, Thread, ThreadEvent, ThreadId, ThreadStatus, core,
};

/// A thread that is kept with its lease: whoever makes it takes it on.
#[derive(Debug, Clone)]
pub struct Born {
    thread: Thread,
    first: Arc<Checkpoint>,
}

impl Born {
    /// Whether threads of a graph can be: a run that may stop before its first node decides about its status there.
    pub fn can(graph: &CompiledGraph) -> bool {
        graph.interrupt_before.is_empty()
    }

    /// Its row.
    pub fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl Engine {
    /// Accepts a thread and goes on with it until it ends, waits or is asked to stop: [`Engine::create`] and [`Engine::advance`] in two
    /// transactions less. Who calls hears of the thread when the run has ended, so accepting it does not wait for the disk by itself: it survives
    /// the death of the process at once, and the loss of power with the run's first commit, before any effect, and after some milliseconds
    /// at the latest. Whoever tells somebody that a run was accepted calls the two. (Who follows the thread's events sees the first ones that much earlier.)
    pub async fn invoke(
        &self,
        graph: &Arc<CompiledGraph>,
        new: NewThread,
        how: Advance,
    ) -> Result<(ThreadId, RunEnd), EngineError> {
        if !Born::can(graph) {
            let id = self.create(graph, new).await?;
            let end = self.advance(graph, &id, how).await?;
            return Ok((id, end));
        }
        let (born, records) = self.born(graph, new)?;
        self.store.create_quietly(&born.thread, records).await?;
        let id = born.thread.id.clone();
        let end = self.take_on(graph, born, how).await?;
        Ok((id, end))
    }

    /// A thread with its lease, and the records with which it is to be kept before [`Engine::take_on`] takes it on. For graphs of which
    /// [`Born::can`] says so.
    pub fn born(&self, graph: &CompiledGraph, new: NewThread) -> Result<(Born, Vec<Record>), EngineError> {
        let (mut thread, first) = self.accepted(graph, new)?;
        (thread.status, thread.owner, thread.epoch) = (ThreadStatus::Running, Some(self.owner.clone()), 1);
        let first = Arc::new(first);
        let advancing = Record::Event(advancing(&self.owner, thread.epoch));
        let records = accepting(&thread, &first).into_iter().chain([advancing]).collect();
        Ok((Born { thread, first }, records))
    }

    /// Goes on with a thread that was kept with its lease, until it ends, waits or is asked to stop.
    pub async fn take_on(&self, graph: &Arc<CompiledGraph>, born: Born, how: Advance) -> Result<RunEnd, EngineError> {
        let Born { thread, first } = born;
        self.sink.event(&thread.id, thread.created_at, &advancing(&self.owner, thread.epoch));
        let recall = Recall { latest: Some(first), ..Recall::default() };
        let scope = Arc::new(Scope::new(&thread, self.parts(how, false, None), recall));
        let ended = run_namespace(&scope, graph, Line::ROOT, Map::new()).await;
        let end = finish_run(&scope, ended).await;
        self.let_go(&thread, scope.is_over(), end.map_err(EngineError::from)).await
    }

    /// A new thread's row and its checkpoint 0.
    pub(super) fn accepted(&self, graph: &CompiledGraph, new: NewThread) -> Result<(Thread, Checkpoint), EngineError> {
        let at = self.clock.now();
        let first = core::start(graph, &Name::default(), None, &new.input, at)?;
        let thread = Thread {
            id: new.id.unwrap_or_else(ThreadId::new),
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
            attendant: new.attendant,
            wake: None,
            imported: None,
            created_at: at,
            updated_at: at,
        };
        Ok((thread, first))
    }

    /// The lease goes back with a run's last records; a run that ended without any gives it back by itself.
    pub(super) async fn let_go(
        &self,
        thread: &Thread,
        is_over: bool,
        end: Result<RunEnd, EngineError>,
    ) -> Result<RunEnd, EngineError> {
        if is_over {
            return end;
        }
        // The result matters more than a lease that could not be given back: its owner's death frees it.
        let released = self.store.release(&thread.id, thread.epoch).await;
        let end = end?;
        released?;
        Ok(end)
    }
}

/// The records that accept a thread.
pub(super) fn accepting(thread: &Thread, first: &Arc<Checkpoint>) -> Vec<Record> {
    let accepted = Event::Accepted { workflow: thread.workflow.clone() };
    vec![Record::Event(accepted), checkpointed(first), Record::Checkpoint(first.clone())]
}

/// What a run says first.
pub(super) fn advancing(owner: &Owner, epoch: u64) -> Event {
    Event::Advancing { owner: owner.to_string(), epoch }
}

/// Whether a run's first records are committed with its lease. A thread that is found `running` has passed the static interrupt it
/// stands at: whoever takes it over goes on. One that begins may have its first stop before its first node, so there the status waits
/// for that decision. A run that is refused, or that goes on undoing, has no such records.
pub(super) fn begins_at_once(graph: &CompiledGraph, thread: &Thread, replays: bool) -> bool {
    let refused = refuse_changed(graph, thread).is_err()
        || refuse_over(thread).is_err()
        || thread.status.on(ThreadEvent::Advance).is_err()
        || (thread.status == ThreadStatus::Succeeded && !replays);
    let decides = thread.status == ThreadStatus::Pending && !graph.interrupt_before.is_empty();
    !refused && !decides && thread.unwinding.is_none()
}

/// A run's first records.
pub(super) fn first_records(owner: &Owner, epoch: u64, answers: u64) -> Vec<Record> {
    vec![
        Record::Event(advancing(owner, epoch)),
        Record::Seen(answers),
        Record::Status { status: ThreadStatus::Running, failure: None, unwinding: None },
    ]
}

/// What is committed with the lease.
pub(super) fn opening(graph: &Arc<CompiledGraph>, owner: &Owner, replays: bool) -> Opening {
    let (graph, owner) = (graph.clone(), owner.clone());
    Box::new(move |thread, answers| {
        if begins_at_once(&graph, thread, replays) { first_records(&owner, thread.epoch, answers) } else { Vec::new() }
    })
}
