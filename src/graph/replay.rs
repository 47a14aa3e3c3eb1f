//! Replay: run a record again without touching the world. Effects, readings and answers come from the record; every checkpoint must come
//! out as recorded, and the first difference is an error with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};

use super::journal::{Entry, EntryStatus, JournalKey, digest};
use super::visit::entered;
use super::{
    Advance, Checkpoint, CheckpointId, CompiledGraph, Effects, Engine, EngineError, Export, Failure, Interrupt,
    InterruptId, MemoryStore, Name, NewThread, NodeError, Owner, Persistence, RunEnd, Source, Task, ThreadStatus,
};

/// How a subgraph that has checkpoints may keep them.
const INNER: [Persistence; 2] = [Persistence::Invocation, Persistence::Thread];

/// The record, indexed.
pub(super) struct Recorded {
    entries: BTreeMap<JournalKey, Entry>,
    interrupts: BTreeMap<InterruptId, Interrupt>,
    checkpoints: BTreeMap<(Name, i64), Checkpoint>,
    /// Why it failed, or why it was being undone.
    failure: Option<Failure>,
    status: ThreadStatus,
    /// The root's highest step that came out as recorded.
    reached: AtomicI64,
}

/// What a replay does at a checkpoint instead of the next superstep.
pub(super) enum Instead {
    /// Somebody changed the state here: nothing computes that, so the record is taken as it is.
    Adopt(Box<Checkpoint>),
    /// The recorded run was out of steps here, or out of time for one.
    OutOfSteps(Failure),
}

/// Replays an export with the graph that its document describes. `Ok`: every state and route came out as recorded.
pub async fn replay(graph: &Arc<CompiledGraph>, export: &Export) -> Result<RunEnd, EngineError> {
    if graph.fingerprint() != export.thread.fingerprint || graph.node_versions() != export.thread.node_versions {
        return Err(changed_graph(graph, export));
    }
    replay_with(graph, export).await
}

/// Replays an export with another graph: would it have gone the same way? The first difference is the error.
pub async fn replay_with(graph: &Arc<CompiledGraph>, export: &Export) -> Result<RunEnd, EngineError> {
    if export.format != super::export::FORMAT {
        let failure =
            Failure::new("export_format", format!("this is not an export that can be replayed: `{}`", export.format));
        return Err(failure.hint(format!("it must be `{}`", super::export::FORMAT)).into());
    }
    let recorded = Arc::new(Recorded::new(export));
    recorded.begins(export)?;
    questions_fit(export)?;
    let Value::Object(input) = export.thread.input.clone() else {
        return Err(Failure::new("export_damaged", "the export's input is no object").into());
    };
    let owner = Owner { pid: 0, start_ticks: 0, boot_id: String::new(), nonce: 0, label: "replay".into() };
    let engine = Engine::new(Arc::new(MemoryStore::default()), Effects::new(), owner);
    let new = NewThread { id: Some(export.thread.id.clone()), document: Value::Null, input, ..NewThread::default() };
    let id = engine.create(graph, new).await?;
    if let Some(first) = engine.store.latest(&id, "").await? {
        recorded.checkpoint(&first).map_err(as_refusal)?;
    }
    let how = Advance { recursion_limit: u32::MAX, ..Advance::default() };
    let end = engine.drive(graph, &id, how, Some(recorded.clone())).await?;
    if let (ThreadStatus::Stuck, Some(failure)) = (end.status, &end.failure)
        && export.thread.status != ThreadStatus::Stuck
    {
        return Err(failure.clone().into());
    }
    recorded.end(&end)?;
    // Last: where running the graph tells a difference, it tells more about it.
    export.is_sealed()?;
    Ok(end)
}

fn changed_graph(graph: &CompiledGraph, export: &Export) -> EngineError {
    let now = graph.node_versions();
    let differs: Vec<String> = export
        .thread
        .node_versions
        .iter()
        .filter(|(kind, version)| now.get(*kind) != Some(version))
        .map(|(kind, version)| format!("node type `{kind}`: recorded with version {version}, here {:?}", now.get(kind)))
        .collect();
    let why = if differs.is_empty() {
        "the workflow's nodes, edges or channels differ".to_owned()
    } else {
        differs.join("; ")
    };
    Failure::new("replay_diverged", "the record was made with another graph")
        .because(why)
        .hint("replay it with the binary and workflow that made it")
        .into()
}

