//! What is kept between supersteps, and what a task leaves behind.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CheckpointId, Command, Name, Persistence, State, Visits, Write};

/// In the namespace of a subgraph of which no checkpoint is kept, and in all inside it.
pub(super) const UNKEPT: char = '#';

/// Where a task comes from; also the order in which writes are applied: triggered nodes by name, then sends by index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskPath {
    /// A node that was triggered; it sees the state.
    Pull(Name),
    /// The n-th Send of the superstep before; it sees its payload.
    Push(u32),
}

/// A node that is due in the next superstep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its place in the superstep.
    pub path: TaskPath,
    /// The node's name.
    pub node: Name,
    /// The how-many-eth time this node is due in its thread, from 1. Part of the key of its effects.
    pub visit: u64,
    /// A Send's payload; `None`: the node sees the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
}

impl Task {
    /// The Send's index, for keys.
    pub fn send(&self) -> Option<u32> {
        match self.path {
            TaskPath::Pull(_) => None,
            TaskPath::Push(index) => Some(index),
        }
    }

    /// The namespace of what runs inside this task: `parent|node:visit[:send]`, in a fork of the root `node:visit[:send]~fork`. Where all
    /// visits share one it is `node:*`; one of which nothing is kept has a `#` behind it.
    pub fn inner_ns(&self, ns: &str, fork: u32, persistence: Persistence) -> String {
        let visit = match self.send() {
            None => format!("{}:{}", self.node, self.visit),
            Some(send) => format!("{}:{}:{send}", self.node, self.visit),
        };
        let own = match persistence {
            Persistence::Invocation => visit,
            Persistence::Thread => format!("{}:*", self.node),
            // No node's name has this sign.
            Persistence::Off => format!("{visit}{UNKEPT}"),
        };
        match (ns.is_empty(), fork) {
            (true, 0) => own,
            // A fork counts visits as the line that it leaves does: its subgraphs must not find that line's checkpoints.
            (true, fork) => format!("{own}~{fork}"),
            (false, _) => format!("{ns}|{own}"),
        }
    }
}

/// What sets a node going.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The node is due in the next superstep.
    Node(Name),
    /// The node is due with its own input.
    Send {
        /// The node.
        to: Name,
        /// What it sees instead of the state.
        input: Value,
    },
    /// One of the sources of a barrier has arrived.
    Arrived {
        /// The barrier's id in the compiled graph.
        barrier: Name,
        /// The source.
        from: Name,
    },
}

/// What a finished task hands to the superstep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task's place.
    pub path: TaskPath,
    /// Its node.
    pub node: Name,
    /// Its writes, in order.
    pub writes: Vec<Write>,
    /// What it sets going.
    pub triggers: Vec<Trigger>,
    /// Its command to a graph around its own, where it gave one: then it has neither writes nor triggers. No store keeps such a result,
    /// the superstep ends with it.
    #[serde(skip)]
    pub command: Option<Box<Command>>,
}

/// How a checkpoint came to be. LangGraph's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A superstep ended (the input's application counts as superstep 0).
    Loop,
    /// Somebody changed the state from outside.
    Update,
    /// Branched off another checkpoint.
    Fork,
    /// New input to a thread that has a past.
    Input,
}

/// How one channel changed since the parent checkpoint; enough to rebuild the state without knowing reducers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The channel holds this now.
    Set(String, Value),
    /// These items came behind the list that was there.
    Append(String, Vec<Value>),
    /// The channel has no value any more.
    Unset(String),
}

/// The state of one namespace of a thread at a superstep's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// The checkpoint before.
    pub parent: Option<CheckpointId>,
    /// Namespace: empty for the root graph, `node:visit|…` for subgraphs.
    pub ns: Name,
    /// Number of the superstep, from 0 (the input).
    pub step: i64,
    /// Which branch of the thread it belongs to: 0 until somebody forks. Part of the key of its effects.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fork: u32,
    /// How it came to be.
    pub source: Source,
    /// The state.
    pub values: State,
    /// What nodes (not the input) wrote, folded: what a subgraph hands to its parent.
    pub written: State,
    /// Barriers that are partly or wholly filled: id → sources that have arrived.
    pub barriers: BTreeMap<Name, BTreeSet<Name>>,
    /// Deferred nodes that have been triggered: due when nothing else is.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub deferred: BTreeSet<Name>,
    /// What is due next, in order of path.
    pub frontier: Vec<Task>,
    /// How often each node has been due.
    pub visits: Visits,
    /// When it was made.
    pub at: DateTime<Utc>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(fork: &u32) -> bool {
    *fork == 0
}

impl Checkpoint {
    /// Whether nothing is due: the graph has ended.
    pub fn ended(&self) -> bool {
        self.frontier.is_empty()
    }

    /// How `self.values` differ from `before`.
    pub fn changes_since(&self, before: &State) -> Vec<Change> {
        let gone =
            before.keys().filter(|name| !self.values.contains_key(name)).map(|name| Change::Unset(name.to_string()));
        let changed = self.values.not_shared_with(before);
        gone.chain(changed.filter_map(|(name, now)| change(name, before.get(name), now))).collect()
    }
}

fn change(name: &str, before: Option<&Value>, now: &Value) -> Option<Change> {
    match (before, now) {
        (Some(before), now) if before == now => None,
        (Some(Value::Array(before)), Value::Array(now)) if !before.is_empty() && now.starts_with(before) => {
            Some(Change::Append(name.to_owned(), now[before.len()..].to_vec()))
        }
        _ => Some(Change::Set(name.to_owned(), now.clone())),
    }
}

/// Applies recorded changes to a state, oldest first.
pub fn apply_changes(state: &mut State, changes: impl IntoIterator<Item = Change>) {
    for change in changes {
        match change {
            Change::Set(name, value) => {
                state.insert(name, value);
            }
            Change::Unset(name) => state.remove(&name),
            Change::Append(name, items) => match state.get_mut(&name) {
                Some(Value::Array(list)) => list.extend(items),
                _ => {
                    state.insert(name, Value::Array(items));
                }
            },
        }
    }
}
