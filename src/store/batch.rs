//! One transaction for all requests that wait.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::fault::{Done, Fault};
use super::lines::{Hints, Lines};
use super::log::{self, Wrote};
use super::open::{Options, Synchronous};
use crate::graph::StoreError;

/// What a request works with.
pub(super) struct Tx<'a> {
    /// The connection, inside a transaction.
    pub conn: &'a Connection,
    /// The newest checkpoint of each line.
    pub lines: &'a mut Lines,
}

/// What a request's commit must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Survives {
    /// The death of any process. For what only says which process is at a thread: no process survives the loss of power, and before anything else
    /// of the run counts, this is made durable with it. So it need not wait for the disk.
    Processes,
    /// The loss of power a few milliseconds later, and before anything else of the file that survives it. For what nobody has been told yet.
    PowerSoon,
    /// The loss of power, too, unless the whole file is opened for less.
    Power,
}

/// A request of any type.
pub(super) trait Job: Send {
    /// What its commit must survive.
    fn survives(&self) -> Survives;
    /// Runs it; false: it refused or failed, and what it wrote must go.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Answers with what it came to, or with the error that took the whole transaction.
    fn answer(self: Box<Self>, path: &Path, lost: Option<&StoreError>);
}

/// A request: what is to be done, and where the answer goes.
pub(super) struct Request<T, F> {
    run: F,
    survives: Survives,
    ran: Option<Done<T>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Request<T, F> {
    pub fn new(run: F, survives: Survives, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { run, survives, ran: None, reply }
    }
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Done<T> + Send> Job for Request<T, F>
where
    Fault: Send,
{
    fn survives(&self) -> Survives {
        self.survives
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let ran = (self.run)(tx);
        let kept = ran.is_ok();
        self.ran = Some(ran);
        kept
    }

    fn answer(self: Box<Self>, path: &Path, lost: Option<&StoreError>) {
        let end = match (lost, self.ran) {
            (Some(lost), _) => Err(lost.clone()),
            (None, Some(ran)) => ran.map_err(|fault| fault.at(path)),
            (None, None) => Err(StoreError::Failed("the request was not run".into())),
        };
        // Whoever asked may be gone.
        let _ = self.reply.send(end);
    }
}

/// Whether to wait for another process's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Yes,
    No,
}

/// What is to survive the loss of power soon does so after this time at the latest, and the disk's. Most runs commit something of their own first.
const SOON: Duration = Duration::from_millis(5);

/// What whoever writes needs.
pub(super) struct Turn {
    conn: Connection,
    path: PathBuf,
    /// The file at the path when the connection was opened.
    file: Option<(u64, u64)>,
    patience: Duration,
    /// What the connection is set to.
    waits: Option<Wait>,
    /// The same.
    survives: Survives,
    /// What a commit survives in this file at most.
    pub opened_for: Survives,
    lines: Lines,
    /// SQLite's count of what other connections wrote, as last seen.
    data_version: Option<i64>,
    /// Committed so far.
    pub transactions: u64,
    /// Until when something is to survive the loss of power that does not yet.
    pub owes: Option<Instant>,
    wrote: Wrote,
}

/// Why a batch came to nothing.
enum Lost {
    /// The transaction could not begin: the file is held or cannot be written. Trying each request alone would only wait again.
    Begin(Fault),
    /// One request, or the COMMIT, took the transaction with it.
    Together(Fault),
}

impl Turn {
    pub fn new(mut conn: Connection, path: PathBuf, options: &Options, hints: Hints) -> Result<Self, StoreError> {
        let wrote = log::keep_short(&mut conn, &path, options)?;
        let (file, lines) = (identity(&path), Lines::new(hints));
        let opened_for = match options.synchronous {
            Synchronous::Full => Survives::Power,
            Synchronous::Normal => Survives::Processes,
        };
        let survives = opened_for;
        Ok(Self {
            conn,
            path,
            file,
            patience: options.busy_timeout,
            waits: None,
            survives,
            opened_for,
            lines,
            data_version: None,
            transactions: 0,
            owes: None,
            wrote,
        })
    }

    /// What a commit of these requests survives in this file.
    pub fn survived(&self, jobs: &[Box<dyn Job>]) -> Survives {
        // What is owed for too long goes with whatever is written next.
        let overdue = self.owes.is_some_and(|until| until <= Instant::now());
        let asked = jobs.iter().map(|job| job.survives()).max().filter(|_| !overdue);
        asked.unwrap_or(Survives::Power).min(self.opened_for)
    }