/// Each question is this thread's, its id follows from its place and its digest from what was asked: an answer is bound to both.
pub(super) fn questions_fit(export: &Export) -> Result<(), Failure> {
    let thread = &export.thread.id;
    for asked in &export.interrupts {
        let then = json!({"thread": asked.thread, "id": asked.id, "digest": asked.digest});
        let id = asked.key.interrupt_id(thread);
        let now = json!({"thread": thread, "id": id, "digest": digest(&asked.value)});
        if then != now {
            return Err(as_failure(diverged(&asked.key.place(), &then, &now)));
        }
    }
    Ok(())
}

fn as_refusal(error: NodeError) -> EngineError {
    match error {
        NodeError::Diverged(failure) | NodeError::Failed(failure) | NodeError::Stuck(failure) => failure.into(),
        NodeError::Store(error) => error.into(),
        other => Failure::new("replay_diverged", other.to_string()).into(),
    }
}

/// The first place in which two values differ, with what is there.
fn first_difference<'v>(path: String, then: &'v Value, now: &'v Value) -> (String, &'v Value, &'v Value) {
    match (then, now) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys());
            let differs = keys.into_iter().find(|key| a.get(*key) != b.get(*key));
            let Some(key) = differs else { return (path, then, now) };
            first_difference(
                format!("{path}.{key}"),
                a.get(key).unwrap_or(&Value::Null),
                b.get(key).unwrap_or(&Value::Null),
            )
        }
        (Value::Array(a), Value::Array(b)) => {
            let at = (0..a.len().max(b.len())).find(|at| a.get(*at) != b.get(*at));
            let Some(at) = at else { return (path, then, now) };
            first_difference(
                format!("{path}[{at}]"),
                a.get(at).unwrap_or(&Value::Null),
                b.get(at).unwrap_or(&Value::Null),
            )
        }
        _ => (path, then, now),
    }
}

fn diverged(place: &str, recorded: &Value, now: &Value) -> NodeError {
    let (path, recorded, now) = first_difference("$".to_owned(), recorded, now);
    NodeError::Diverged(
        Failure::new("replay_diverged", format!("the replay leaves the record at {place}"))
            .because(format!("at {path}\nrecorded: {recorded}\nnow:      {now}"))
            .hint("a node or the workflow has changed since the record was made, or a node is not deterministic"),
    )
}

impl Recorded {
    fn new(export: &Export) -> Self {
        let key = |c: &Checkpoint| (c.ns.clone(), c.step);
        Self {
            entries: export.journal.iter().map(|e| (e.key.clone(), e.clone())).collect(),
            interrupts: export.interrupts.iter().map(|i| (i.id.clone(), i.clone())).collect(),
            checkpoints: lineage(&export.checkpoints).map(|c| (key(c), c.clone())).collect(),
            failure: export.thread.unwinding.as_ref().map(|u| &u.failure).or(export.thread.failure.as_ref()).cloned(),
            status: export.thread.status,
            reached: AtomicI64::new(-1),
        }
    }

    /// Whether the record goes on from here in a way that running the graph does not give.
    pub fn instead(&self, here: &Checkpoint) -> Option<Instead> {
        match self.checkpoints.get(&(here.ns.clone(), here.step + 1)) {
            // Inside a subgraph it is the next visit's input, which is computed.
            Some(next) if next.source != Source::Loop && here.ns.is_empty() => {
                Some(Instead::Adopt(Box::new(Checkpoint { parent: Some(here.id.clone()), ..next.clone() })))
            }
            Some(_) => None,
            None if self.after(here).is_some() => None,
            None => self.out_of_steps(here).map(Instead::OutOfSteps),
        }
    }

