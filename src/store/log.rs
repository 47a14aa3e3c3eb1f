//! Taking SQLite's write-ahead log into the file, beside the commits. By itself SQLite does it in the commit that makes the log long: that one then waits
//! for as many pages as some twenty others have written, and for two syncs. Here a thread does it on a connection of its own; what was
//! committed meanwhile, little, is then taken by a commit as before, so that the log begins anew instead of growing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;

use super::fault::{Done, Fault};
use super::open::{self, Options};
use crate::graph::StoreError;

/// Pages of the log at which it is taken into the file: SQLite's own figure, 4 MB.
const PAGES: i32 = 1000;
/// Further pages that may be committed while the thread is at it. Then a commit waits for it, or a slow disk would let the log grow as fast as we write.
const BEHIND: i32 = 3 * PAGES;
/// Pages after which a log that could not begin anew, as somebody was reading, is tried again.
const AGAIN: i32 = PAGES / 8;
/// Pages that a commit takes by itself at most; more are the thread's.
const REST: i32 = PAGES / 2;

/// Whether a commit has written to the log since somebody asked: what changes nothing writes nothing.
#[derive(Clone, Default)]
pub(super) struct Wrote(Arc<AtomicBool>);

impl Wrote {
    /// Asks, and begins anew.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Lets the log of a writing connection be taken into the file beside its commits, from now on until it is closed.
pub(super) fn keep_short(conn: &mut Connection, path: &Path, options: &Options) -> Result<Wrote, StoreError> {
    let mut keeper = Keeper::new(path.to_owned(), options.clone());
    let wrote = Wrote::default();
    let told = wrote.clone();
    let hook = move |wal: &mut Wal, pages: i32| {
        told.0.store(true, Ordering::Relaxed);
        keeper.committed(wal, pages);
        Ok(())
    };
    conn.wal_hook(Some(hook)).map_err(|e| Fault::from(e).at(path))?;
    Ok(wrote)
}

/// How it stands with the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Nothing is asked of it.
    Idle,
    /// It takes the log, or is about to.
    Asked,
    /// It has taken what there was when it began.
    Taken,
    /// It is to end.
    Closed,
}

/// What the commits and the thread share.
struct Shared {
    state: AtomicU8,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Shared {
    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::Acquire) == state as u8
    }

    fn held(&self) -> MutexGuard<'_, ()> {
        // Nothing panics while holding it.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the thread has taken the log, but no longer than `most`.
    fn wait_while_asked(&self, most: Duration) {
        let wait = self.bell.wait_timeout_while(self.held(), most, |()| self.is(State::Asked));
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    fn go_on(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// What is asked of the thread is done, or it ends: either way nobody waits for it any more.
struct Asked<'a>(&'a Shared);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let _held = self.0.held();
        self.0.go_on(State::Asked, State::Taken);
        self.0.bell.notify_all();
    }
}

/// Belongs to the writing connection, and ends with it.
struct Keeper {
    path: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    /// Started when it is first needed: few processes write so much.
    thread: Option<JoinHandle<()>>,
    /// Pages of the log after the newest commit.
    last: i32,
    /// Pages at which something is done next: the thread is asked, or a commit takes what little is left.
    next: i32,
    /// Pages at which a commit waits for the thread that was asked.
    wait_at: i32,
    /// Pages that were not in the file after a commit had tried.
    left: i32,
}

impl Keeper {
    fn new(path: PathBuf, options: Options) -> Self {
        let shared = Shared { state: AtomicU8::new(State::Idle as u8), lock: Mutex::default(), bell: Condvar::new() };
        let shared = Arc::new(shared);
        Self { path, options, shared, thread: None, last: 0, next: PAGES, wait_at: 0, left: PAGES }
    }

    /// After each commit that wrote.
    fn committed(&mut self, wal: &mut Wal, pages: i32) {
        if pages < self.last {
            // The log has begun anew: nothing of what was taken is left in it.
            (self.next, self.left) = (PAGES, PAGES);
            self.shared.go_on(State::Taken, State::Idle);
        }
        let more = pages.saturating_sub(self.last);
        self.last = pages;
        if self.shared.is(State::Asked) && pages >= self.wait_at {
            self.shared.wait_while_asked(self.options.busy_timeout);
            // Should it hang, the next few commits do not wait for it again.
            self.wait_at = pages.saturating_add(BEHIND);
        }
        if self.shared.go_on(State::Taken, State::Idle) {
            return self.take_here(wal, pages);
        }
        self.left = self.left.saturating_add(more);
        if pages < self.next || self.shared.is(State::Asked) {
            return;
        }
        if self.left < REST {
            return self.take_here(wal, pages);
        }
        self.wait_at = pages.saturating_add(BEHIND);
        if let Err(error) = self.ask() {
            tracing::warn!(%error, "no thread for the write-ahead log: it is taken into the file in a commit");
            self.take_here(wal, pages);
        }
    }

    /// As SQLite does it by itself. Then the next commit begins the log anew, unless somebody reads, or takes the log, at that moment: a later one tries again.
    fn take_here(&mut self, wal: &mut Wal, pages: i32) {
        self.next = pages.saturating_add(AGAIN);
        // What was committed stays in the log, whatever hinders this: a commit is no place to tell of it, and the thread tells.
        self.left = match wal.checkpoint_v2(CheckpointMode::PASSIVE) {
            Ok((all, taken)) => all.saturating_sub(taken).max(0),
            Err(_) => PAGES,
        };
    }

