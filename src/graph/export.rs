//! A run as one JSON document: enough to look at it, verify it and replay it anywhere.

use serde::{Deserialize, Serialize};

use super::{Checkpoint, EngineError, Entry, EventRow, Interrupt, Store, StoreError, Thread, ThreadId};

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
}

impl Export {
    /// Reads a thread's record.
    pub async fn of(store: &dyn Store, id: &ThreadId) -> Result<Self, EngineError> {
        let mut thread = store.thread(id).await?.ok_or_else(|| StoreError::NoThread(id.clone()))?;
        thread.owner = None;
        thread.attendant = None;
        let mut checkpoints = Vec::new();
        for ns in store.namespaces(id).await? {
            checkpoints.extend(store.history(id, &ns).await?);
        }
        Ok(Self {
            format: FORMAT.to_owned(),
            thread,
            checkpoints,
            journal: store.journal(id).await?,
            interrupts: store.interrupts(Some(id), false).await?,
            events: store.events(id, 0, usize::MAX).await?,
        })
    }
}
