//! What clients of the server make: assistants, threads, and the runs in each thread's queue. Every change is one transaction, so that
//! what was accepted is there after any crash.

mod assistants;
mod runs;
mod threads;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

pub use assistants::{AssistantFilter, AssistantText, ServedAssistant};
pub use runs::{Accepted, AskedCancel, NewRun, RunBody, RunEnded, RunRestsOn, RunStatus, ServedRun, stopped};
pub use threads::{ServedStatus, ServedThread, SortKey, ThreadSearch};

use super::SqliteStore;
use super::people::NewRunWebhook;
use crate::graph::{Owner, Record, StoreError, Thread, ThreadId};

impl SqliteStore {
    /// Adds a thread, or gives the one of that id; true: it is new.
    pub async fn add_api_thread(
        &self,
        id: &ThreadId,
        metadata: Map<String, Value>,
        at: DateTime<Utc>,
    ) -> Result<(ServedThread, bool), StoreError> {
        let id = id.clone();
        self.writer.run(move |tx| threads::add(tx.conn, &id, &metadata, at)).await
    }

    /// One thread. What the engine knows and no client has asked for before is taken in.
    pub async fn api_thread(&self, id: &ThreadId) -> Result<Option<ServedThread>, StoreError> {
        let wanted = id.clone();
        let found = self.readers.read_few(move |conn| threads::one(conn, &wanted)).await?;
        if found.is_some() {
            return Ok(found);
        }
        let wanted = id.clone();
        // Whoever asks for what is not there writes nothing.
        if !self.has_begun(&wanted).await? {
            return Ok(None);
        }
        let id = id.clone();
        self.writer
            .run(move |tx| {
                threads::one(tx.conn, &id)?.map_or_else(|| threads::take_in(tx.conn, &id), |found| Ok(Some(found)))
            })
            .await
    }

    /// Whether the engine has anything of a thread.
    pub async fn has_begun(&self, id: &ThreadId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.readers.read_few(move |conn| Ok(threads::number(conn, &id)?.is_some())).await
    }

    /// Adds keys to a thread's metadata.
    pub async fn patch_api_thread(
        &self,
        id: &ThreadId,
        metadata: Map<String, Value>,
        at: DateTime<Utc>,
    ) -> Result<Option<ServedThread>, StoreError> {
        let id = id.clone();
        self.writer.run(move |tx| threads::patch(tx.conn, &id, &metadata, at)).await
    }

    /// Says that a thread's state has changed.
    pub async fn touch_api_thread(&self, id: &ThreadId, at: DateTime<Utc>) -> Result<(), StoreError> {
        let id = id.clone();
        self.writer.run(move |tx| threads::touch(tx.conn, &id, at)).await
    }

    /// Removes a thread with its runs and all that the engine has of it; the audit stays. False: there is none.
    ///
    /// # Errors
    /// [`StoreError::Held`]: somebody but `own` is at work on it.
    pub async fn delete_api_thread(&self, id: &ThreadId, own: &Owner) -> Result<bool, StoreError> {
        let (id, own, liveness) = (id.clone(), own.clone(), self.liveness.clone());
        self.writer
            .run(move |tx| {
                let n = threads::number(tx.conn, &id)?;
                let gone = threads::delete(tx.conn, &id, &own, &*liveness)?;
                tx.lines.forget(&n.into_iter().map(|n| (id.clone(), n)).collect());
                Ok(gone)
            })
            .await
    }

    /// Removes what the engine has of a thread, and keeps the thread for further runs.
    pub async fn forget_progress(&self, id: &ThreadId, at: DateTime<Utc>) -> Result<(), StoreError> {
        let id = id.clone();
        self.writer
            .run(move |tx| {
                let n = threads::number(tx.conn, &id)?;
                threads::forget_progress(tx.conn, &id, at)?;
                tx.lines.forget(&n.into_iter().map(|n| (id.clone(), n)).collect());
                Ok(())
            })
            .await
    }

    /// The threads that fit, and how many there are without limit and offset.
    pub async fn api_threads(&self, search: &ThreadSearch) -> Result<(Vec<ServedThread>, usize), StoreError> {
        let search = search.clone();
        self.readers.read(move |conn| threads::search(conn, &search)).await
    }

    /// Accepts a run, if its thread can take it.
    pub async fn accept_run(&self, new: NewRun) -> Result<Accepted, StoreError> {
        self.writer.run(move |tx| runs::accept(tx.conn, &new)).await
    }