    /// What subgraphs that keep their state had come to when a change from outside left them: their next visits begin with it, and no replay runs
    /// those that were left.
    pub fn left_behind(&self, here: &Checkpoint, update: &Checkpoint) -> impl Iterator<Item = &Checkpoint> {
        let begun = |task: &&Task| self.entries.contains_key(&entered(here, task));
        let inside = here.frontier.iter().filter(begun).map(|task| task.inner_ns("", here.fork, Persistence::Thread));
        inside.flat_map(move |own| {
            let is_of =
                move |ns: &Name| ns.strip_prefix(&*own).is_some_and(|rest| rest.is_empty() || rest.starts_with('|'));
            // Ids are in order of time.
            self.checkpoints.values().filter(move |c| is_of(&c.ns) && c.id <= update.id)
        })
    }

    /// Whether a subgraph never went on from the static interrupt that it stands at here: a sibling's failure ended the run meanwhile.
    pub fn rests_at(&self, here: &Checkpoint) -> bool {
        let inside = |place: &str| place.strip_prefix(&*here.ns).is_some_and(|rest| rest.starts_with('|'));
        let begun = |key: &JournalKey| {
            let is = |task: &Task| task.node == key.node && task.visit == key.visit && task.send() == key.send;
            let is_of = |task: &Task| {
                INNER.iter().any(|kind| {
                    let rest = key.ns.strip_prefix(&task.inner_ns(&here.ns, here.fork, *kind));
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
                })
            };
            here.frontier.iter().any(|task| (key.ns == here.ns && is(task)) || is_of(task))
        };
        self.status == ThreadStatus::Failed
            && !here.ns.is_empty()
            && self.after(here).is_none()
            // Behind its last node nothing of its own says so, but the superstep around it, which has not ended.
            && (!here.ended() || self.was_due(here))
            && !self.failure.as_ref().and_then(|f| f.node.as_deref()).is_some_and(inside)
            && !self.entries.keys().any(begun)
    }

    /// The limit that ended the record, if it is this namespace that ran into it.
    fn out_of_steps(&self, here: &Checkpoint) -> Option<Failure> {
        let failure = self.failure.as_ref().filter(|f| f.is_pause())?;
        let (outer, own) = here.ns.rsplit_once('|').unwrap_or(("", &here.ns));
        let node = own.split(':').next().unwrap_or_default();
        let place = if outer.is_empty() { node.to_owned() } else { format!("{outer}|{node}") };
        if here.ns.is_empty() {
            return failure.node.is_none().then(|| failure.clone());
        }
        // The same subgraph may have ended well on an earlier visit; only what was still due when the record ended can have failed.
        (self.was_due(here) && failure.node.as_deref() == Some(&place)).then(|| failure.clone())
    }

    /// Whether the visit of a subgraph that this is of was still due in the graph around it when the record ended.
    fn was_due(&self, here: &Checkpoint) -> bool {
        let (outer, _) = here.ns.rsplit_once('|').unwrap_or(("", &here.ns));
        let last = self.checkpoints.range((outer.into(), i64::MIN)..=(outer.into(), i64::MAX)).next_back();
        let is_here = |task: &Task| INNER.iter().any(|kind| here.ns == task.inner_ns(outer, here.fork, *kind));
        last.is_some_and(|(_, last)| last.frontier.iter().any(is_here))
    }

    /// Refuses a record whose current branch does not go back to the beginning: pruned, or with a link of the chain broken.
    fn begins(&self, export: &Export) -> Result<(), EngineError> {
        let begins = |c: &Checkpoint| c.ns.is_empty() && c.step <= 0;
        let oldest = self.checkpoints.values().find(|c| c.ns.is_empty());
        let Some(oldest) = oldest.filter(|c| !begins(c)) else { return Ok(()) };
        if !export.checkpoints.iter().any(begins) {
            let message =
                format!("the record begins with superstep {}: what was before it has been pruned", oldest.step);
            return Err(Failure::new("record_pruned", message).hint("only a whole record can be replayed").into());
        }
        let missing = json!(oldest.parent);
        Err(Failure::new("replay_diverged", format!("the record's chain is broken at superstep {}", oldest.step))
            .because(format!("the parent of checkpoint {} is {missing}, which is not in the record", oldest.id))
            .hint("the export has been changed: export the run again")
            .into())
    }

