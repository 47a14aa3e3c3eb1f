//! A run's stream, told from its thread's record: the same parts with the same ids whenever somebody reads it, before and after a crash. The
//! events say what happened when, the checkpoints hold the values.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{ids, shapes};
use crate::app::{Place, ServedRun, Spoken};
use crate::graph::{Checkpoint, Event, EventRow, Failure, Interrupt, MESSAGE, Name, Task, TaskPath, Write};

/// A part's id: the number of its event in the thread, then its own number within.
pub(super) type PartId = (u64, u32);

/// Behind all parts of the run's last event.
const END: u32 = 1_000;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub id: PartId,
    pub event: String,
    pub data: Value,
}

/// What of a run is told.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub modes: BTreeSet<String>,
    pub subgraphs: bool,
}

/// The checkpoint that an event speaks of.
pub(super) fn speaks_of(row: &EventRow) -> Option<Spoken> {
    match &row.event {
        Event::Checkpointed { ns, step, .. } => Some(Spoken { ns: ns.clone(), step: *step, by: row.at }),
        _ => None,
    }
}

/// The story of one run, as far as it was told.
pub(super) struct Projection {
    run: ServedRun,
    wanted: Wanted,
    /// Only what comes behind this part is told.
    after: Option<PartId>,
    /// Where each namespace stands.
    at: BTreeMap<Name, Place>,
    /// Tasks that have begun.
    begun: BTreeSet<String>,
    /// What tasks saw, until they end.
    seen: BTreeMap<String, Value>,
    /// Whether the root's first checkpoint was told.
    stands: bool,
    parts: Vec<Part>,
    id: PartId,
}

impl Projection {
    /// Of a run, from its beginning. `standing`: the checkpoints before it, of the root and inside the tasks that were due.
    pub fn new(run: ServedRun, wanted: Wanted, after: Option<PartId>, standing: Vec<Place>) -> Self {
        let at = standing.into_iter().map(|place| (place.checkpoint.ns.clone(), place)).collect();
        let (begun, seen) = (BTreeSet::new(), BTreeMap::new());
        Self { run, wanted, after, at, begun, seen, stands: false, parts: Vec::new(), id: (0, 0) }
    }

    fn stand_at(&self, ns: &str) -> Option<&Checkpoint> {
        self.at.get(ns).map(|place| &place.checkpoint)
    }

    /// Where a namespace stands, taken out: the next state is made of it, without a copy. To be put back, or followed by the next one.
    pub fn lend(&mut self, ns: &str) -> Option<Place> {
        self.at.remove(ns)
    }

    /// Puts back what was lent.
    pub fn put_back(&mut self, place: Option<Place>) {
        self.at.extend(place.map(|place| (place.checkpoint.ns.clone(), place)));
    }

    /// Whether the next event is told with the thread's questions.
    pub fn needs_questions(&self, row: &EventRow) -> bool {
        matches!(row.event, Event::Advancing { .. }) && !self.stands
    }

    /// The first part of each stream.
    pub fn beginning(&self) -> Part {
        let data = json!({"run_id": self.run.id, "attempt": 1});
        Part { id: (0, 0), event: "metadata".to_owned(), data }
    }

