//! Mends what can be mended without inventing anything: indexes, a left write-ahead log, leases of the dead, what has expired. First a copy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::backup::Backup;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use super::checkup::{Checkup, leftover, look};
use super::fault::{Done, Fault, nanos};
use super::salvage::{beside, rebuilt, remove};
use crate::graph::{Failure, Liveness, StoreError};

/// Why a file was left as it is.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RepairError {
    /// Somebody uses it.
    #[error("another process uses {0}")]
    InUse(String),
    /// The copy would not fit.
    #[error("a copy needs {needed} bytes in {dir}, and {free} are free")]
    NoRoom {
        /// Where.
        dir: String,
        /// Bytes that the copy needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The new file is there already.
    #[error("{0} is there already")]
    Exists(String),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RepairError {
    /// As data for people.
    pub fn failure(&self) -> Failure {
        let failure = |code: &str, hint: &str| Failure::new(code, self.to_string()).hint(hint);
        match self {
            Self::InUse(_) => failure(
                "database_in_use",
                "end the other commands of this home; a detached runner ends by itself, or with the process in `runner.lock`",
            ),
            Self::NoRoom { .. } => failure("repair_no_room", "make room; nothing is changed without a copy"),
            Self::Exists(_) => failure("salvage_exists", "name a file that is not there yet"),
            Self::Store(error) => error.failure(),
        }
    }
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The file as it was; `None`: nothing had to be mended.
    pub backup: Option<PathBuf>,
    /// What was done, as sentences.
    pub done: Vec<String>,
    /// How it is now.
    pub left: Checkup,
}

/// Mends a file that nobody uses.
pub fn repair(path: &Path, liveness: &dyn Liveness, now: DateTime<Utc>) -> Result<Repaired, RepairError> {
    let leftover_wal = leftover(path);
    let at = |fault: Fault| RepairError::from(fault.at(path));
    let mut conn = alone(path)?;
    super::migrate::check(&conn, path)?;
    let before = Checkup { leftover_wal, ..look(&conn, liveness, now) };
    if !before.can_be_mended() {
        return Ok(Repaired { backup: None, done: Vec::new(), left: before });
    }
    let backup = back_up(&conn, path, now)?;
    let mut done = Vec::new();
    let mut whole = before.is_whole() || reindex(&conn, &mut done).map_err(at)?;
    if !whole {
        whole = rebuild(&mut conn, path, &mut done)?;
    }
    if whole {
        tidy(&conn, &before, now, &mut done).map_err(at)?;
    }
    let left = look(&conn, liveness, now);
    Ok(Repaired { backup: Some(backup), done, left })
}

/// A connection beside which there is no other.
fn alone(path: &Path) -> Result<Connection, RepairError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(Duration::from_secs(1))?;
        conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        conn.pragma_update(None, "trusted_schema", "OFF")?;
        conn.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
        Ok(conn)
    };
    open().map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => RepairError::InUse(path.display().to_string()),
        _ => Fault::from(error).at(path).into(),
    })
}

/// Copies the file page by page, damaged ones too, beside it.
fn back_up(conn: &Connection, path: &Path, now: DateTime<Utc>) -> Result<PathBuf, RepairError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".before-repair-{}", now.format("%Y%m%dT%H%M%S%3fZ")));
    let copy = PathBuf::from(name);
    let size = || -> rusqlite::Result<u64> {
        let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let page: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        Ok(u64::try_from(pages.saturating_mul(page)).unwrap_or(0))
    };
    fits(path, size().map_err(|error| Fault::from(error).at(path))?)?;
    super::open::create(&copy)?;
    let copied = || -> rusqlite::Result<()> {
        let mut to = Connection::open(&copy)?;
        Backup::new(conn, &mut to)?.run_to_completion(1_000, Duration::ZERO, None)
    };
    copied().map_err(|error| Fault::from(error).at(&copy))?;
    Ok(copy)
}

/// Whether so many bytes have room beside a file, with a tenth to spare: who repairs must not fill the disk.
pub(super) fn fits(beside: &Path, bytes: u64) -> Result<(), RepairError> {
    let dir = beside.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = |e: nix::Error| StoreError::CannotWrite(format!("{}: {e}", dir.display()));
    let stat = nix::sys::statvfs::statvfs(dir).map_err(cannot)?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let needed = bytes + bytes / 10;
    if free < needed {
        return Err(RepairError::NoRoom { dir: dir.display().to_string(), needed, free });
    }
    Ok(())
}

/// Builds all indexes anew; kept only if the whole file is sound then.
fn reindex(conn: &Connection, done: &mut Vec<String>) -> Done<bool> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let built = || -> rusqlite::Result<String> {
        conn.execute_batch("REINDEX")?;
        conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
    };
    let whole = matches!(built(), Ok(said) if said == "ok");
    conn.execute_batch(if whole { "COMMIT" } else { "ROLLBACK" })?;
    if whole {
        done.push("the indexes were built anew".to_owned());
    }
    Ok(whole)
}

/// REINDEX walks the old index to free its pages, and stops where one is no page any more. Then all rows go into a new file, and from
/// there back over the old one, in one transaction and under the same lock.
fn rebuild(conn: &mut Connection, path: &Path, done: &mut Vec<String>) -> Result<bool, RepairError> {
    let into = beside(path, ".rebuilt");
    fits(path, std::fs::metadata(path).map_or(0, |meta| meta.len()))?;
    remove(&into);
    let whole = match rebuilt(conn, &into)? {
        Some(new) => {
            let at = |error| RepairError::from(Fault::from(error).at(path));
            let said: String = new.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(at)?;
            if said == "ok" {
                let mut back = || -> rusqlite::Result<()> {
                    Backup::new(&new, conn)?.run_to_completion(1_000, Duration::ZERO, None)
                };
                back().map_err(at)?;
            }
            said == "ok"
        }
        None => false,
    };
    remove(&into);
    done.push(if whole {
        "all rows were written anew with their indexes".to_owned()
    } else {
        "not all rows could be taken over as they are: nothing was changed".to_owned()
    });
    Ok(whole)
}

/// Gives back what the dead hold and drops what has expired.
fn tidy(conn: &Connection, before: &Checkup, now: DateTime<Utc>, done: &mut Vec<String>) -> Done<()> {
    let tx = conn.unchecked_transaction()?;
    let expired = tx.execute("DELETE FROM cache WHERE expires_at <= ?1", params![nanos(now)?])?;
    for id in &before.dead_leases {
        tx.execute("UPDATE threads SET owner = NULL WHERE id = ?1", [id.as_str()])?;
        done.push(format!("the lease of thread {id}, whose owner is dead, was given back"));
    }
    tx.commit()?;
    if expired > 0 {
        done.push(format!("{expired} cached results whose time is over were dropped"));
    }
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    if before.leftover_wal > 0 {
        done.push("the write-ahead log that a crash had left was taken into the file".to_owned());
    }
    Ok(())
}
