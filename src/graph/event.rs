//! What happened in a thread, in order: what displays, exports and the audit see.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CheckpointId, Failure, InterruptId, Name, Source, TaskPath, ThreadStatus, Write};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The thread was accepted (first event).
    Accepted {
        /// The workflow's name.
        workflow: String,
    },
    /// An owner began to advance it.
    Advancing {
        /// Who.
        owner: String,
        /// The lease's epoch.
        epoch: u64,
    },
    /// A checkpoint was committed.
    Checkpointed {
        /// Namespace.
        ns: Name,
        /// Superstep.
        step: i64,
        /// How it came to be.
        source: Source,
        /// What is due next.
        next: Vec<Name>,
    },
    /// A node began.
    NodeStarted {
        /// Namespace and node.
        ns: Name,
        /// The node.
        node: Name,
        /// The how-many-eth attempt, from 1.
        attempt: u32,
    },
    /// A node ended well.
    NodeFinished {
        /// Namespace.
        ns: Name,
        /// The node.
        node: Name,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// A node failed.
    NodeFailed {
        /// Namespace.
        ns: Name,
        /// The node.
        node: Name,
        /// Why.
        failure: Failure,
        /// It will be tried again after this many milliseconds.
        retry_in_ms: Option<u64>,
        /// How long this attempt took, in milliseconds; records of earlier versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
        /// The node that handles it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handler: Option<Name>,
    },
    /// A node gave what it had given before for the same input.
    Cached {
        /// Namespace.
        ns: Name,
        /// The node.
        node: Name,
    },
    /// An effect is about to be performed.
    EffectIntended {
        /// Its place.
        place: String,
        /// Its kind.
        effect: String,
    },
    /// An effect was performed.
    EffectDone {
        /// Its place.
        place: String,
        /// Its kind.
        effect: String,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// Found done by a probe after a crash, not performed by this process.
        probed: bool,
    },
    /// An attempt failed.
    EffectFailed {
        /// Its place.
        place: String,
        /// Its kind.
        effect: String,
        /// Why.
        failure: Failure,
    },
    /// Undoing began.
    UndoStarted {
        /// Why.
        failure: Failure,
    },
    /// One effect was undone.
    EffectUndone {
        /// Its place.
        place: String,
        /// Its kind.
        effect: String,
    },
    /// An undo failed: the thread is stuck.
    UndoFailed {
        /// Its place.
        place: String,
        /// Its kind.
        effect: String,
        /// Why.
        failure: Failure,
    },
    /// Somebody accepted what could not be undone, or settled, as it is.
    UndoAccepted {
        /// Its place.
        place: String,
        /// Its kind.
        effect: String,
        /// Who.
        by: String,
    },
    /// A question was asked.
    Interrupted {
        /// The question's id.
        id: InterruptId,
        /// The asking node.
        node: Name,
    },
    /// A question was answered.
    Answered {
        /// The question's id.
        id: InterruptId,
        /// By whom.
        by: String,
        /// Through what.
        via: String,
    },
    /// One of several who are asked has said something; the question stands.
    Voted {
        /// The question's id.
        id: InterruptId,
        /// Who.
        by: String,
        /// Through what.
        via: String,
        /// Their word.
        verdict: String,
    },
    /// Somebody sent a signal.
    Signalled {
        /// Its number in the thread.
        seq: u64,
        /// Its name.
        name: String,
        /// By whom.
        by: String,
    },
    /// A node's wait is over.
    Woke {
        /// Its place in the journal.
        place: String,
        /// What ended it: the signal's name, or nothing for the time.
        signal: Option<String>,
    },
    /// Somebody asked whoever advances the thread to let go of it.
    StopAsked {
        /// Who.
        by: String,
        /// It waits for a person afterwards.
        hold: bool,
    },
    /// The thread went on from an earlier checkpoint, in a branch of its own.
    Forked {
        /// Where it branches off.
        from: CheckpointId,
        /// The branch's number.
        fork: u32,
    },
    /// The thread goes on with other versions of its nodes than it began with.
    Migrated {
        /// Kinds with their versions: `packager 1 -> 2`.
        changes: Vec<String>,
    },
    /// Effects up to here are never undone any more.
    CommitPoint {
        /// The node that set it.
        node: Name,
    },
    /// The thread's status changed.
    StatusChanged {
        /// What it is now.
        status: ThreadStatus,
        /// Why, where it failed.
        failure: Option<Failure>,
    },
    /// A node says something of its own.
    Custom {
        /// Namespace.
        ns: Name,
        /// The node.
        node: Name,
        /// What it is about.
        name: String,
        /// The content.
        data: Value,
    },
    /// What a node wrote; only in runs that are asked to say it ([`super::Advance::tells_writes`]).
    Wrote {
        /// Namespace.
        ns: Name,
        /// The node.
        node: Name,
        /// Its place in the superstep.
        path: TaskPath,
        /// Its writes, in order.
        writes: Vec<Write>,
    },
    /// A record from elsewhere was brought here. In this home's audit only: the thread's own events are those of its record.
    Imported {
        /// By whom.
        by: String,
        /// Digest of the record.
        digest: String,
    },
    /// An event of a newer version.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// Whether it belongs into the audit, which is never pruned and chained by hashes.
    pub fn is_audited(&self) -> bool {
        match self {
            Self::Accepted { .. }
            | Self::Advancing { .. }
            | Self::EffectIntended { .. }
            | Self::EffectDone { .. }
            | Self::EffectFailed { .. }
            | Self::UndoStarted { .. }
            | Self::EffectUndone { .. }
            | Self::UndoFailed { .. }
            | Self::UndoAccepted { .. }
            | Self::Interrupted { .. }
            | Self::Answered { .. }
            | Self::Voted { .. }
            | Self::StopAsked { .. }
            | Self::Signalled { .. }
            | Self::Woke { .. }
            | Self::Forked { .. }
            | Self::Migrated { .. }
            | Self::CommitPoint { .. }
            | Self::Imported { .. }
            | Self::StatusChanged { .. } => true,
            Self::Checkpointed { .. }
            | Self::NodeStarted { .. }
            | Self::NodeFinished { .. }
            | Self::NodeFailed { .. }
            | Self::Cached { .. }
            | Self::Custom { .. }
            | Self::Wrote { .. }
            | Self::Unknown => false,
        }
    }
}

/// An event with its number and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRow {
    /// Number within the thread, from 1.
    pub seq: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub event: Event,
}

/// Sees events as they are committed; must not block.
pub trait EventSink: Send + Sync {
    /// One event of `thread`.
    fn event(&self, thread: &super::ThreadId, at: DateTime<Utc>, event: &Event);
    /// What a task of the namespace `ns` leaves, as it finishes: not yet durable.
    fn result(&self, _ns: &str, _result: &super::TaskResult) {}
    /// A checkpoint, as soon as the run's durability has it.
    fn checkpoint(&self, _checkpoint: &super::Checkpoint) {}
    /// Whether it looks at all: for one that does not, nothing is kept to be shown.
    fn looks(&self) -> bool {
        true
    }
}

/// Sees nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSink;

impl EventSink for NoSink {
    fn event(&self, _thread: &super::ThreadId, _at: DateTime<Utc>, _event: &Event) {}

    fn looks(&self) -> bool {
        false
    }
}
