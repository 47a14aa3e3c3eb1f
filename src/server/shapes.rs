//! The API's JSON shapes.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::ids;
use super::names::told;
use crate::app::{OpenQuestion, ServedAssistant, ServedRun, ServedThread};
use crate::graph::{Checkpoint, Failure, Interrupt, Thread, ThreadId, Write};

/// A time as clients parse it.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// An assistant.
pub(super) fn assistant(of: &ServedAssistant) -> Value {
    json!({
        "assistant_id": of.id, "graph_id": of.graph, "config": of.text.config, "context": of.text.context,
        "metadata": of.text.metadata, "name": of.text.name, "created_at": time(of.created_at),
        "updated_at": time(of.updated_at), "version": of.version, "description": of.text.description,
    })
}

/// A version of an assistant.
pub(super) fn version(of: &ServedAssistant) -> Value {
    json!({
        "assistant_id": of.id, "version": of.version, "graph_id": of.graph, "config": of.text.config,
        "context": of.text.context, "metadata": of.text.metadata, "created_at": time(of.created_at), "name": of.text.name,
        "description": of.text.description,
    })
}

/// What the engine has of a thread, as a client sees the thread.
pub(super) struct Progress {
    pub thread: Thread,
    pub latest: Option<Checkpoint>,
    /// Open ones.
    pub asked: Vec<Interrupt>,
}

/// A thread.
pub(super) fn thread(of: &ServedThread, progress: Option<&Progress>) -> Value {
    let mut shape = json!({
        "thread_id": of.id, "created_at": time(of.created_at), "updated_at": time(of.updated_at),
        "state_updated_at": time(of.state_at), "metadata": of.metadata, "status": of.status.word(), "config": of.config,
        "values": progress.and_then(|p| p.latest.as_ref()).map(|latest| json!(latest.values)),
    });
    if let Some(Progress { thread, asked, .. }) = progress {
        shape["error"] = json!(thread.failure.as_ref().map(error));
        let mut by_task = Map::new();
        for asked in asked {
            let list = by_task.entry(ids::asking(asked)).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(question(asked));
            }
        }
        shape["interrupts"] = Value::Object(by_task);
    }
    shape
}

/// A question in a thread or a state.
pub(super) fn question(asked: &Interrupt) -> Value {
    json!({"id": asked.id, "value": shown(asked)})
}

/// What a question shows. A release's approval also has the keys by which Agent Inbox (`action_request`, `config`, `description`) and
/// agent-chat-ui (`action_requests`, `review_configs`) draw one.
pub(super) fn shown(asked: &Interrupt) -> Value {
    const RELEASE: &str = "release";
    let mut value = asked.value.clone();
    let Some(approval) = OpenQuestion::from(asked.clone()).approval else { return value };
    let about = json!({"model": approval.model, "version": approval.version, "digest": approval.digest});
    let keys = json!({
        "action_request": {"action": RELEASE, "args": about, "arguments": about},
        "config": {"allow_accept": true, "allow_ignore": true, "allow_edit": false, "allow_respond": false},
        "description": approval.evidence.lines().join("\n"),
        "action_requests": [{"name": RELEASE, "args": about, "arguments": about}],
        "review_configs": [{"action_name": RELEASE, "allowed_decisions": ["approve", "reject"]}],
    });
    if let (Value::Object(value), Value::Object(keys)) = (&mut value, keys) {
        value.extend(keys);
    }
    value
}

/// A run.
pub(super) fn run(of: &ServedRun) -> Value {
    let body = &of.body;
    json!({
        "run_id": of.id, "thread_id": of.thread, "assistant_id": body.assistant, "metadata": body.metadata,
        "status": of.status.word(), "kwargs": body.kwargs, "multitask_strategy": body.strategy,
        "created_at": time(of.created_at), "updated_at": time(of.updated_at),
    })
}

/// A failure.
pub(super) fn error(failure: &Failure) -> Value {
    let why = failure.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    json!({"error": failure.code, "message": format!("{}{why}", failure.message)})
}

/// Where a checkpoint is.
pub(super) fn pointer(thread: &ThreadId, fork: u32, ns: &str, id: &str) -> Value {
    json!({"checkpoint_id": id, "thread_id": thread, "checkpoint_ns": ids::namespace(thread, fork, ns)})
}

/// What a node wrote, by channel.
pub(super) fn writes(writes: &[Write]) -> Value {
    let mut all = Map::new();
    for write in writes {
        all.insert(write.channel.to_string(), write.value.clone());
    }
    Value::Object(all)
}

/// What is due at a checkpoint, by name.
pub(super) fn next(checkpoint: &Checkpoint) -> Vec<String> {
    let mut next: Vec<String> = checkpoint.frontier.iter().map(|task| told(&task.node).to_owned()).collect();
    next.sort();
    next
}