    /// The record of an effect; its receipt, its failure, or nothing when the record ends inside it.
    pub fn effect(&self, key: &JournalKey, kind: &str, input: &Value) -> Result<Entry, NodeError> {
        let Some(entry) = self.entries.get(key) else {
            return Err(self.beyond(key, &json!({"effect": kind, "input": input})));
        };
        let (then, now) =
            (json!({"effect": entry.effect, "input": entry.input}), json!({"effect": kind, "input": input}));
        if then != now {
            return Err(diverged(&key.place(), &then, &now));
        }
        let mut entry = entry.clone();
        // What was undone afterwards had happened when the node asked for it.
        entry.status = match entry.status {
            EntryStatus::Intent | EntryStatus::Failed => entry.status,
            // Accepted while nobody could tell whether it had happened.
            EntryStatus::Accepted if entry.receipt.is_none() => EntryStatus::Intent,
            EntryStatus::Done
            | EntryStatus::Undoing
            | EntryStatus::Undone
            | EntryStatus::UndoFailed
            | EntryStatus::Accepted => EntryStatus::Done,
        };
        Ok(entry)
    }

    /// The record of a reading.
    pub fn reading(&self, key: &JournalKey) -> Result<Entry, NodeError> {
        self.entries.get(key).cloned().ok_or_else(|| self.beyond(key, &json!({"reading": key.name})))
    }

    /// Something that the record does not have: its end, the failure that ended it, or a divergence.
    fn beyond(&self, key: &JournalKey, now: &Value) -> NodeError {
        let place = if key.ns.is_empty() { key.node.to_string() } else { format!("{}|{}", key.ns, key.node) };
        match &self.failure {
            Some(failure) if failure.node.as_deref() == Some(&place) => NodeError::Failed(failure.clone()),
            _ if self.status == ThreadStatus::Succeeded || self.status == ThreadStatus::Failed => {
                diverged(&key.place(), &Value::Null, now)
            }
            _ => self.ends(),
        }
    }

    /// What a task finds where the record stops in its middle.
    pub fn ends(&self) -> NodeError {
        match self.status {
            ThreadStatus::Cancelled => NodeError::Cancelled,
            // Failed: a sibling's failure ends the superstep; without one the end will not be as recorded.
            ThreadStatus::Failed
            | ThreadStatus::Succeeded
            | ThreadStatus::Pending
            | ThreadStatus::Running
            | ThreadStatus::Interrupted
            | ThreadStatus::Sleeping
            | ThreadStatus::Stuck => NodeError::Drained,
        }
    }

    /// The failure of a node whose time ran out in the last superstep of the record: it depends on the clock, so it is taken as it is.
    pub fn timed_out(&self, here: &Checkpoint, place: &str) -> Option<Failure> {
        let failure = self.failure.as_ref().filter(|f| f.is_of_time() && f.node.as_deref() == Some(place))?;
        let last = self.after(here).is_none();
        last.then(|| failure.clone())
    }

    /// The recorded question, which must be the same.
    pub fn asked(&self, id: &InterruptId, key: &JournalKey, value: &Value) -> Result<&Interrupt, NodeError> {
        let Some(asked) = self.interrupts.get(id) else { return Err(self.beyond(key, value)) };
        if asked.value != *value {
            return Err(diverged(&key.place(), &asked.value, value));
        }
        if asked.digest != digest(value) {
            return Err(diverged(&key.place(), &json!({"digest": asked.digest}), &json!({"digest": digest(value)})));
        }
        Ok(asked)
    }

    /// The recorded answer to a question.
    pub fn answer(&self, id: &InterruptId, key: &JournalKey, value: &Value) -> Result<Value, NodeError> {
        let asked = self.asked(id, key, value)?;
        match &asked.answer {
            Some(answer) => Ok(answer.value.clone()),
            None if asked.expired => Err(NodeError::Failed(asked.expiry())),
            None if self.status == ThreadStatus::Cancelled => Err(NodeError::Cancelled),
            None => Err(NodeError::Suspended),
        }
    }