    /// Runs and answers all. Returns them untouched if another process holds the file and is not to be waited for.
    pub fn batch(&mut self, mut jobs: Vec<Box<dyn Job>>, wait: Wait) -> Vec<Box<dyn Job>> {
        let lost = match self.attempt(&mut jobs, wait) {
            Ok(()) => None,
            Err(Lost::Begin(Fault::Sql(e))) if wait == Wait::No && is_busy(&e) => return jobs,
            Err(Lost::Together(_)) if jobs.len() > 1 => {
                // One that needs more room than there is must not take the others with it.
                return jobs.into_iter().flat_map(|job| self.batch(vec![job], wait)).collect();
            }
            Err(Lost::Begin(fault) | Lost::Together(fault)) => Some(fault.at(&self.path)),
        };
        jobs.into_iter().for_each(|job| job.answer(&self.path, lost.as_ref()));
        Vec::new()
    }

    /// One transaction. An error: nothing of it is in the file or in memory.
    fn attempt(&mut self, jobs: &mut [Box<dyn Job>], wait: Wait) -> Result<(), Lost> {
        let survives = self.survived(jobs);
        self.begin(wait, survives).map_err(|fault| {
            self.roll_back();
            Lost::Begin(fault)
        })?;
        let done = match jobs {
            [only] => self.alone(only),
            many => self.together(many),
        };
        match done {
            Ok(()) => {
                self.lines.keep_batch();
                Ok(())
            }
            Err(fault) => {
                self.roll_back();
                Err(Lost::Together(fault))
            }
        }
    }

    /// A request by itself needs no savepoint.
    fn alone(&mut self, job: &mut Box<dyn Job>) -> Done<()> {
        if job.run(&mut Tx { conn: &self.conn, lines: &mut self.lines }) {
            return self.commit();
        }
        self.roll_back();
        Ok(())
    }

    fn together(&mut self, jobs: &mut [Box<dyn Job>]) -> Done<()> {
        for job in jobs {
            self.statement("SAVEPOINT request")?;
            if job.run(&mut Tx { conn: &self.conn, lines: &mut self.lines }) {
                self.lines.keep_request();
            } else {
                self.lines.drop_request();
                // A full disk and the like end the whole transaction: this fails then.
                self.statement("ROLLBACK TO request")?;
            }
            self.statement("RELEASE request")?;
        }
        self.commit()
    }

    /// IMMEDIATE: the write lock comes first, so that nothing a request reads can be outdated when it writes.
    fn begin(&mut self, wait: Wait, survives: Survives) -> Done<()> {
        if self.survives != survives {
            let word = if survives == Survives::Power { Synchronous::Full } else { Synchronous::Normal }.word();
            self.conn.pragma_update(None, "synchronous", word)?;
            self.survives = survives;
        }
        if self.waits != Some(wait) {
            self.conn.busy_timeout(if wait == Wait::Yes { self.patience } else { Duration::ZERO })?;
            self.waits = Some(wait);
        }
        // SQLite goes on writing to a file that was removed: what it commits there nobody will ever read.
        if self.file.is_some() && identity(&self.path) != self.file {
            let what = format!("{}: the file has been removed or replaced", self.path.display());
            return Err(StoreError::Damaged(what).into());
        }
        self.statement("BEGIN IMMEDIATE")?;
        let version: i64 = self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if self.data_version.replace(version) != Some(version) {
            self.lines.foreign_write();
        }
        Ok(())
    }

    fn commit(&mut self) -> Done<()> {
        self.statement("COMMIT")?;
        self.transactions += 1;
        if self.wrote.take() {
            self.owes = match self.survives {
                Survives::Processes => self.owes,
                Survives::PowerSoon => self.owes.or_else(|| Some(Instant::now() + SOON)),
                // The log goes to the disk with all that was committed before.
                Survives::Power => None,
            };
        }
        Ok(())
    }

    /// Brings to the disk what was committed. Without a page of its own SQLite has nothing to do: the first one is written as it is.
    pub fn sync(&mut self, wait: Wait) -> Result<(), StoreError> {
        let done = self.begin(wait, self.opened_for).and_then(|()| {
            let version: i64 = self.conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
            self.conn.pragma_update(None, "user_version", version)?;
            self.commit()
        });
        match done {
            Ok(()) => {
                self.lines.keep_batch();
                self.owes = None;
            }
            Err(_) => self.roll_back(),
        }
        done.map_err(|fault| fault.at(&self.path))
    }

    fn roll_back(&mut self) {
        self.lines.drop_batch();
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, path = %self.path.display(), "the store's transaction cannot be rolled back");
        }
    }

    fn statement(&self, sql: &str) -> Done<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

/// Device and number of the file at a path.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}