    fn ask(&mut self) -> std::io::Result<()> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let (path, options, shared) = (self.path.clone(), self.options.clone(), self.shared.clone());
            let run = move || take_when_asked(&path, &options, &shared);
            self.thread = Some(std::thread::Builder::new().name("store-log".into()).spawn(run)?);
        }
        let _held = self.shared.held();
        self.shared.go_on(State::Idle, State::Asked);
        self.shared.bell.notify_all();
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let held = self.shared.held();
        self.shared.state.store(State::Closed as u8, Ordering::Release);
        self.shared.bell.notify_all();
        drop(held);
        if let Some(thread) = self.thread.take() {
            // It ends before the connection does, which then leaves a file without a log.
            let _ = thread.join();
        }
    }
}

fn take_when_asked(path: &Path, options: &Options, shared: &Shared) {
    let mut conn = None;
    loop {
        let idle = |(): &mut ()| !shared.is(State::Asked) && !shared.is(State::Closed);
        drop(shared.bell.wait_while(shared.held(), idle).unwrap_or_else(PoisonError::into_inner));
        if shared.is(State::Closed) {
            return;
        }
        let _asked = Asked(shared);
        if let Err(fault) = take(&mut conn, path, options) {
            tracing::warn!(error = %fault.at(path), "the write-ahead log cannot be taken into the file: it grows");
        }
    }
}

fn take(conn: &mut Option<Connection>, path: &Path, options: &Options) -> Done<()> {
    let conn = match conn {
        Some(conn) => conn,
        None => conn.insert(open::reader(path, options)?),
    };
    Ok(conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;

    type Checked = Result<(), Box<dyn std::error::Error>>;

    fn written_to(path: &Path) -> Result<Connection, Box<dyn std::error::Error>> {
        let options = Options::default();
        let mut conn = open::writer(path, &options)?;
        keep_short(&mut conn, path, &options)?;
        conn.execute_batch("PRAGMA synchronous = NORMAL; CREATE TABLE big (n INTEGER PRIMARY KEY, body BLOB)")?;
        Ok(conn)
    }

    /// A commit of some ten pages.
    fn commit(conn: &Connection, n: i64) -> Checked {
        conn.prepare_cached("INSERT INTO big VALUES (?1, ?2)")?.execute(params![n, vec![n as u8; 40_000]])?;
        Ok(())
    }

    fn log_of(path: &Path) -> PathBuf {
        path.with_extension("db-wal")
    }

    fn pages(path: &Path) -> Result<u64, std::io::Error> {
        Ok(std::fs::metadata(log_of(path))?.len() / 4096)
    }

    #[test]
    fn the_log_begins_anew_while_commits_follow_each_other() -> Checked {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("t.db");
        let conn = written_to(&path)?;
        for n in 0..3_000 {
            commit(&conn, n)?;
        }
        // 30,000 pages went through it.
        let most = pages(&path)?;
        assert!(most < 15 * PAGES as u64, "{most} pages");
        let sum: i64 = conn.query_row("SELECT sum(length(body)) FROM big", [], |row| row.get(0))?;
        assert_eq!(sum, 3_000 * 40_000);
        drop(conn);
        assert!(!log_of(&path).exists(), "a file that nobody has open has no log");
        Ok(())
    }

    #[test]
    fn a_long_read_keeps_the_log_and_its_end_lets_it_begin_anew() -> Checked {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("t.db");
        let conn = written_to(&path)?;
        commit(&conn, 0)?;
        let reader = open::reader(&path, &Options::default()).map_err(|fault| fault.at(&path))?;
        reader.execute_batch("BEGIN DEFERRED")?;
        let read = || reader.query_row("SELECT count(*) FROM big", [], |row| row.get::<_, i64>(0));
        assert_eq!(read()?, 1);
        for n in 1..500 {
            commit(&conn, n)?;
        }
        assert_eq!(read()?, 1, "it reads what it began with");
        let kept = pages(&path)?;
        assert!(kept >= 5_000, "{kept}");
        reader.execute_batch("COMMIT")?;
        for n in 500..1_500 {
            commit(&conn, n)?;
        }
        let now = pages(&path)?;
        assert!(now < kept + 15 * PAGES as u64, "{now} pages, {kept} before");
        Ok(())
    }

    /// Pages that are in the log since it last began anew.
    fn in_use(conn: &Connection) -> Result<i32, rusqlite::Error> {
        conn.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))
    }

    #[test]
    fn a_log_that_could_not_begin_anew_is_tried_again_soon() -> Checked {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("t.db");
        let conn = written_to(&path)?;
        commit(&conn, 0)?;
        let reader = open::reader(&path, &Options::default()).map_err(|fault| fault.at(&path))?;
        // Nearly always somebody reads, but nobody for long.
        for n in 0..400 {
            reader.execute_batch("BEGIN DEFERRED")?;
            reader.query_row("SELECT count(*) FROM big", [], |row| row.get::<_, i64>(0))?;
            for k in 1..=9 {
                commit(&conn, n * 10 + k)?;
            }
            reader.execute_batch("COMMIT")?;
            commit(&conn, n * 10 + 10)?;
        }
        let in_use = in_use(&conn)?;
        // 40,000 pages went through it.
        assert!(in_use < 15 * PAGES, "{in_use} pages");
        Ok(())
    }

    #[test]
    fn a_connection_that_is_closed_at_once_waits_for_its_thread() -> Checked {
        let dir = tempfile::tempdir()?;
        for round in 0..20 {
            let path = dir.path().join(format!("{round}.db"));
            let conn = written_to(&path)?;
            for n in 0..110 {
                commit(&conn, n)?;
            }
            drop(conn);
            assert!(!log_of(&path).exists());
            let conn = Connection::open(&path)?;
            let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            let rows: i64 = conn.query_row("SELECT count(*) FROM big", [], |row| row.get(0))?;
            assert_eq!((sound.as_str(), rows), ("ok", 110));
        }
        Ok(())
    }
}
