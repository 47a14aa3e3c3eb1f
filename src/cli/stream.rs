//! `--stream MODES`: what a run does, as lines of JSON while it does it. The modes are LangGraph's.

use std::io::Write as _;
use std::sync::Mutex;

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::travel::checkpoint_value;
use crate::graph::{Checkpoint, Event, EventSink, MESSAGE, TaskResult, ThreadId};

/// What is shown of a run while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The whole state after each superstep
    Values,
    /// What each node wrote
    Updates,
    /// What nodes say of their own
    Custom,
    /// Messages that grow, piece by piece
    Messages,
    /// Nodes as they start, finish and fail
    Tasks,
    /// Each checkpoint
    Checkpoints,
    /// Tasks and checkpoints
    Debug,
    /// Every event of the record
    Events,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Values => "values",
            Self::Updates => "updates",
            Self::Custom => "custom",
            Self::Messages => "messages",
            Self::Tasks => "tasks",
            Self::Checkpoints => "checkpoints",
            Self::Debug => "debug",
            Self::Events => "events",
        }
    }
}

/// Writes lines to standard output.
pub struct Stream {
    modes: Vec<Mode>,
    /// Of two tasks each line stays whole.
    out: Mutex<std::io::Stdout>,
}

impl Stream {
    /// Shows these modes.
    pub fn new(modes: Vec<Mode>) -> Self {
        Self { modes, out: Mutex::new(std::io::stdout()) }
    }

    fn line(&self, mode: Mode, ns: &str, data: &Value) {
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Whoever reads may have gone; the run goes on without them.
        let _ = writeln!(out, "{}", json!({"event": mode.word(), "ns": ns, "data": data}));
        let _ = out.flush();
    }

    fn is_on(&self, mode: Mode) -> bool {
        self.modes.contains(&mode)
    }

    fn debug(&self, ns: &str, kind: &str, at: DateTime<Utc>, payload: &Value) {
        if self.is_on(Mode::Debug) {
            self.line(Mode::Debug, ns, &json!({"type": kind, "timestamp": at, "payload": payload}));
        }
    }

    fn task(&self, ns: &str, at: DateTime<Utc>, payload: &Value) {
        if self.is_on(Mode::Tasks) {
            self.line(Mode::Tasks, ns, payload);
        }
        self.debug(ns, "task", at, payload);
    }

    /// Where the run stands when the stream begins, or waits when it ends.
    pub fn stands(&self, values: &Value) {
        if self.is_on(Mode::Values) {
            self.line(Mode::Values, "", values);
        }
    }

    /// The questions that a run has asked.
    pub fn asks(&self, questions: &[Value]) {
        if self.is_on(Mode::Updates) && !questions.is_empty() {
            self.line(Mode::Updates, "", &json!({"__interrupt__": questions}));
        }
    }
}

impl EventSink for Stream {
    fn event(&self, _: &ThreadId, at: DateTime<Utc>, event: &Event) {
        if self.is_on(Mode::Events) {
            self.line(Mode::Events, "", &json!({"at": at, "event": event}));
        }
        match event {
            Event::NodeStarted { ns, node, attempt } => {
                self.task(ns, at, &json!({"node": node, "state": "started", "attempt": attempt}));
            }
            Event::NodeFinished { ns, node, duration_ms } => {
                self.task(ns, at, &json!({"node": node, "state": "finished", "duration_ms": duration_ms}));
            }
            Event::Cached { ns, node } => self.task(ns, at, &json!({"node": node, "state": "cached"})),
            Event::NodeFailed { ns, node, failure, retry_in_ms, .. } => {
                let error = json!({"code": failure.code, "message": failure.message});
                self.task(
                    ns,
                    at,
                    &json!({"node": node, "state": "failed", "error": error, "retry_in_ms": retry_in_ms}),
                );
            }
            Event::Custom { ns, node, name, data } if name == MESSAGE && self.is_on(Mode::Messages) => {
                let meta = json!({"node": node, "ns": ns, "attempt": data["attempt"]});
                self.line(Mode::Messages, ns, &json!([{"id": data["id"], "chunk": data["chunk"]}, meta]));
            }
            Event::Custom { ns, node, name, data } if name != MESSAGE && self.is_on(Mode::Custom) => {
                self.line(Mode::Custom, ns, &json!({"node": node, "name": name, "data": data}));
            }
            _ => {}
        }
    }

    fn result(&self, ns: &str, result: &TaskResult) {
        if self.is_on(Mode::Updates) {
            let writes: Map<String, Value> =
                result.writes.iter().map(|write| (write.channel.to_string(), write.value.clone())).collect();
            self.line(Mode::Updates, ns, &json!({result.node.as_str(): writes}));
        }
    }

    fn checkpoint(&self, checkpoint: &Checkpoint) {
        if self.is_on(Mode::Values) {
            self.line(Mode::Values, &checkpoint.ns, &json!(checkpoint.values));
        }
        let row = checkpoint_value(checkpoint);
        if self.is_on(Mode::Checkpoints) {
            self.line(Mode::Checkpoints, &checkpoint.ns, &row);
        }
        self.debug(&checkpoint.ns, "checkpoint", checkpoint.at, &row);
    }
}
