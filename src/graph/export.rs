//! A run as one JSON document: enough to look at it, verify it and replay it anywhere.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::journal::digest;
use super::{Checkpoint, EngineError, Entry, EventRow, Failure, Interrupt, Store, StoreError, Thread, ThreadId};

/// The document's format; counted up when its meaning changes.
pub const FORMAT: &str = "tidegate-run/1";

/// A thread with its whole record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// [`FORMAT`].
    pub format: String,
    /// The thread's row, without its owner.
    pub thread: Thread,
    /// Checkpoints of all namespaces, each namespace oldest first.
    pub checkpoints: Vec<Checkpoint>,
    /// The journal.
    pub journal: Vec<Entry>,
    /// All questions with their answers.
    pub interrupts: Vec<Interrupt>,
    /// All events.
    pub events: Vec<EventRow>,
    /// Digests of all of it, made as it was exported; `None` in exports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
}

/// A digest of each row: what no run of the graph gives again (times, who answered, events, branches that were left) is held against it.
/// Whoever changes the record by mistake is told where; it is no signature.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Of the thread's row.
    pub thread: String,
    /// Of each checkpoint.
    pub checkpoints: Vec<String>,
    /// Of each journal entry.
    pub journal: Vec<String>,
    /// Of each question.
    pub interrupts: Vec<String>,
    /// Of each event.
    pub events: Vec<String>,
}

/// The first half of the SHA-256 of a row's canonical JSON, in hex: enough to see any change.
fn short<T: Serialize>(row: &T) -> String {
    // What was read from JSON or made by us can be written; and if not, it fits no seal.
    let value = serde_json::to_value(row).unwrap_or(Value::Null);
    digest(&value).trim_start_matches("sha256:")[..32].to_owned()
}

/// The first place in which two lists of digests differ.
fn first_change(then: &[String], now: &[String], place: impl Fn(usize) -> Option<String>) -> Option<String> {
    let at = (0..then.len().max(now.len())).find(|at| then.get(*at) != now.get(*at))?;
    Some(format!("{}{}", at + 1, place(at).map(|place| format!(" ({place})")).unwrap_or_default()))
}

impl Export {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is none, is of another format, has something that this version does not know, or is not as it was exported; each
    /// with its place.
    pub fn read(text: &str) -> Result<Self, Failure> {
        super::import::read(text)
    }

    /// Reads a thread's record.
    pub async fn of(store: &dyn Store, id: &ThreadId) -> Result<Self, EngineError> {
        let thread = store.thread(id).await?.ok_or_else(|| StoreError::NoThread(id.clone()))?;
        let mut checkpoints = Vec::new();
        for ns in store.namespaces(id).await? {
            checkpoints.extend(store.history(id, &ns).await?);
        }
        let (journal, interrupts) = (store.journal(id).await?, store.interrupts(Some(id), false).await?);
        let events = store.events(id, 0, usize::MAX).await?;
        Ok(Self::made_of(thread, checkpoints, journal, interrupts, events))
    }

    /// The document of what a store has. Who advances it, and how it came there, is that store's own.
    pub fn made_of(
        thread: Thread,
        checkpoints: Vec<Checkpoint>,
        journal: Vec<Entry>,
        interrupts: Vec<Interrupt>,
        events: Vec<EventRow>,
    ) -> Self {
        let thread = Thread { owner: None, attendant: None, imported: None, ..thread };
        let export = Self { format: FORMAT.to_owned(), thread, checkpoints, journal, interrupts, events, seal: None };
        Self { seal: Some(export.seal()), ..export }
    }

    fn seal(&self) -> Seal {
        Seal {
            thread: short(&self.thread),
            checkpoints: self.checkpoints.iter().map(short).collect(),
            journal: self.journal.iter().map(short).collect(),
            interrupts: self.interrupts.iter().map(short).collect(),
            events: self.events.iter().map(short).collect(),
        }
    }

    /// Refuses a document that is not as it was exported; names the first row that differs.
    pub(super) fn is_sealed(&self) -> Result<(), Failure> {
        let Some(then) = &self.seal else { return Ok(()) };
        let now = self.seal();
        let step = |at: usize| self.checkpoints.get(at).map(|c| format!("superstep {} of `{}`", c.step, c.ns));
        let entry = |at: usize| self.journal.get(at).map(|entry| entry.key.place());
        let asked = |at: usize| self.interrupts.get(at).map(|asked| asked.key.place());
        let changed = (then.thread != now.thread)
            .then(|| "the thread's row".to_owned())
            .or_else(|| first_change(&then.checkpoints, &now.checkpoints, step).map(|at| format!("checkpoint {at}")))
            .or_else(|| first_change(&then.journal, &now.journal, entry).map(|at| format!("journal entry {at}")))
            .or_else(|| first_change(&then.interrupts, &now.interrupts, asked).map(|at| format!("question {at}")))
            .or_else(|| first_change(&then.events, &now.events, |_| None).map(|at| format!("event {at}")));
        let Some(changed) = changed else { return Ok(()) };
        let failure = Failure::new("export_changed", format!("the export has been changed: {changed}"));
        Err(failure.because("it does not fit the digest that was made with the export").hint("export the run again"))
    }

    /// One digest of all of it.
    pub fn digest(&self) -> String {
        // What was read from JSON or made by us can be written.
        digest(&serde_json::to_value(&self.seal).unwrap_or(Value::Null))
    }

    /// The first place in which two documents differ, in words.
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        let mut now = self.clone();
        now.seal.clone_from(&other.seal);
        match now.is_sealed() {
            Err(failure) => Some(failure.message.trim_start_matches("the export has been changed: ").to_owned()),
            Ok(()) => (self.seal != other.seal).then(|| "the seal".to_owned()),
        }
    }
}
