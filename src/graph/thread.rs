//! What a thread can be, and who advances it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Alarm, Failure, ThreadId};

/// What a thread can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThreadStatus {
    /// Accepted, not begun.
    Pending,
    /// Somebody advances it, or did until they died.
    Running,
    /// Waits for an answer, or stands at a static interrupt.
    Interrupted,
    /// Waits for a timer.
    Sleeping,
    /// Ended well.
    Succeeded,
    /// Ended badly; what it did since its commit point is undone.
    Failed,
    /// Stopped by somebody.
    Cancelled,
    /// An undo failed, or a probe could not tell: a person must look.
    Stuck,
}

/// What happens to a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadEvent {
    /// An owner begins to advance it.
    Advance,
    /// It asked, or stands at a static interrupt.
    Interrupt,
    /// It waits for a timer.
    Sleep,
    /// Nothing is due any more.
    Finish,
    /// A node failed (and everything was undone).
    Fail,
    /// It was stopped (and everything was undone, unless that was declined).
    Cancel,
    /// An undo failed or a probe could not tell.
    Stick,
}

/// A status that an event does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thread that is {from:?} cannot {event:?}")]
pub struct IllegalThreadEvent {
    from: ThreadStatus,
    event: ThreadEvent,
}

impl ThreadStatus {
    /// The one place where a thread's status changes; recovery uses the same function.
    pub fn on(self, event: ThreadEvent) -> Result<Self, IllegalThreadEvent> {
        use ThreadEvent as E;
        use ThreadStatus as S;
        match (self, event) {
            // A finished thread may get new input; a failed one may be continued (the driver refuses it once undone).
            (S::Cancelled, E::Advance) => Err(IllegalThreadEvent { from: self, event }),
            (_, E::Advance) => Ok(S::Running),
            (S::Running, E::Interrupt) => Ok(S::Interrupted),
            (S::Running, E::Sleep) => Ok(S::Sleeping),
            (S::Running, E::Finish) => Ok(S::Succeeded),
            (S::Running, E::Fail) => Ok(S::Failed),
            (S::Running, E::Cancel) => Ok(S::Cancelled),
            (S::Running, E::Stick) => Ok(S::Stuck),
            (_, E::Interrupt | E::Sleep | E::Finish | E::Fail | E::Cancel | E::Stick) => {
                Err(IllegalThreadEvent { from: self, event })
            }
        }
    }

    /// The word in the store, in JSON and on the screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Sleeping => "sleeping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Stuck => "stuck",
        }
    }

    /// Whether the thread has ended (new input may begin it anew).
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
            Self::Pending | Self::Running | Self::Interrupted | Self::Sleeping | Self::Stuck => false,
        }
    }
}

/// A process that advances threads, known so well that a reused pid cannot be taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot, from `/proc/<pid>/stat`.
    pub start_ticks: u64,
    /// The machine's boot id.
    pub boot_id: String,
    /// Tells two owners inside one process apart.
    pub nonce: u64,
    /// What it is, for people: `deploy`, `runner`, `run resume`.
    pub label: String,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` (pid {})", self.label, self.pid)
    }
}

/// Tells whether an owner still lives.
pub trait Liveness: Send + Sync {
    /// False only when it is certain that the owner is gone.
    fn alive(&self, owner: &Owner) -> bool;
}

/// Why everything since the commit point is being undone, kept until the undo is through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unwinding {
    /// Failed or cancelled: what the thread becomes afterwards.
    pub becomes: ThreadStatus,
    /// Why.
    pub failure: Failure,
}

/// That a thread was brought here as a record of what was done elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// When.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: String,
}

/// A thread's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// Its id.
    pub id: ThreadId,
    /// The workflow's name.
    pub workflow: String,
    /// The resolved workflow document that the thread runs, resumes, undoes and replays by; null for graphs built in Rust.
    pub document: Value,
    /// The graph's fingerprint: topology, channels, node kinds and versions.
    pub fingerprint: String,
    /// Node kinds in the graph with their versions.
    pub node_versions: BTreeMap<String, u32>,
    /// The input it began with.
    pub input: Value,
    /// What it is.
    pub status: ThreadStatus,
    /// Why it failed, where it did.
    pub failure: Option<Failure>,
    /// Set while undoing.
    pub unwinding: Option<Unwinding>,
    /// Effects with a journal number up to this one are past the commit point and are never undone.
    pub committed_seq: u64,
    /// Whether an undo has been done: such a thread cannot be continued.
    pub undone: bool,
    /// Free labels: `model`, `kind` …; what lists filter by.
    pub labels: BTreeMap<String, String>,
    /// Current owner, if somebody advances it.
    pub owner: Option<Owner>,
    /// Counts the owners; every write carries it, a stale one is refused.
    pub epoch: u64,
    /// A process that waits for this thread to be answered and will go on by itself.
    pub attendant: Option<Owner>,
    /// Its next timer: somebody must go on with it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<Alarm>,
    /// Set where it is a record from elsewhere: whoever owns it is there, and nobody advances it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it changed last.
    pub updated_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_running_thread_ends() {
        for from in [ThreadStatus::Pending, ThreadStatus::Interrupted, ThreadStatus::Succeeded] {
            assert!(from.on(ThreadEvent::Finish).is_err());
            assert_eq!(from.on(ThreadEvent::Advance), Ok(ThreadStatus::Running));
        }
        assert!(ThreadStatus::Cancelled.on(ThreadEvent::Advance).is_err());
        assert_eq!(ThreadStatus::Running.on(ThreadEvent::Stick), Ok(ThreadStatus::Stuck));
    }
}
