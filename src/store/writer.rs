//! The one place where the file is written, with group commit: all waiting requests share one transaction and one fsync, each in a
//! savepoint of its own. Answers go out after the COMMIT: accepted means committed.
//!
//! Who asks writes, for all who wait: waking another thread and being woken by it costs as much as a commit to a fast disk. A thread
//! stands by for everything that takes long: a slow disk, a file that another process holds, requests that arrive meanwhile.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use super::batch::{Job, Request, Survives, Turn, Tx, Wait};
use super::fault::Done;
use super::lines::Hints;
use super::open::Options;
use crate::graph::StoreError;

/// Waiting requests. One batch takes them all, so this is also the largest batch: enough that the fsync is shared by far more
/// requests than a process has runs, and few enough that the memory they hold stays small. A full queue makes callers wait.
const QUEUE: usize = 256;

/// Two transactions in a row that take longer than this are nothing for a thread of the runtime: the next one is the standing
/// thread's. One alone may have met a WAL checkpoint, or a busy processor.
const SLOW: Duration = Duration::from_millis(2);

/// Where so many requests shared the last transaction, the next one is the standing thread's too: a thread of the runtime has better to do then than
/// to wait for the disk.
const CROWD: u64 = 3;

/// When what is owed to the disk is tried again if that failed, as another process writes at this moment.
const AGAIN: Duration = Duration::from_millis(100);
/// What is owed for so long is said.
const LONG: Duration = Duration::from_secs(1);

/// Takes requests.
pub(super) struct Writer {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// What callers and the thread share.
struct Desk {
    waiting: Mutex<Waiting>,
    /// Wakes the thread.
    bell: Condvar,
    room: Semaphore,
    turn: Mutex<Turn>,
    /// How long the newest two transactions took at least, in microseconds; and the newest.
    pace: AtomicU64,
    newest: AtomicU64,
    transactions: AtomicU64,
    /// Requests of the newest transaction.
    crowd: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Box<dyn Job>>,
    /// The thread is asked to take them.
    called: bool,
    closed: bool,
    /// When the thread is to look after what is owed to the disk.
    owed: Option<Instant>,
    /// When it wakes up by itself.
    wakes: Option<Instant>,
    /// It was said that something is owed for long.
    said: bool,
}

impl Writer {
    /// Starts the thread on a connection.
    pub fn start(conn: Connection, path: PathBuf, options: &Options, hints: Hints) -> Result<Self, StoreError> {
        let desk = Arc::new(Desk {
            waiting: Mutex::default(),
            bell: Condvar::new(),
            room: Semaphore::new(QUEUE),
            turn: Mutex::new(Turn::new(conn, path, options, hints)?),
            pace: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            crowd: AtomicU64::new(0),
        });
        let shared = desk.clone();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || shared.stand_by())
            .map_err(|e| StoreError::Failed(format!("the writer's thread cannot be started: {e}")))?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// Runs `run` in a transaction and returns when it is committed. `run` may be called more than once, each time after a
    /// complete rollback. Dropping the future does not take the request back.
    pub async fn run<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Tx<'_>) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run_to(Survives::Power, run).await
    }

    /// The same, for what may be gone after the loss of power: by itself it does not wait for the disk.
    pub async fn run_for_processes<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Tx<'_>) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run_to(Survives::Processes, run).await
    }

    /// The same, for what must survive the loss of power with the next commit that does, and after some milliseconds at the latest.
    pub async fn run_for_soon<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Tx<'_>) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run_to(Survives::PowerSoon, run).await
    }

    async fn run_to<T: Send + 'static>(
        &self,
        survives: Survives,
        run: impl FnMut(&mut Tx<'_>) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, mut answer) = oneshot::channel();
        self.desk.room.acquire().await.map_err(|_| gone())?.forget();
        self.desk.put(Box::new(Request::new(run, survives, reply)));
        let unattended = Unattended(&self.desk);
        // Others that are about to write, siblings of a superstep among them, say so first; then one writes for all.
        let mut waited = false;
        std::future::poll_fn(|cx| {
            if waited {
                return Poll::Ready(());
            }
            waited = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        if let Ok(end) = answer.try_recv() {
            std::mem::forget(unattended);
            return end;
        }
        self.desk.lead();
        std::mem::forget(unattended);
        answer.await.map_err(|_| gone())?
    }

    /// How many transactions have been committed.
    pub fn transactions(&self) -> u64 {
        self.desk.transactions.load(Ordering::Relaxed)
    }
}

fn gone() -> StoreError {
    StoreError::Failed("the store's writer has stopped".into())
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends after what waits; then the file is closed, and whoever opens it next finds it whole.
        self.desk.waiting().closed = true;
        self.desk.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been answered with errors already.
            let _ = thread.join();
        }
    }
}

