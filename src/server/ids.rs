//! Ids as clients see them: assistants by their graph's name, tasks by their place, namespaces by their tasks.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::{Answer, ApiError};
use crate::graph::{Checkpoint, Interrupt, Task, TaskPath, ThreadId};

/// The namespace of LangGraph's assistant ids.
const ASSISTANTS: Uuid = Uuid::from_u128(0x6ba7_b821_9dad_11d1_80b4_00c0_4fd4_30c8);

/// The id of the assistant that each graph has from the beginning.
pub(super) fn assistant(graph: &str) -> Uuid {
    Uuid::new_v5(&ASSISTANTS, graph.as_bytes())
}

/// A fresh id, in order of time.
pub(super) fn fresh() -> String {
    ThreadId::new().to_string()
}

/// The canonical text of an id that a client gave.
pub(super) fn given(what: &str, text: &str) -> Answer<String> {
    let parsed = Uuid::parse_str(text).map_err(|_| ApiError::invalid(format!("Invalid {what} ID: must be a UUID")))?;
    Ok(parsed.hyphenated().to_string())
}

/// A thread's id that a client gave.
pub(super) fn thread(text: &str) -> Answer<ThreadId> {
    given("thread", text).map(ThreadId::from)
}

/// The id of a task: of its place in its thread, so that it is the same whenever somebody looks.
pub(super) fn task(thread: &ThreadId, checkpoint: &Checkpoint, task: &Task) -> String {
    place(thread, checkpoint.fork, &checkpoint.ns, &task.node, task.visit, task.send())
}

/// The id of the task that asked.
pub(super) fn asking(asked: &Interrupt) -> String {
    let key = &asked.key;
    place(&asked.thread, key.fork, &key.ns, &key.node, key.visit, key.send)
}

fn place(thread: &ThreadId, fork: u32, ns: &str, node: &str, visit: u64, send: Option<u32>) -> String {
    let mut sha = Sha256::new();
    sha.update(format!("{thread}\0{fork}\0{ns}\0{node}\0{visit}\0{}", send.map_or(-1, i64::from)));
    let digest = sha.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// A namespace as clients see it: `node:TASK|…`.
pub(super) fn namespace(thread: &ThreadId, fork: u32, ns: &str) -> String {
    let mut outer = String::new();
    let mut told = Vec::new();
    for segment in ns.split('|').filter(|segment| !segment.is_empty()) {
        let (own, fork) = segment.split_once('~').map_or((segment, fork), |(own, f)| (own, f.parse().unwrap_or(fork)));
        let mut parts = own.trim_end_matches('#').split(':');
        let node = parts.next().unwrap_or_default();
        let visit = parts.next().and_then(|visit| visit.parse().ok()).unwrap_or(1);
        let send = parts.next().and_then(|send| send.parse().ok());
        told.push(format!("{node}:{}", place(thread, fork, &outer, node, visit, send)));
        outer = if outer.is_empty() { segment.to_owned() } else { format!("{outer}|{segment}") };
    }
    told.join("|")
}

/// LangGraph's path of a task.
pub(super) fn path(task: &Task) -> serde_json::Value {
    match &task.path {
        TaskPath::Pull(node) => serde_json::json!(["__pregel_pull", node]),
        TaskPath::Push(index) => serde_json::json!(["__pregel_push", index, false]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_have_the_ids_of_langgraph() {
        assert_eq!(assistant("approval").to_string(), "e234584d-b7bf-527f-9d06-ba77f8f5172d");
        assert_eq!(assistant("trivial").to_string(), "014e7ba3-a6dc-5ad3-8da5-be77b72b54c9");
    }

    #[test]
    fn a_namespace_names_its_tasks() {
        let thread = ThreadId::from("01a1fa0f-51de-70fe-aa4b-1c52fc2e75b1");
        let outer = place(&thread, 0, "", "child", 1, None);
        let inner = place(&thread, 0, "child:1", "deep", 2, Some(3));
        assert_eq!(namespace(&thread, 0, "child:1|deep:2:3"), format!("child:{outer}|deep:{inner}"));
        assert_eq!(namespace(&thread, 0, ""), "");
        assert!(given("run", "zzz").is_err() && given("run", &outer.replace('-', "")).unwrap() == outer);
    }
}
