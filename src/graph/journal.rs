//! The journal: every side effect's intent and receipt, every pinned reading, every question, under a key that survives re-runs.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Checkpoint, Failure, InterruptId, Name, Task, TaskPath, ThreadId};

/// Where in a thread something happens. Never a checkpoint id: a node that runs again from its top finds the same keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JournalKey {
    /// 0 for the thread's own line of history; a fork has its own number and owns none of its ancestor's effects.
    pub fork: u32,
    /// Namespace of the graph.
    pub ns: Name,
    /// The node.
    pub node: Name,
    /// The how-many-eth time the node is due.
    pub visit: u64,
    /// Index of the Send, where the task is one.
    pub send: Option<u32>,
    /// The name given at the call.
    pub name: String,
    /// Counts calls with the same name in one execution.
    pub ordinal: u32,
}

impl JournalKey {
    /// The path of the task that asks.
    pub(super) fn path(&self) -> TaskPath {
        self.send.map_or_else(|| TaskPath::Pull(self.node.clone()), TaskPath::Push)
    }

    /// The key of what a task asks for.
    pub(super) fn of(checkpoint: &Checkpoint, task: &Task, name: &str, ordinal: u32) -> Self {
        Self {
            fork: checkpoint.fork,
            ns: checkpoint.ns.clone(),
            node: task.node.clone(),
            visit: task.visit,
            send: task.send(),
            name: name.to_owned(),
            ordinal,
        }
    }

    /// `ns/node#visit[send]/name#ordinal`, for people and for hashing.
    pub fn place(&self) -> String {
        let send = self.send.map(|s| format!("[{s}]")).unwrap_or_default();
        let fork = if self.fork == 0 { String::new() } else { format!("fork {}: ", self.fork) };
        let ns = if self.ns.is_empty() { String::new() } else { format!("{}|", self.ns) };
        format!("{fork}{ns}{}#{}{send}/{}#{}", self.node, self.visit, self.name, self.ordinal)
    }

    /// An idempotency key for the outside world: 24 hex digits, the same for every repetition in this thread.
    pub fn token(&self, thread: &ThreadId) -> String {
        hash(thread, &self.place())[..24].to_owned()
    }

    /// The id of an interrupt asked here.
    pub fn interrupt_id(&self, thread: &ThreadId) -> InterruptId {
        InterruptId::from(hash(thread, &self.place())[..32].to_owned())
    }
}

fn hash(thread: &ThreadId, place: &str) -> String {
    let mut sha = Sha256::new();
    sha.update(thread.as_str());
    sha.update([0]);
    sha.update(place);
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What kind of entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A side effect.
    Effect,
    /// A reading of the world that is kept for the whole visit (also `now`).
    Pin,
    /// A reading of the world that is taken afresh on every attempt; the last one is kept for replay.
    Observation,
    /// A wait: what it waits for, and what ended it.
    Wait,
}

/// How far an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryStatus {
    /// About to be performed, or interrupted while it was.
    Intent,
    /// Performed; the receipt is there.
    Done,
    /// The last attempt failed and nothing is left of it.
    Failed,
    /// An undo has begun.
    Undoing,
    /// Undone.
    Undone,
    /// The undo failed; a person must look.
    UndoFailed,
    /// Somebody accepted that it stays as it is: its undo failed, or nobody can tell whether it happened.
    Accepted,
}

/// What happens to an effect's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryEvent {
    /// Attempted (again).
    Attempt,
    /// Performed, or found performed by a probe.
    Receipt,
    /// The attempt failed, or a probe found nothing.
    Fail,
    /// Undo begins (again).
    Undo,
    /// Undo is through.
    Undone,
    /// Undo failed.
    UndoFail,
    /// Somebody accepts it as it is.
    Accept,
}

impl EntryStatus {
    /// Whether nothing of it is left to be undone.
    pub fn is_settled(self) -> bool {
        match self {
            Self::Undone | Self::Accepted => true,
            Self::Intent | Self::Done | Self::Failed | Self::Undoing | Self::UndoFailed => false,
        }
    }

