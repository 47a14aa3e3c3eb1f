//! The store: the engine's calls, put to the writer or to a reader.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::Connection;

use super::batch::Tx;
use super::fault::Done;
use super::lines::Hints;
use super::open::{self, Options};
use super::prune::{self, Prune, Pruned};
use super::readers::Readers;
use super::records;
use super::writer::Writer;
use super::{
    AuditError, AuditExport, AuditHead, audit, cache, checkpoints, events, inbox, interrupts, items, journal, threads,
};
use crate::graph::{
    Checkpoint, CheckpointId, Claim, Entry, EventRow, Inbox, Interrupt, InterruptId, Item, Liveness, Name, Opening,
    Owner, Partial, Produced, Recall, Record, Signal, StopAsk, Store, StoreError, Thread, ThreadFilter, ThreadId,
    Transaction,
};

/// A store in one SQLite file. Several handles, in one process or in several, may be open on the same file.
pub struct SqliteStore {
    path: PathBuf,
    pub(super) readers: Readers,
    pub(super) writer: Writer,
    hints: Hints,
    pub(super) liveness: Arc<dyn Liveness>,
}

impl SqliteStore {
    /// Opens the file, or makes it with its directory; blocks for some milliseconds.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, Options::default())
    }

    /// The same, with options.
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let conn = open::writer(&path, &options)?;
        let hints = Hints::default();
        let writer = Writer::start(conn, path.clone(), &options, hints.clone())?;
        let liveness = options.liveness.clone();
        Ok(Self { readers: Readers::new(path.clone(), options), writer, hints, liveness, path })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many transactions this handle has committed: many requests share one.
    pub fn transactions(&self) -> u64 {
        self.writer.transactions()
    }

    /// SQLite's own check of the whole file; an error says what is damaged.
    pub async fn check_integrity(&self) -> Result<(), StoreError> {
        let said: String =
            self.readers.read(|conn| Ok(conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?)).await?;
        if said == "ok" { Ok(()) } else { Err(StoreError::Damaged(said)) }
    }

    /// Drops what may go of the history; audit and ledger stay.
    pub async fn prune(&self, what: &Prune) -> Result<Pruned, StoreError> {
        let what = what.clone();
        self.writer.run(move |tx| prune::prune(tx, &what)).await
    }

    /// Gives the room of what was dropped back to the disk; blocks everybody else while it works, and needs as much room again.
    pub async fn vacuum(&self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let vacuumed = tokio::task::spawn_blocking(move || open::vacuum(&path)).await;
        vacuumed.map_err(|e| StoreError::Failed(e.to_string()))?
    }

    /// The audit as a document: all of it, or the rows of one thread.
    pub async fn audit_export(&self, thread: Option<&ThreadId>) -> Result<AuditExport, StoreError> {
        let thread = thread.cloned();
        self.readers.read(move |conn| audit::export(conn, thread.as_ref())).await
    }

    /// Holds the whole audit against its hashes: how far it goes, or the first broken row.
    pub async fn verify_audit(&self) -> Result<AuditHead, AuditError> {
        self.readers.read(audit::verify).await?
    }

    /// Audited events of a thread with their number in the audit, after `after`, at most `limit`.
    pub async fn audit(&self, thread: &ThreadId, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        let thread = thread.clone();
        self.readers.read(move |conn| audit::of_thread(conn, &thread, after, limit)).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        let thread = thread.clone();
        self.writer.run(move |tx| records::create(tx, &thread, &records)).await
    }

    async fn create_quietly(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        let thread = thread.clone();
        self.writer.run_for_soon(move |tx| records::create(tx, &thread, &records)).await
    }

    async fn thread(&self, id: &ThreadId) -> Result<Option<Thread>, StoreError> {
        let id = id.clone();
        self.readers.read_few(move |conn| threads::one(conn, &id)).await
    }

    async fn threads(&self, filter: &ThreadFilter) -> Result<Vec<Thread>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |conn| threads::list(conn, &filter)).await
    }

    async fn acquire(&self, id: &ThreadId, owner: &Owner) -> Result<Thread, StoreError> {
        let (id, owner, liveness) = (id.clone(), owner.clone(), self.liveness.clone());
        self.writer.run_for_processes(move |tx| threads::acquire(tx, &id, &owner, &*liveness)).await
    }

    async fn begin(
        &self,
        id: &ThreadId,
        owner: &Owner,
        at: DateTime<Utc>,
        opening: Opening,
    ) -> Result<Thread, StoreError> {
        let (id, owner, liveness) = (id.clone(), owner.clone(), self.liveness.clone());
        let of = id.clone();
        // Why it cannot be read, the writer tells.
        let by_itself = self.readers.read_few(move |conn| threads::goes_on_by_itself(conn, &of)).await.unwrap_or(false);
        let begin = move |tx: &mut Tx<'_>| records::begin(tx, &id, &owner, &*liveness, at, &opening);
        match by_itself {
            true => self.writer.run_for_processes(begin).await,
            // It goes on because somebody said so, and that is noted nowhere else.
            false => self.writer.run(begin).await,
        }
    }

    async fn recall(&self, id: &ThreadId) -> Result<Recall, StoreError> {
        let (id, hints) = (id.clone(), self.hints.clone());
        let of = id.clone();
        self.readers.read_little(move |conn| threads::is_little(conn, &of), move |conn| recall(conn, &id, &hints)).await
    }

    async fn release(&self, id: &ThreadId, epoch: u64) -> Result<(), StoreError> {
        let id = id.clone();
        self.writer.run_for_processes(move |tx| threads::release(tx, &id, epoch)).await
    }

    async fn attend(&self, id: &ThreadId, attendant: Option<&Owner>) -> Result<(), StoreError> {
        let (id, attendant) = (id.clone(), attendant.cloned());
        self.writer.run_for_processes(move |tx| threads::attend(tx, &id, attendant.as_ref())).await
    }

    async fn signal(&self, id: &ThreadId, signal: &Signal) -> Result<u64, StoreError> {
        let (id, signal) = (id.clone(), signal.clone());
        self.writer.run(move |tx| inbox::signal(tx, &id, &signal)).await
    }

    async fn signals(&self, id: &ThreadId) -> Result<Vec<Signal>, StoreError> {
        let id = id.clone();
        self.readers.read_few(move |conn| inbox::signals(conn, threads::number(conn, &id)?)).await
    }

    async fn cached(&self, key: &str, now: DateTime<Utc>) -> Result<Option<Produced>, StoreError> {
        let key = key.to_owned();
        self.readers.read_few(move |conn| cache::get(conn, &key, now)).await
    }

    async fn item(&self, namespace: &str, key: &str, now: DateTime<Utc>) -> Result<Option<Item>, StoreError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.readers.read_few(move |conn| items::one(conn, &namespace, &key, now)).await
    }

    async fn items(&self, prefix: &str, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>, StoreError> {
        let prefix = prefix.to_owned();
        self.readers.read(move |conn| items::inside(conn, &prefix, now, limit)).await
    }

    async fn ask_stop(&self, id: &ThreadId, ask: &StopAsk) -> Result<(), StoreError> {
        let (id, ask) = (id.clone(), ask.clone());
        self.writer.run(move |tx| inbox::ask_stop(tx, &id, &ask)).await
    }

    async fn inbox(&self, id: &ThreadId) -> Result<Inbox, StoreError> {
        let id = id.clone();
        self.readers.read_few(move |conn| inbox::read(conn, &id)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let Transaction { thread, epoch, at, records } = transaction;
        self.writer.run(move |tx| records::commit(tx, &thread, epoch, at, &records)).await
    }

    async fn latest(&self, id: &ThreadId, ns: &str) -> Result<Option<Checkpoint>, StoreError> {
        let (id, of, ns_is_root, ns) = (id.clone(), id.clone(), ns.is_empty(), ns.to_owned());
        let latest = move |conn: &Connection| checkpoints::latest(conn, threads::number(conn, &id)?, &ns);
        match ns_is_root {
            true => self.readers.read_little(move |conn| threads::is_little(conn, &of), latest).await,
            false => self.readers.read(latest).await,
        }
    }

    async fn history(&self, id: &ThreadId, ns: &str) -> Result<Vec<Checkpoint>, StoreError> {
        let (id, ns) = (id.clone(), ns.to_owned());
        self.readers.read(move |conn| checkpoints::history(conn, threads::number(conn, &id)?, &ns)).await
    }

    async fn namespaces(&self, id: &ThreadId) -> Result<Vec<String>, StoreError> {
        let id = id.clone();
        self.readers.read(move |conn| checkpoints::namespaces(conn, threads::number(conn, &id)?)).await
    }

    async fn partial(&self, id: &ThreadId, ns: &str, checkpoint: &CheckpointId) -> Result<Partial, StoreError> {
        let (id, ns, of) = (id.clone(), ns.to_owned(), checkpoint.clone());
        self.readers.read_few(move |conn| checkpoints::partial(conn, threads::number(conn, &id)?, &ns, &of)).await
    }

    async fn journal(&self, id: &ThreadId) -> Result<Vec<Entry>, StoreError> {
        let id = id.clone();
        self.readers.read(move |conn| journal::all(conn, threads::number(conn, &id)?)).await
    }

    async fn interrupts(&self, thread: Option<&ThreadId>, open_only: bool) -> Result<Vec<Interrupt>, StoreError> {
        let thread = thread.cloned();
        self.readers.read(move |conn| interrupts::list(conn, thread.as_ref(), open_only)).await
    }

    async fn interrupt(&self, id: &InterruptId) -> Result<Option<Interrupt>, StoreError> {
        let id = id.clone();
        self.readers.read_few(move |conn| interrupts::one(conn, &id)).await
    }

    async fn answer_all(&self, claims: Vec<Claim>) -> Result<Vec<Interrupt>, StoreError> {
        let all = move |tx: &mut Tx<'_>| claims.iter().map(|claim| interrupts::answer(tx, claim)).collect();
        self.writer.run(all).await
    }

    async fn events(&self, id: &ThreadId, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        let id = id.clone();
        self.readers.read(move |conn| events::after(conn, threads::number(conn, &id)?, after, limit, usize::MAX)).await
    }
}

fn recall(conn: &Connection, id: &ThreadId, hints: &Hints) -> Done<Recall> {
    let n = threads::number(conn, id)?;
    let root = checkpoints::root(conn, n)?;
    let latest = root.as_ref().and_then(|line| line.last.clone());
    if let Some(line) = root {
        hints.give((n, Name::default()), line);
    }
    let partial = latest.as_ref().map(|latest| checkpoints::partial(conn, n, "", &latest.id)).transpose()?;
    Ok(Recall {
        journal: journal::all(conn, n)?,
        interrupts: interrupts::list(conn, Some(id), false)?,
        latest,
        partial: partial.unwrap_or_default(),
    })
}
