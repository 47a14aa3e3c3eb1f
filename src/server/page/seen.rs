//! Events of runs that somebody looks at, kept while they do: a page is shown anew with each change, and reads what is new since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::OwnedMutexGuard;

use crate::app::App;
use crate::graph::{Event, EventRow, StoreError, Thread, ThreadId};

/// Runs whose events are kept; those that nobody has looked at for longest go.
const MOST: usize = 16;
/// A longer run is read anew each time: more than this in memory is more than its page shows.
const MOST_EVENTS: usize = 50_000;
/// Events that are read at once, and bytes.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;

/// What is kept.
#[derive(Default)]
pub(in crate::server) struct Seen(Mutex<HashMap<ThreadId, Kept>>);

struct Kept {
    /// A thread that was taken back begins anew, under the same id.
    created_at: DateTime<Utc>,
    looked_at: Instant,
    events: Arc<tokio::sync::Mutex<Told>>,
}

/// The events of a run that its page tells of, as far as they were read.
#[derive(Default)]
pub(super) struct Told {
    pub events: Vec<EventRow>,
    /// The newest that was read.
    read: u64,
}

impl Seen {
    /// The events of a thread, read on; nobody else reads them meanwhile.
    pub(super) async fn of(&self, app: &App, thread: &Thread) -> Result<OwnedMutexGuard<Told>, StoreError> {
        let mut told = self.kept(thread).lock_owned().await;
        loop {
            let more = app.database().some_events(&thread.id, told.read, BATCH, BATCH_BYTES).await?;
            let Some(last) = more.last() else { break };
            told.read = last.seq;
            // What a node wrote is in the checkpoints; no way leads over it.
            told.events.extend(more.into_iter().filter(|row| !matches!(row.event, Event::Wrote { .. })));
        }
        if told.events.len() > MOST_EVENTS {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&thread.id);
        }
        Ok(told)
    }

    fn kept(&self, thread: &Thread) -> Arc<tokio::sync::Mutex<Told>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Kept { created_at: thread.created_at, looked_at: Instant::now(), events: Arc::default() };
        let kept = all.entry(thread.id.clone()).or_insert_with(fresh);
        if kept.created_at != thread.created_at {
            *kept = fresh();
        }
        kept.looked_at = Instant::now();
        let events = kept.events.clone();
        if all.len() > MOST {
            let oldest = all.iter().min_by_key(|(_, kept)| kept.looked_at).map(|(id, _)| id.clone());
            oldest.and_then(|oldest| all.remove(&oldest));
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Home;
    use crate::graph::Advance;

    #[tokio::test]
    async fn what_was_read_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let app = App::open(Home::open(Some(dir.path())).unwrap(), "test", None).await.unwrap();
        let workflow = app.workflow("tests/workflows/trivial.yaml").unwrap();
        let input = serde_json::Map::from_iter([("x".to_owned(), 1.into())]);
        let seen = Seen::default();
        let mut first = None;
        for _ in 0..=MOST {
            let id = app.accept(None, &workflow, input.clone(), Default::default()).await.unwrap();
            let thread = app.thread(&id).await.unwrap();
            let before = seen.of(&app, &thread).await.unwrap().events.len();
            app.advance(&id, Advance::default()).await.unwrap();
            let kept = seen.kept(&thread);
            assert_eq!(kept.lock().await.events.len(), before);
            let told = seen.of(&app, &thread).await.unwrap();
            assert!(told.events.len() > before);
            assert_eq!(told.events, app.store().events(&id, 0, usize::MAX).await.unwrap());
            first.get_or_insert(thread);
        }
        assert_eq!(seen.0.lock().unwrap().len(), MOST);
        assert!(!seen.0.lock().unwrap().contains_key(&first.unwrap().id), "who was looked at long ago goes");
    }
}