    /// The one place where an entry's status changes. `None`: the event does not fit.
    pub fn on(self, event: EntryEvent) -> Option<Self> {
        use EntryEvent as E;
        use EntryStatus as S;
        match (self, event) {
            (S::Intent | S::Failed, E::Attempt) => Some(S::Intent),
            (S::Intent, E::Receipt) => Some(S::Done),
            (S::Intent, E::Fail) => Some(S::Failed),
            (S::Done | S::Undoing | S::UndoFailed, E::Undo) => Some(S::Undoing),
            (S::Undoing, E::Undone) => Some(S::Undone),
            (S::Undoing, E::UndoFail) => Some(S::UndoFailed),
            (S::Intent | S::Failed | S::UndoFailed, E::Accept) => Some(S::Accepted),
            (
                S::Intent | S::Done | S::Failed | S::Undoing | S::Undone | S::UndoFailed | S::Accepted,
                E::Attempt | E::Receipt | E::Fail | E::Undo | E::Undone | E::UndoFail | E::Accept,
            ) => None,
        }
    }
}

/// One entry. A later record with the same key replaces the earlier one (its number stays).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number within the thread, from 1, in order of first intent; undo goes from the highest down.
    pub seq: u64,
    /// Where.
    pub key: JournalKey,
    /// What kind.
    pub kind: EntryKind,
    /// The effect's kind (`start_slot` …); empty for readings.
    pub effect: String,
    /// The effect's input.
    pub input: Value,
    /// How far.
    pub status: EntryStatus,
    /// The receipt, or the reading.
    pub receipt: Option<Value>,
    /// The last failure.
    pub failure: Option<Failure>,
    /// How often it was attempted.
    pub attempts: u32,
    /// When it was first intended.
    pub at: DateTime<Utc>,
    /// When it changed last.
    pub updated_at: DateTime<Utc>,
}

/// A question to a human.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interrupt {
    /// Its id.
    pub id: InterruptId,
    /// The thread.
    pub thread: ThreadId,
    /// Where it was asked.
    pub key: JournalKey,
    /// What is asked.
    pub value: Value,
    /// `sha256:<hex>` of the canonical JSON of `value`: an answer may name what it answers.
    pub digest: String,
    /// When it was asked.
    pub asked_at: DateTime<Utc>,
    /// When an answer comes too late.
    pub expires_at: Option<DateTime<Utc>>,
    /// The answer.
    pub answer: Option<Answer>,
    /// Nobody needs an answer any more: the thread went on without it or ended.
    pub withdrawn: bool,
    /// Nobody answered in time, and the asking node was told so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

impl Interrupt {
    /// Whether its time is over at `now` without an answer.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.answer.is_none() && self.expires_at.is_some_and(|at| at <= now)
    }

    /// What the asking node gets instead of an answer.
    pub(super) fn expiry(&self) -> Failure {
        let at = self.expires_at.unwrap_or(self.asked_at).format("%Y-%m-%d %H:%M:%S UTC");
        Failure::new("expired", format!("nobody answered question {} by {at}", self.id))
            .hint("start again, and decide in time or give it a longer `ttl`")
    }
}

/// An answer to a question: claimed once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What the asking node gets.
    pub value: Value,
    /// Who answered.
    pub by: String,
    /// Through what: `terminal`, `--yes`, `approve` …
    pub via: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// `sha256:<hex>` of a value's canonical JSON (object keys sorted, no white space).
pub fn digest(value: &Value) -> String {
    let mut sha = Sha256::new();
    sha.update(value.to_string());
    sha.finalize().iter().fold("sha256:".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_places_apart() {
        let key = JournalKey {
            fork: 0,
            ns: "sub:1".into(),
            node: "w".into(),
            visit: 2,
            send: Some(3),
            name: "start".into(),
            ordinal: 0,
        };
        assert_eq!(key.place(), "sub:1|w#2[3]/start#0");
        let thread = ThreadId::from("t");
        let other = JournalKey { ordinal: 1, ..key.clone() };
        assert_ne!(key.token(&thread), other.token(&thread));
        assert_ne!(key.token(&thread), key.token(&ThreadId::from("u")));
        assert_eq!(key.interrupt_id(&thread).as_str().len(), 32);
    }
}
