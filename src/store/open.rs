//! Opening the file: rights, PRAGMAs, versions.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::fault::{Done, Fault};
use super::liveness::ProcLiveness;
use super::migrate;
use crate::graph::{Liveness, StoreError};

/// How much a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// A commit survives the loss of power.
    #[default]
    Full,
    /// A commit survives the death of any process; the newest ones may be lost with the power.
    Normal,
}

impl Synchronous {
    /// SQLite's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// How much a commit survives.
    pub synchronous: Synchronous,
    /// How long to wait for another process's transaction before giving up.
    pub busy_timeout: Duration,
    /// Tells whether the owner of a lease still lives.
    pub liveness: Arc<dyn Liveness>,
    /// Most reading connections.
    pub readers: usize,
    /// Most pages of the file; `None`: SQLite's limit. A quota, and the way to test a full disk.
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::Full,
            // A transaction takes milliseconds; who waits this long waits for a process that hangs.
            busy_timeout: Duration::from_secs(10),
            liveness: Arc::new(ProcLiveness),
            // Reads are short; more would only compete for the same two or four cores.
            readers: 4,
            max_pages: None,
        }
    }
}

/// What each connection is set to, and why.
const PRAGMAS: &[(&str, &str)] = &[
    // Readers and the writer do not wait for each other; a commit is one sequential write.
    ("journal_mode", "WAL"),
    // Child rows without their thread would be a bug that nobody sees.
    ("foreign_keys", "ON"),
    // A WAL that one long read has let grow is cut back after its checkpoint instead of staying for ever.
    ("journal_size_limit", "67108864"),
    // Sorting happens in memory: no temporary files beside a full disk.
    ("temp_store", "MEMORY"),
    // A file that was tampered with must not run functions from its schema.
    ("trusted_schema", "OFF"),
    // 8 MiB of pages per connection hold the hot end of every table.
    ("cache_size", "-8192"),
];

/// Opens the writer's connection: creates directory and file where they are missing and brings the schema up to date.
pub(super) fn writer(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    create(path)?;
    let conn = connect(path, options).map_err(|fault| fault.at(path))?;
    migrate::migrate(&conn, path)?;
    if let Some(pages) = options.max_pages {
        conn.pragma_update(None, "max_page_count", pages).map_err(|e| Fault::from(e).at(path))?;
    }
    Ok(conn)
}

/// Opens one more connection to a file that the writer has opened.
pub(super) fn reader(path: &Path, options: &Options) -> Done<Connection> {
    let conn = connect(path, options)?;
    conn.pragma_update(None, "query_only", "ON")?;
    Ok(conn)
}

/// Rewrites the file without the room that nothing uses.
pub(super) fn vacuum(path: &Path) -> Result<(), StoreError> {
    let conn = connect(path, &Options::default()).map_err(|fault| fault.at(path))?;
    conn.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").map_err(|e| Fault::from(e).at(path))
}

/// Statements that a connection keeps prepared: all that there are. A statement takes a few kilobytes, and preparing one as long as running it.
const STATEMENTS: usize = 256;

fn connect(path: &Path, options: &Options) -> Done<Connection> {
    // Without SQLITE_OPEN_CREATE: the file was created with our rights. One thread at a time uses a connection.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(options.busy_timeout)?;
    for (name, value) in PRAGMAS {
        patiently(options.busy_timeout, || conn.pragma_update(None, name, value))?;
    }
    conn.pragma_update(None, "synchronous", options.synchronous.word())?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without this a statement with a condition is prepared anew each time that it is given another value: SQLite might find a better plan with
    // statistics, of which this file has none.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

/// SQLite does not wait when two processes switch a new file to WAL at once; we do.
fn patiently(limit: Duration, mut step: impl FnMut() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    const PAUSE: Duration = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    loop {
        match step() {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && waited < limit => {
                std::thread::sleep(PAUSE);
                waited += PAUSE;
            }
            end => return end,
        }
    }
}

/// The directory is for its owner only, and so is the file (SQLite gives its companions the file's rights).
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let cannot = |e: std::io::Error| StoreError::CannotWrite(format!("{}: {e}", path.display()));
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(cannot(e)),
    }
}
