//! The way a run took through its graph: superstep after superstep, with times. Made of the thread's events, which are kept also where
//! checkpoints are not; of the root's checkpoints only where branches leave each other.

mod account;
mod trace;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Checkpoint, EventRow, Interrupt, Name, Source, Thread};
use account::Account;

/// A superstep of one graph: what was due, and how it fared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Its number, that of the checkpoint before which it began.
    pub step: i64,
    /// How the checkpoint came to be.
    pub source: Source,
    /// The branch.
    pub fork: u32,
    /// When its nodes became due.
    pub at: DateTime<Utc>,
    /// When it was over.
    pub until: Option<DateTime<Utc>>,
    /// What was due. Nothing: the graph has ended.
    pub nodes: Vec<Visit>,
}

/// A node in a superstep; all items that it was sent are one visit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Visit {
    /// The node.
    pub node: Name,
    /// The how-many-eth time it was due, from 1.
    pub visit: u64,
    /// How often it was due at once: more than once where items were sent to it.
    pub tasks: u64,
    /// How far it came.
    pub state: VisitState,
    /// Failed attempts.
    pub failures: u64,
    /// How long it worked, in milliseconds, all attempts and items together.
    pub took_ms: u64,
    /// How long it waited for an answer, a signal or the time.
    pub waited_ms: u64,
    /// Code of its last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The node that handled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<Name>,
    /// Kinds of its effects that were undone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undone: Vec<String>,
    /// What ran inside, where it is a subgraph; a line for each item that it was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inner: Vec<Vec<Step>>,
}

/// How far a node came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VisitState {
    /// It is due.
    Due,
    /// It is at work.
    Running,
    /// It asks.
    Asks,
    /// It waits for a signal or the time.
    Sleeps,
    /// It ended well.
    Done,
    /// It gave what it had given before.
    Cached,
    /// It failed.
    Failed,
    /// It failed, and another node handled that.
    Handled,
    /// It was at work when the run ended.
    Stopped,
    /// It was due, and is not any more.
    Passed,
}

impl VisitState {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Running => "running",
            Self::Asks => "asks",
            Self::Sleeps => "sleeps",
            Self::Done => "done",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Handled => "handled",
            Self::Stopped => "stopped",
            Self::Passed => "passed over",
        }
    }

    /// Whether nothing more comes of it.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Due | Self::Running | Self::Asks | Self::Sleeps)
    }
}

/// The path of a thread's current branch. `roots`: the root's checkpoints, in any order; `asked`: all its questions.
pub fn path(
    thread: &Thread,
    roots: &[Checkpoint],
    asked: &[Interrupt],
    events: &[EventRow],
    now: DateTime<Utc>,
) -> Vec<Step> {
    let mut account = Account::new(roots, asked);
    events.iter().for_each(|row| account.take(row));
    account.ends(thread, now)
}
