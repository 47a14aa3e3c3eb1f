//! The one thread that writes, with group commit: all waiting requests share one transaction and one fsync, each in a savepoint of its
//! own. Answers go out after the COMMIT: accepted means committed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::fault::{Done, Fault};
use super::lines::Lines;
use crate::graph::StoreError;

/// Waiting requests. One batch takes them all, so this is also the largest batch: enough that the fsync is shared by far more
/// requests than a process has runs, and few enough that the memory they hold stays small. A full queue makes callers wait.
const QUEUE: usize = 256;

/// What a request works with.
pub(super) struct Tx<'a> {
    /// The connection, inside a transaction.
    pub conn: &'a Connection,
    /// The newest checkpoint of each line.
    pub lines: &'a mut Lines,
}

/// Hands requests to the thread.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    transactions: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the thread on a connection.
    pub fn start(conn: Connection, path: PathBuf) -> Result<Self, StoreError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let transactions = Arc::new(AtomicU64::new(0));
        let counter = transactions.clone();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || Loop { conn, path, lines: Lines::default(), data_version: None, counter }.run(waiting))
            .map_err(|e| StoreError::Failed(format!("the writer's thread cannot be started: {e}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), transactions })
    }

    /// Runs `run` in a transaction and returns when it is committed. `run` may be called more than once, each time after a
    /// complete rollback. Dropping the future does not take the request back.
    pub async fn run<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Tx<'_>) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Failed("the store's writer has stopped".into());
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(Box::new(Request { run, ran: None, reply })).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// How many transactions have been committed.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The closed queue ends the thread after what waits; then the file is closed, and whoever opens it next finds it whole.
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been answered with errors already.
            let _ = thread.join();
        }
    }
}

trait Job: Send {
    /// Runs it; false: it refused or failed, and what it wrote must go.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Answers with what it came to, or with the error that took the whole transaction.
    fn answer(self: Box<Self>, path: &Path, lost: Option<&StoreError>);
}

struct Request<T, F> {
    run: F,
    ran: Option<Done<T>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Done<T> + Send> Job for Request<T, F>
where
    Fault: Send,
{
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

struct Loop {
    conn: Connection,
    path: PathBuf,
    lines: Lines,
    /// SQLite's count of what other connections wrote, as last seen.
    data_version: Option<i64>,
    counter: Arc<AtomicU64>,
}

/// Why a batch came to nothing.
enum Lost {
    /// The transaction could not begin: the file is held or cannot be written. Trying each request alone would only wait again.
    Begin(Fault),
    /// One request, or the COMMIT, took the transaction with it.
    Together(Fault),
}

impl Loop {
    fn run(mut self, mut waiting: mpsc::Receiver<Box<dyn Job>>) {
        let mut jobs = Vec::new();
        while let Some(first) = waiting.blocking_recv() {
            jobs.push(first);
            while jobs.len() < QUEUE {
                match waiting.try_recv() {
                    Ok(next) => jobs.push(next),
                    Err(_) => break,
                }
            }
            self.batch(std::mem::take(&mut jobs));
        }
    }

    fn batch(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let lost = match self.attempt(&mut jobs) {
            Ok(()) => None,
            Err(Lost::Together(_)) if jobs.len() > 1 => {
                // One that needs more room than there is must not take the others with it.
                jobs.into_iter().for_each(|job| self.batch(vec![job]));
                return;
            }
            Err(Lost::Begin(fault) | Lost::Together(fault)) => Some(fault.at(&self.path)),
        };
        jobs.into_iter().for_each(|job| job.answer(&self.path, lost.as_ref()));
    }

    /// One transaction. An error: nothing of it is in the file or in memory.
    fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), Lost> {
        self.begin().map_err(|fault| {
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
    fn begin(&mut self) -> Done<()> {
        self.statement("BEGIN IMMEDIATE")?;
        let version: i64 = self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if self.data_version.replace(version) != Some(version) {
            self.lines.foreign_write();
        }
        Ok(())
    }

    fn commit(&self) -> Done<()> {
        self.statement("COMMIT")?;
        self.counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
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