    /// Holds a checkpoint against the record.
    pub fn checkpoint(&self, now: &Checkpoint) -> Result<(), NodeError> {
        let place = |what: &str| {
            let ns = if now.ns.is_empty() { "the root" } else { &now.ns };
            format!("superstep {} of {ns}, {what}", now.step)
        };
        let Some(then) = self.checkpoints.get(&(now.ns.clone(), now.step)) else {
            // Where only the run's end was made durable, the record has gaps.
            if self.after(now).is_some() {
                return Ok(());
            }
            // The record may end in the middle.
            return match self.status {
                ThreadStatus::Succeeded | ThreadStatus::Failed => {
                    Err(diverged(&place("a step too many"), &Value::Null, &json!(now.values)))
                }
                _ => Err(self.ends()),
            };
        };
        for (name, value) in &now.values {
            let recorded = then.values.get(name).unwrap_or(&Value::Null);
            if recorded != value {
                return Err(diverged(&place(&format!("channel `{name}`")), recorded, value));
            }
        }
        let compare = [
            ("values", json!(then.values), json!(now.values)),
            ("what is due next", json!(then.frontier), json!(now.frontier)),
            ("barriers", json!(then.barriers), json!(now.barriers)),
            ("what is deferred", json!(then.deferred), json!(now.deferred)),
            ("what nodes wrote", json!(then.written), json!(now.written)),
            ("how often nodes were due", json!(then.visits), json!(now.visits)),
            ("its parent", json!(then.parent), json!(self.before(then))),
        ];
        match compare.into_iter().find(|(_, then, now)| then != now) {
            Some((what, then, now)) => Err(diverged(&place(what), &then, &now)),
            None => {
                if now.ns.is_empty() {
                    self.reached.fetch_max(now.step, Ordering::Relaxed);
                }
                Ok(())
            }
        }
    }

    /// The next recorded checkpoint behind this one.
    fn after(&self, here: &Checkpoint) -> Option<&Checkpoint> {
        let behind = (here.ns.clone(), here.step + 1)..=(here.ns.clone(), i64::MAX);
        self.checkpoints.range(behind).next().map(|(_, after)| after)
    }

    /// The recorded checkpoint before this one.
    fn before(&self, then: &Checkpoint) -> Option<&CheckpointId> {
        let before = self.checkpoints.range((then.ns.clone(), i64::MIN)..(then.ns.clone(), then.step)).next_back();
        before.map(|(_, before)| &before.id)
    }

    /// Holds the end against the record.
    fn end(&self, now: &RunEnd) -> Result<(), Failure> {
        let last = self.checkpoints.keys().filter(|(ns, _)| ns.is_empty()).map(|(_, step)| *step).max().unwrap_or(-1);
        let reached = self.reached.load(Ordering::Relaxed);
        if reached < last {
            return Err(as_failure(diverged("its end", &json!({"superstep": last}), &json!({"superstep": reached}))));
        }
        if !self.status.is_terminal() {
            return Ok(());
        }
        let code = |f: &Option<Failure>| f.as_ref().map(|f| f.code.clone());
        // Why somebody cancelled comes from outside: no run gives it again.
        let same_reason = self.status == ThreadStatus::Cancelled || code(&self.failure) == code(&now.failure);
        if self.status == now.status && same_reason {
            return Ok(());
        }
        let (then, now) = (
            json!({"status": self.status, "code": code(&self.failure)}),
            json!({"status": now.status, "code": code(&now.failure)}),
        );
        Err(as_failure(diverged("its end", &then, &now)))
    }
}

/// What the newest checkpoint goes back to: branches of the root that a fork has left are no part of what a replay gives. Subgraphs of such a
/// branch have namespaces of their own, which nothing asks for.
fn lineage(checkpoints: &[Checkpoint]) -> impl Iterator<Item = &Checkpoint> {
    let by_id: BTreeMap<&CheckpointId, &Checkpoint> = checkpoints.iter().map(|c| (&c.id, c)).collect();
    let newest = checkpoints.iter().rfind(|c| c.ns.is_empty());
    let line = std::iter::successors(newest, |c| by_id.get(c.parent.as_ref()?).copied());
    let ids: BTreeSet<&CheckpointId> = line.take(checkpoints.len()).map(|c| &c.id).collect();
    checkpoints.iter().filter(move |c| !c.ns.is_empty() || ids.contains(&c.id))
}

fn as_failure(error: NodeError) -> Failure {
    as_refusal(error).failure()
}