/// A request whose caller may go away before anybody has taken it: then the thread does.
struct Unattended<'a>(&'a Desk);

impl Drop for Unattended<'_> {
    fn drop(&mut self) {
        self.0.call();
    }
}

impl Desk {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while holding it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, job: Box<dyn Job>) {
        self.waiting().jobs.push(job);
    }

    fn take(&self) -> Vec<Box<dyn Job>> {
        let jobs = std::mem::take(&mut self.waiting().jobs);
        self.room.add_permits(jobs.len());
        jobs
    }

    /// Asks the thread to take what waits.
    fn call(&self) {
        let mut waiting = self.waiting();
        if !waiting.jobs.is_empty() && !waiting.called {
            waiting.called = true;
            self.bell.notify_one();
        }
    }

    /// Writes what waits, here and now, unless that may take long or somebody is at it: whoever writes looks again afterwards.
    fn lead(&self) {
        if self.turn.is_poisoned() {
            // A panic left the connection as it was: nothing can be written any more.
            return drop(self.take());
        }
        if self.pace.load(Ordering::Relaxed) > SLOW.as_micros() as u64 || self.crowd.load(Ordering::Relaxed) >= CROWD {
            return self.call();
        }
        match self.turn.try_lock() {
            Ok(mut turn) => {
                let held = self.write(&mut turn, self.take(), Wait::No);
                drop(turn);
                if !held.is_empty() {
                    self.room.forget_permits(held.len());
                    self.waiting().jobs.extend(held);
                }
                self.call();
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Poisoned(_)) => drop(self.take()),
        }
    }

    /// Returns the jobs if the file is held by another process and is not to be waited for.
    fn write(&self, turn: &mut Turn, jobs: Vec<Box<dyn Job>>, wait: Wait) -> Vec<Box<dyn Job>> {
        if jobs.is_empty() {
            return jobs;
        }
        let begun = Instant::now();
        let (before, owed) = (turn.transactions, turn.owes);
        let survives = turn.survived(&jobs);
        self.crowd.store(jobs.len() as u64, Ordering::Relaxed);
        let held = turn.batch(jobs, wait);
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        // What waits for less than others in this file do says nothing about them.
        if survives == turn.opened_for {
            let last = self.newest.swap(took, Ordering::Relaxed);
            self.pace.store(took.min(last), Ordering::Relaxed);
        }
        self.transactions.fetch_add(turn.transactions - before, Ordering::Relaxed);
        if owed != turn.owes {
            self.owe(turn.owes);
        }
        held
    }

    fn owe(&self, until: Option<Instant>) {
        let mut waiting = self.waiting();
        waiting.owed = until;
        if let Some(until) = until
            && waiting.wakes.is_none_or(|wakes| until < wakes)
        {
            self.bell.notify_one();
        }
    }

    fn pay(&self, turn: &mut Turn) {
        // Requests wait meanwhile: who closes has the patience to wait for another process, everybody else tries again.
        let wait = if self.waiting().closed { Wait::Yes } else { Wait::No };
        let owed = turn.owes;
        let done = turn.sync(wait);
        let mut waiting = self.waiting();
        match done {
            Ok(()) => {
                (waiting.owed, waiting.said) = (None, false);
                self.transactions.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let long = waiting.closed || owed.is_some_and(|until| until.elapsed() > LONG);
                if long && !std::mem::replace(&mut waiting.said, true) {
                    tracing::warn!(%error, "what was committed is not on the disk yet");
                }
            }
        }
    }

    fn stand_by(&self) {
        while let Some(due) = self.next() {
            let Ok(mut turn) = self.turn.lock() else {
                drop(self.take());
                continue;
            };
            self.write(&mut turn, self.take(), Wait::Yes);
            if due == Due::Disk && turn.owes.is_some() {
                self.pay(&mut turn);
            }
            drop(turn);
            self.call();
        }
    }

    /// Waits until there is something for the thread to do; `None`: nothing will be any more.
    fn next(&self) -> Option<Due> {
        let mut waiting = self.waiting();
        loop {
            let left = waiting.owed.map(|until| until.saturating_duration_since(Instant::now()));
            // First: requests may never end, and those that wait are taken along.
            if left.is_some_and(|left| left.is_zero() || waiting.closed) {
                waiting.called = false;
                // Until it is paid: should that fail, it is tried again, but not by one who closes.
                waiting.owed = Some(Instant::now() + AGAIN).filter(|_| !waiting.closed);
                return Some(Due::Disk);
            }
            if waiting.called || (waiting.closed && !waiting.jobs.is_empty()) {
                waiting.called = false;
                return Some(Due::Requests);
            }
            if waiting.closed {
                return None;
            }
            waiting.wakes = waiting.owed;
            waiting = match left {
                Some(left) => self.bell.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.bell.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// What the thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Requests,
    /// What is owed to the disk.
    Disk,
}

#[cfg(test)]
mod tests {
    use super::super::open::Synchronous;
    use super::*;

    #[tokio::test]
    async fn who_is_at_a_thread_does_not_wait_for_the_disk_and_everything_else_does()
    -> Result<(), Box<dyn std::error::Error>> {
        const FULL: i64 = 2;
        let dir = tempfile::tempdir()?;
        for (opened, full) in [(Synchronous::Full, FULL), (Synchronous::Normal, NORMAL)] {
            let writer = writer_of(&dir.path().join(opened.word()), opened)?;
            assert_eq!(writer.run_for_processes(level).await?, NORMAL);
            assert_eq!(writer.run(level).await?, full);
            assert_eq!(writer.run_for_processes(level).await?, NORMAL);
            // In one transaction the one that must wait decides.
            let (lease, commit) = tokio::join!(writer.run_for_processes(level), writer.run(level));
            assert_eq!((lease?, commit?, writer.transactions()), (full, full, 4));
        }
        Ok(())
    }

    #[tokio::test]
    async fn what_need_not_wait_is_on_the_disk_a_little_later() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let writer = writer_of(&dir.path().join("full"), Synchronous::Full)?;
        assert_eq!(writer.run_for_soon(write).await?, NORMAL);
        // Nobody commits anything else: the standing thread does.
        until(|| writer.transactions() == 2).await;
        assert!(!writer.owes());
        // What is written meanwhile takes it along, unless it need not survive the loss of power either.
        writer.run_for_soon(write).await?;
        writer.run_for_processes(write).await?;
        writer.run(level).await?;
        let same = |tx: &mut Tx<'_>| Ok(tx.conn.execute("UPDATE t SET n = n", [])?);
        writer.run(same).await?;
        assert!(writer.owes() || writer.transactions() == 7, "what writes nothing takes nothing along");
        writer.run(write).await?;
        assert!(!writer.owes());

        let writer = writer_of(&dir.path().join("normal"), Synchronous::Normal)?;
        writer.run_for_soon(write).await?;
        assert!(!writer.owes(), "a file that is opened for less never waits for the disk");
        Ok(())
    }

    #[tokio::test]
    async fn what_is_owed_is_paid_though_requests_that_owe_nothing_never_end() -> Result<(), Box<dyn std::error::Error>>
    {
        let dir = tempfile::tempdir()?;
        let writer = writer_of(&dir.path().join("full"), Synchronous::Full)?;
        writer.run_for_soon(write).await?;
        let endless = async {
            while writer.owes() {
                let many = (0..8).map(|_| writer.run_for_processes(write));
                futures_util::future::try_join_all(many).await?;
            }
            Ok::<_, StoreError>(())
        };
        tokio::time::timeout(Duration::from_secs(30), endless).await??;
        Ok(())
    }

    #[tokio::test]
    async fn a_refused_request_takes_nothing_along() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let writer = writer_of(&dir.path().join("full"), Synchronous::Full)?;
        let refuse = |tx: &mut Tx<'_>| write(tx).and(Err::<(), _>(StoreError::Failed("no".into()).into()));
        writer.run_for_soon(write).await?;
        assert!(writer.run(refuse).await.is_err());
        assert!(writer.owes() || writer.transactions() == 2);
        until(|| !writer.owes()).await;
        Ok(())
    }

    const NORMAL: i64 = 1;

    fn level(tx: &mut Tx<'_>) -> Done<i64> {
        Ok(tx.conn.pragma_query_value(None, "synchronous", |row| row.get(0))?)
    }

    fn write(tx: &mut Tx<'_>) -> Done<i64> {
        tx.conn.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER); INSERT INTO t VALUES (1)")?;
        level(tx)
    }

    fn writer_of(path: &std::path::Path, opened: Synchronous) -> Result<Writer, Box<dyn std::error::Error>> {
        let conn = Connection::open(path)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", opened.word())?;
        let options = Options { synchronous: opened, ..Options::default() };
        Ok(Writer::start(conn, path.to_owned(), &options, Hints::default())?)
    }

    async fn until(is: impl Fn() -> bool) {
        let wait = async {
            while !is() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it does not come to that");
    }

    impl Writer {
        fn owes(&self) -> bool {
            self.desk.turn.lock().is_ok_and(|turn| turn.owes.is_some())
        }
    }
}