    /// What was told since somebody asked last.
    pub fn take(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    fn tell(&mut self, mode: &str, ns: &str, data: impl FnOnce(&Self) -> Value) {
        if !self.wanted.modes.contains(mode) || !(ns.is_empty() || self.wanted.subgraphs) {
            return;
        }
        if self.after.is_some_and(|after| self.id <= after) {
            self.id.1 += 1;
            return;
        }
        let fork = self.stand_at("").map_or(0, |root| root.fork);
        let event = match ns.is_empty() {
            true => mode.to_owned(),
            false => format!("{mode}|{}", ids::namespace(&self.run.thread, fork, ns)),
        };
        let data = data(self);
        self.parts.push(Part { id: self.id, event, data });
        self.id.1 += 1;
    }

    fn debug(&mut self, ns: &str, step: i64, at: DateTime<Utc>, kind: &str, payload: impl FnOnce(&Self) -> Value) {
        let time = shapes::time(at);
        self.tell("debug", ns, |this| json!({"step": step, "timestamp": time, "type": kind, "payload": payload(this)}));
    }

    /// The next event of the thread, with the checkpoint that it speaks of, and the questions of the thread.
    pub fn hear(&mut self, row: &EventRow, checkpoint: Option<Place>, asked: &[Interrupt]) {
        self.id = (row.seq, 0);
        match &row.event {
            Event::Checkpointed { ns, .. } => {
                let Some(checkpoint) = checkpoint else { return };
                self.stands |= ns.is_empty();
                self.at.insert(ns.clone(), checkpoint);
                self.checkpoint(ns, row.at, &[]);
                self.starts(ns);
            }
            Event::Advancing { .. } => self.stand(row.at, asked),
            Event::NodeStarted { ns, node, .. } => self.started(ns, node, row.at),
            Event::Wrote { ns, node, path, writes } => self.wrote(ns, node, path, writes, row.at),
            Event::NodeFailed { ns, node, failure, retry_in_ms: None, handler: None, .. } => {
                self.failed(ns, node, failure, row.at);
            }
            Event::Custom { ns, name, data, .. } if name != MESSAGE => self.tell("custom", ns, |_| data.clone()),
            _ => {}
        }
    }

    /// A run that goes on with what it finds tells that first.
    fn stand(&mut self, at: DateTime<Utc>, asked: &[Interrupt]) {
        if std::mem::replace(&mut self.stands, true) || !self.at.contains_key("") {
            return;
        }
        self.starts("");
        let open: Vec<&Interrupt> = asked.iter().filter(|asked| self.was_open(asked)).collect();
        self.checkpoint("", at, &open);
    }

    /// Whether a question was open when the run began.
    fn was_open(&self, asked: &Interrupt) -> bool {
        let before = asked.asked_at < self.run.created_at;
        before && !asked.withdrawn && asked.answer.as_ref().is_none_or(|answer| answer.at >= self.run.created_at)
    }

    /// Agent clients want to know when the graph itself begins.
    fn starts(&mut self, ns: &str) {
        if !ns.is_empty() || !self.begun.insert(String::new()) {
            return;
        }
        let kwargs = &self.run.body.kwargs;
        let input = match &kwargs["command"] {
            Value::Null => kwargs["input"].clone(),
            command => {
                json!({"graph": null, "update": command["update"], "resume": command["resume"], "goto": command["goto"]})
            }
        };
        let (name, run) = (self.run.body.graph.clone(), self.run.id.clone());
        self.tell("events", "", |this| {
            json!({
                "event": "on_chain_start", "data": {"input": input}, "name": name, "tags": [], "run_id": run,
                "metadata": this.metadata(), "parent_ids": [],
            })
        });
    }

    fn metadata(&self) -> Value {
        let body = &self.run.body;
        json!({
            "created_by": "system", "graph_id": body.graph, "assistant_id": body.assistant, "run_attempt": 1,
            "thread_id": self.run.thread, "run_id": self.run.id,
        })
    }

    fn config(&self, checkpoint: &Checkpoint, id: &str) -> Value {
        let body = &self.run.body;
        json!({"configurable": {
            "checkpoint_ns": ids::namespace(&self.run.thread, checkpoint.fork, &checkpoint.ns), "run_id": self.run.id,
            "thread_id": self.run.thread, "graph_id": body.graph, "assistant_id": body.assistant, "checkpoint_id": id,
        }})
    }

    /// Where a namespace stands now.
    fn checkpoint(&mut self, ns: &str, at: DateTime<Utc>, open: &[&Interrupt]) {
        let Some(of) = self.stand_at(ns).cloned() else { return };
        self.tell("values", ns, |_| json!(of.values));
        let row = |this: &Self| {
            let tasks: Vec<Value> = of
                .frontier
                .iter()
                .map(|task| {
                    let id = ids::task(&this.run.thread, &of, task);
                    let asked =
                        open.iter().filter(|asked| ids::asking(asked) == id).map(|asked| super::resume::told(asked));
                    json!({"id": id, "name": task.node, "interrupts": asked.collect::<Vec<_>>(), "state": null})
                })
                .collect();
            let parents = match ns.is_empty() {
                true => json!({}),
                false => json!({"": this.stand_at("").map(|root| root.id.clone())}),
            };
            json!({
                "config": this.config(&of, of.id.as_str()),
                "parent_config": of.parent.as_ref().map(|parent| this.config(&of, parent.as_str())),
                "values": of.values, "metadata": {"source": of.source, "step": of.step, "parents": parents},
                "next": shapes::next(&of), "tasks": tasks,
            })
        };
        self.tell("checkpoints", ns, row);
        self.debug(ns, of.step, at, "checkpoint", |this| {
            let mut payload = row(this);
            let (thread, fork) = (&this.run.thread, of.fork);
            payload["checkpoint"] = shapes::pointer(thread, fork, ns, of.id.as_str());
            payload["parent_checkpoint"] =
                json!(of.parent.as_ref().map(|id| shapes::pointer(thread, fork, ns, id.as_str())));
            payload
        });
    }

    /// The task of a node that has begun: the first one of this name that has not been told of.
    fn started(&mut self, ns: &str, node: &str, at: DateTime<Utc>) {
        let Some(of) = self.stand_at(ns) else { return };
        let told = |task: &&Task| task.node == *node && !self.begun.contains(&ids::task(&self.run.thread, of, task));
        let Some(task) = of.frontier.iter().find(told).cloned() else { return };
        let (id, step) = (ids::task(&self.run.thread, of, &task), of.step + 1);
        // What it sees is a copy of the whole state.
        let is_told = ["tasks", "debug", "events"].iter().any(|mode| self.wanted.modes.contains(*mode));
        let input = match is_told {
            true => task.input.clone().unwrap_or_else(|| json!(of.values)),
            false => Value::Null,
        };
        self.begun.insert(id.clone());
        if !is_told {
            return;
        }
        if self.wanted.modes.contains("events") {
            self.seen.insert(id.clone(), input.clone());
        }
        let payload = |this: &Self| {
            let body = &this.run.body;
            let metadata = json!({
                "created_by": "system", "graph_id": body.graph, "assistant_id": body.assistant, "run_attempt": 1,
                "run_id": this.run.id,
            });
            json!({"id": id, "name": node, "input": input, "triggers": [format!("branch:to:{node}")], "metadata": metadata})
        };
        self.tell("tasks", ns, payload);
        self.debug(ns, step, at, "task", payload);
        self.chain(ns, &task, step, &id, "on_chain_start", json!({"input": input}));
    }

    /// An event of a node in the shape of LangChain's.
    fn chain(&mut self, ns: &str, task: &Task, step: i64, id: &str, what: &str, data: Value) {
        // One stream of events tells of all graphs.
        self.tell("events", "", |this| {
            let fork = this.stand_at("").map_or(0, |root| root.fork);
            let outer = ids::namespace(&this.run.thread, fork, ns);
            let own = format!("{}:{id}", task.node);
            let inside = if outer.is_empty() { own } else { format!("{outer}|{own}") };
            let mut metadata = this.metadata();
            metadata["langgraph_step"] = json!(step);
            metadata["langgraph_node"] = json!(task.node);
            metadata["langgraph_triggers"] = json!([format!("branch:to:{}", task.node)]);
            metadata["langgraph_path"] = ids::path(task);
            metadata["langgraph_checkpoint_ns"] = json!(inside);
            json!({
                "event": what, "data": data, "name": task.node, "tags": [format!("graph:step:{step}")], "run_id": id,
                "metadata": metadata, "parent_ids": [this.run.id],
            })
        });
    }

    fn wrote(&mut self, ns: &str, node: &str, path: &TaskPath, writes: &[Write], at: DateTime<Utc>) {
        let Some(of) = self.stand_at(ns) else { return };
        let Some(task) = of.frontier.iter().find(|task| task.node == *node && task.path == *path).cloned() else {
            return;
        };
        let (id, step) = (ids::task(&self.run.thread, of, &task), of.step + 1);
        let wrote = shapes::writes(writes);
        self.tell("updates", ns, |_| json!({node: if writes.is_empty() { Value::Null } else { wrote.clone() }}));
        let result = json!({"id": id, "name": node, "error": null, "result": wrote, "interrupts": []});
        self.tell("tasks", ns, |_| result.clone());
        self.debug(ns, step, at, "task_result", |_| result.clone());
        let input = self.seen.remove(&id).unwrap_or_default();
        self.chain(ns, &task, step, &id, "on_chain_stream", json!({"chunk": wrote}));
        self.chain(ns, &task, step, &id, "on_chain_end", json!({"output": wrote, "input": input}));
    }

    fn failed(&mut self, ns: &str, node: &str, failure: &Failure, at: DateTime<Utc>) {
        let Some(of) = self.stand_at(ns) else { return };
        let step = of.step + 1;
        let begun = |task: &&Task| task.node == *node && self.begun.contains(&ids::task(&self.run.thread, of, task));
        let Some(id) = of.frontier.iter().find(begun).map(|task| ids::task(&self.run.thread, of, task)) else { return };
        let result = json!({"id": id, "name": node, "error": shapes::error(failure), "result": {}, "interrupts": []});
        self.tell("tasks", ns, |_| result.clone());
        self.debug(ns, step, at, "task_result", |_| result);
    }

    /// What a run that has ended says last.
    pub fn end(&mut self, run: &ServedRun) {
        self.id = (run.last.unwrap_or(0), END);
        let outcome = &run.outcome;
        let asked: Vec<Interrupt> = serde_json::from_value(outcome["interrupts"].clone()).unwrap_or_default();
        if outcome["stands"] == true {
            self.asks(&asked, run.updated_at);
        }
        if !outcome["error"].is_null() {
            self.parts.push(Part { id: self.id, event: "error".to_owned(), data: outcome["error"].clone() });
            return;
        }
        let (name, id) = (run.body.graph.clone(), run.id.clone());
        let output = self.stand_at("").map(|root| json!(root.values)).unwrap_or_default();
        self.tell("events", "", |this| {
            json!({
                "event": "on_chain_end", "data": {"output": output}, "run_id": id, "name": name, "tags": [],
                "metadata": this.metadata(), "parent_ids": [],
            })
        });
    }

    /// The questions that a run ends with: of the innermost graphs first, then of those around them.
    fn asks(&mut self, asked: &[Interrupt], at: DateTime<Utc>) {
        let mut spaces: Vec<String> = Vec::new();
        for asked in asked {
            let mut ns = asked.key.ns.to_string();
            while !ns.is_empty() && !spaces.contains(&ns) {
                spaces.push(ns.clone());
                ns = ns.rsplit_once('|').map(|(outer, _)| outer.to_owned()).unwrap_or_default();
            }
        }
        spaces.sort_by_key(|ns| std::cmp::Reverse(ns.matches('|').count()));
        spaces.push(String::new());
        for ns in spaces {
            let inside = |asked: &&Interrupt| {
                ns.is_empty() || *asked.key.ns == *ns || asked.key.ns.starts_with(&format!("{ns}|"))
            };
            let told: Vec<Value> = asked.iter().filter(inside).map(super::resume::told).collect();
            self.tell("updates", &ns, |_| json!({"__interrupt__": told}));
            if !told.is_empty() {
                let values = self.stand_at(&ns).map(|c| json!(c.values)).unwrap_or_else(|| json!({}));
                self.tell("values", &ns, |_| with_interrupts(values, &told));
            }
        }
        let mut by_task: BTreeMap<(String, String, String), Vec<Value>> = BTreeMap::new();
        for asked in asked {
            let place = (asked.key.ns.to_string(), ids::asking(asked), asked.key.node.to_string());
            by_task.entry(place).or_default().push(super::resume::told(asked));
        }
        for ((ns, id, node), told) in by_task {
            let step = self.stand_at(&ns).map_or(0, |c| c.step + 1);
            let result = json!({"id": id, "name": node, "error": null, "result": {}, "interrupts": told});
            self.tell("tasks", &ns, |_| result.clone());
            self.debug(&ns, step, at, "task_result", |_| result.clone());
        }
    }
}

/// Values with the questions that their run ended with.
pub(super) fn with_interrupts(mut values: Value, told: &[Value]) -> Value {
    if let (Value::Object(map), false) = (&mut values, told.is_empty()) {
        map.insert("__interrupt__".to_owned(), json!(told));
    }
    values
}
