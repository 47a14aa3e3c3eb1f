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

impl Engine {
    /// Accepts a thread and goes on with it until it ends, waits or is asked to stop. The thread is born with its lease: as durable as
    /// [`Engine::create`] and [`Engine::advance`] one after the other, in two transactions less.
    pub async fn invoke(
        &self,
        graph: &Arc<CompiledGraph>,
        new: NewThread,
        how: Advance,
    ) -> Result<(ThreadId, RunEnd), EngineError> {
        // A run that may stop before its first node decides about its status there.
        if !graph.interrupt_before.is_empty() {
            let id = self.create(graph, new).await?;
            let end = self.advance(graph, &id, how).await?;
            return Ok((id, end));
        }
        let (mut thread, first) = self.accepted(graph, new)?;
        (thread.status, thread.owner, thread.epoch) = (ThreadStatus::Running, Some(self.owner.clone()), 1);
        let first = Arc::new(first);
        let advancing = advancing(&self.owner, thread.epoch);
        let records = accepting(&thread, &first).into_iter().chain([Record::Event(advancing.clone())]).collect();
        self.store.create(&thread, records).await?;
        self.sink.event(&thread.id, thread.created_at, &advancing);
        let recall = Recall { latest: Some(first), ..Recall::default() };
        let scope = Arc::new(Scope::new(&thread, self.parts(how, false, None), recall));
        let ended = run_namespace(&scope, graph, Line::ROOT, Map::new()).await;
        let end = finish_run(&scope, ended).await;
        let end = self.let_go(&thread, scope.is_over(), end.map_err(EngineError::from)).await?;
        Ok((thread.id, end))
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