    /// The same with the thread that the run begins with, which has its lease: both or none are kept. A thread that is there already, or a
    /// run that waits, takes none.
    pub async fn accept_run_with(&self, new: NewRun, thread: (Thread, Vec<Record>)) -> Result<Accepted, StoreError> {
        let (thread, records) = thread;
        let both = move |tx: &mut super::batch::Tx<'_>| {
            let accepted = runs::accept(tx.conn, &new)?;
            let begins = matches!(&accepted, Accepted::Queued { run, .. } if run.status == RunStatus::Running);
            if begins && threads::number(tx.conn, &new.thread)?.is_none() {
                super::records::create(tx, &thread, &records)?;
            }
            Ok(accepted)
        };
        self.writer.run(both).await
    }

    /// How a run stands, and who has stopped it: without what its client sent.
    pub async fn run_stands(&self, id: &str) -> Result<Option<(RunStatus, Option<AskedCancel>)>, StoreError> {
        let id = id.to_owned();
        self.readers.read_few(move |conn| runs::stands(conn, &id)).await
    }

    /// The run of a thread that is under way, else the first that waits.
    pub async fn next_run(&self, thread: &ThreadId) -> Result<Option<ServedRun>, StoreError> {
        let thread = thread.clone();
        self.readers.read_few(move |conn| runs::next(conn, &thread)).await
    }

    /// Whether a thread has runs that have not ended.
    pub async fn has_open_runs(&self, thread: &ThreadId) -> Result<bool, StoreError> {
        let thread = thread.clone();
        self.readers.read_few(move |conn| runs::any_open(conn, &thread)).await
    }

    /// One run.
    pub async fn api_run(&self, id: &str) -> Result<Option<ServedRun>, StoreError> {
        let id = id.to_owned();
        let of = id.clone();
        self.readers.read_little(move |conn| runs::is_little(conn, &of), move |conn| runs::one(conn, &id)).await
    }

    /// A thread's runs, newest first, of one status or of all.
    pub async fn api_runs(
        &self,
        thread: &ThreadId,
        status: Option<RunStatus>,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<ServedRun>, StoreError> {
        let thread = thread.clone();
        self.readers.read(move |conn| runs::list(conn, &thread, status, limit, offset)).await
    }

    /// A thread's runs that have not ended, in the order of its queue.
    pub async fn open_runs(&self, thread: &ThreadId) -> Result<Vec<ServedRun>, StoreError> {
        let thread = thread.clone();
        self.readers.read(move |conn| runs::open(conn, &thread)).await
    }

    /// The threads that have runs which have not ended.
    pub async fn threads_with_open_runs(&self) -> Result<Vec<ThreadId>, StoreError> {
        self.readers.read(runs::threads_with_open).await
    }

    /// Threads that were made for one run which has ended.
    pub async fn left_over_threads(&self) -> Result<Vec<ThreadId>, StoreError> {
        self.readers.read(runs::left_over).await
    }

    /// The number of a thread's newest event.
    pub async fn last_event(&self, thread: &ThreadId) -> Result<u64, StoreError> {
        let thread = thread.clone();
        let last = move |conn: &rusqlite::Connection| {
            let n = super::threads::number(conn, &thread)?;
            super::fault::uncount(super::events::last(conn, n)?)
        };
        self.readers.read_few(last).await
    }

    /// What the end of a run rests on, as of one moment.
    pub async fn run_rests_on(&self, run: &str, thread: &ThreadId) -> Result<RunRestsOn, StoreError> {
        let (run, thread, of) = (run.to_owned(), thread.clone(), thread.clone());
        let look = move |conn: &rusqlite::Connection| {
            let begun = threads::number(conn, &thread)?;
            let open = begun.map(|_| super::interrupts::list(conn, Some(&thread), true)).transpose()?;
            let last = begun.map_or(Ok(0), |n| super::fault::uncount(super::events::last(conn, n)?))?;
            let cancel = runs::stands(conn, &run)?.and_then(|(_, cancel)| cancel);
            Ok(RunRestsOn { cancel, begun: begun.is_some(), open: open.unwrap_or_default(), last })
        };
        self.readers.read_little(move |conn| super::threads::is_little(conn, &of), look).await
    }

    /// The newest values of a thread; `None`: nothing has begun there.
    pub async fn newest(&self, thread: &ThreadId) -> Result<Option<crate::graph::Checkpoint>, StoreError> {
        let (thread, of) = (thread.clone(), thread.clone());
        let newest = move |conn: &rusqlite::Connection| match threads::number(conn, &thread)? {
            Some(n) => super::checkpoints::latest(conn, n, ""),
            None => Ok(None),
        };
        self.readers.read_little(move |conn| super::threads::is_little(conn, &of), newest).await
    }

    /// Removes threads that were made for one run each, in one transaction. What has a run that is not over stays, and so does what somebody
    /// else who lives is at work on. Returns those that stay.
    pub async fn clear_threads(&self, ids: Vec<ThreadId>, own: &Owner) -> Result<Vec<ThreadId>, StoreError> {
        let (own, liveness) = (own.clone(), self.liveness.clone());
        let all = move |tx: &mut super::batch::Tx<'_>| {
            let (mut stay, mut gone) = (Vec::new(), HashMap::new());
            for id in &ids {
                let n = threads::number(tx.conn, id)?;
                if runs::any_open(tx.conn, id)? || threads::held_elsewhere(tx.conn, id, &own, &*liveness)?.is_some() {
                    stay.push(id.clone());
                    continue;
                }
                threads::delete(tx.conn, id, &own, &*liveness)?;
                gone.extend(n.map(|n| (id.clone(), n)));
            }
            tx.lines.forget(&gone);
            Ok(stay)
        };
        self.writer.run(all).await
    }

    /// The run begins: `first` is its thread's newest event before it. False: it is not pending any more.
    pub async fn begin_run(&self, id: &str, first: u64, at: DateTime<Utc>) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.writer.run(move |tx| runs::begin(tx.conn, &id, first, at)).await
    }

    /// The run has ended; the first end counts. What its webhook is to be told is kept with it. False: somebody has stopped it otherwise since.
    pub async fn end_run(&self, id: &str, ended: RunEnded) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.writer.run(move |tx| runs::end(tx.conn, &id, &ended)).await
    }

    /// Stops a run: when this returns it is durable that somebody has. `told`: what its webhook is told should it never have begun. The run as it
    /// was; `None`: it is over, or gone.
    pub async fn cancel_run(
        &self,
        id: &str,
        asked: AskedCancel,
        told: Option<NewRunWebhook>,
    ) -> Result<Option<ServedRun>, StoreError> {
        let id = id.to_owned();
        self.writer.run(move |tx| runs::cancel(tx.conn, &id, &asked, told.as_ref())).await
    }

    /// Removes a run from its thread's list.
    pub async fn delete_run(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.writer.run(move |tx| runs::delete(tx.conn, &id)).await
    }

    /// Adds an assistant; `None`: there is one of that id.
    pub async fn add_assistant(
        &self,
        id: &str,
        graph: &str,
        text: AssistantText,
        at: DateTime<Utc>,
    ) -> Result<Option<ServedAssistant>, StoreError> {
        let (id, graph) = (id.to_owned(), graph.to_owned());
        self.writer.run(move |tx| assistants::add(tx.conn, &id, &graph, &text, at)).await
    }

    /// One assistant, at the version that counts.
    pub async fn assistant(&self, id: &str) -> Result<Option<ServedAssistant>, StoreError> {
        let id = id.to_owned();
        self.readers.read_few(move |conn| assistants::one(conn, &id)).await
    }

    /// Assistants, newest first.
    pub async fn assistants(&self, filter: &AssistantFilter) -> Result<Vec<ServedAssistant>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |conn| assistants::list(conn, &filter)).await
    }

    /// All versions of an assistant, newest first.
    pub async fn assistant_versions(&self, id: &str) -> Result<Vec<ServedAssistant>, StoreError> {
        let id = id.to_owned();
        self.readers.read(move |conn| assistants::versions(conn, &id)).await
    }

    /// Adds a version, which counts from now on.
    pub async fn change_assistant(
        &self,
        id: &str,
        graph: &str,
        text: AssistantText,
        at: DateTime<Utc>,
    ) -> Result<Option<ServedAssistant>, StoreError> {
        let (id, graph) = (id.to_owned(), graph.to_owned());
        self.writer.run(move |tx| assistants::change(tx.conn, &id, &graph, &text, at)).await
    }

    /// Lets a version count; `None`: there is none of that number.
    pub async fn set_assistant_version(
        &self,
        id: &str,
        version: u64,
        at: DateTime<Utc>,
    ) -> Result<Option<ServedAssistant>, StoreError> {
        let id = id.to_owned();
        self.writer.run(move |tx| assistants::set_version(tx.conn, &id, version, at)).await
    }

    /// Removes an assistant with all of its versions. False: there is none.
    pub async fn delete_assistant(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.writer.run(move |tx| assistants::delete(tx.conn, &id)).await
    }
}

/// Whether `all` has every key of `part` with the same value; objects are looked into.
fn contains(all: &Map<String, Value>, part: &Map<String, Value>) -> bool {
    part.iter().all(|(key, wanted)| match (all.get(key), wanted) {
        (Some(Value::Object(all)), Value::Object(part)) => contains(all, part),
        (found, wanted) => found == Some(wanted),
    })
}
