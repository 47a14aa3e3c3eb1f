//! What is wrong with a database's file: read only, table by table, so that one damaged page does not hide the rest.

use std::path::Path;

use chrono::{DateTime, Utc};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::audit::{self, AuditError};
use super::fault::{Done, Fault, decode, nanos};
use crate::graph::{Liveness, Owner, StoreError, ThreadId, ThreadStatus};

/// All tables, parents first: what is not named here a repair or a salvage leaves behind.
pub(super) const TABLES: [&str; 25] = [
    "threads",
    "thread_origins",
    "labels",
    "lines",
    "checkpoints",
    "results",
    "attempts",
    "entries",
    "interrupts",
    "events",
    "signals",
    "cache",
    "items",
    "audit",
    "ml_deployments",
    "assistants",
    "assistant_versions",
    "api_threads",
    "api_runs",
    "api_keys",
    "votes",
    "hooks",
    "reminders",
    "links",
    "run_webhooks",
];

/// Most sentences of one kind: a damaged file has thousands, and the first say it all.
const MOST_SAID: usize = 20;

/// How far a table can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// Its name.
    pub name: &'static str,
    /// Rows that were read from its beginning on.
    pub rows: u64,
    /// Why reading stopped before its end.
    pub error: Option<String>,
}

/// What was found. Nothing of the file was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkup {
    /// What SQLite's own check says; empty: it is sound.
    pub damage: Vec<String>,
    /// Each table.
    pub tables: Vec<TableState>,
    /// Rows whose parent is missing: `child 7 without its parent`.
    pub orphans: Vec<String>,
    /// Missing checkpoints, events, origins: reported, never invented.
    pub gaps: Vec<String>,
    /// Rows of the audit, or where its chain is broken.
    pub audit: Result<u64, String>,
    /// Cached results whose time is over.
    pub expired_cache: u64,
    /// Threads whose owner is dead. Those that wait for an answer are none of them: a runner knows by the dead owner that their run was lost.
    pub dead_leases: Vec<ThreadId>,
    /// Bytes in the write-ahead log: what a crash has left, or what who uses the file has not taken into it yet.
    pub leftover_wal: u64,
}

impl Checkup {
    /// Whether every row can be read and only the indexes beside them are wrong: then they can be built anew.
    pub fn only_indexes(&self) -> bool {
        !self.damage.is_empty() && self.tables.iter().all(|table| table.error.is_none())
    }

    /// Whether SQLite finds the file whole.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.tables.iter().all(|table| table.error.is_none())
    }

    /// Whether a repair would change anything.
    pub fn can_be_mended(&self) -> bool {
        self.only_indexes()
            || (self.is_whole() && (self.expired_cache > 0 || !self.dead_leases.is_empty() || self.leftover_wal > 0))
    }
}

/// Looks at a file. `now` tells what has expired. Blocks for as long as reading the whole file takes.
pub fn examine(path: &Path, liveness: &dyn Liveness, now: DateTime<Utc>) -> Result<Checkup, StoreError> {
    let leftover_wal = leftover(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> Done<Connection> {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(super::Options::default().busy_timeout)?;
        conn.pragma_update(None, "trusted_schema", "OFF")?;
        // Without this a file that lost its end is not looked at at all. Nothing is written.
        conn.pragma_update(None, "writable_schema", "ON")?;
        conn.pragma_update(None, "query_only", "ON")?;
        // Who closes a file last would take the log into it: here nothing is changed.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(conn)
    };
    let conn = open().map_err(|fault| fault.at(path))?;
    super::migrate::check(&conn, path)?;
    Ok(Checkup { leftover_wal, ..look(&conn, liveness, now) })
}

/// The write-ahead log's size.
pub(super) fn leftover(path: &Path) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).map_or(0, |meta| meta.len())
}

/// What a foreign key would say of the tables whose rows are known by their number: as `PRAGMA foreign_key_check` does.
const NUMBERED: &str = "
    SELECT 'checkpoints', n, 'lines' FROM checkpoints WHERE n >> 32 NOT IN (SELECT line FROM lines)
    UNION ALL SELECT 'events', n, 'threads' FROM events WHERE n >> 32 NOT IN (SELECT n FROM threads)";

/// The same on a connection that is open.
pub(super) fn look(conn: &Connection, liveness: &dyn Liveness, now: DateTime<Utc>) -> Checkup {
    let mut damage = said(conn, "PRAGMA integrity_check(20)", |row| row.get(0));
    damage.retain(|line| line != "ok");
    let tables = TABLES.iter().map(|name| read_through(conn, name)).collect();
    let orphan = |row: &Row<'_>| -> rusqlite::Result<String> {
        let (child, rowid, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let which = rowid.map(|rowid| format!(" {rowid}")).unwrap_or_default();
        Ok(format!("{child}{which} without its row in {parent}"))
    };
    let audit = match audit::verify(conn) {
        Ok(Ok(head)) => Ok(head.rows),
        Ok(Err(broken @ AuditError::Broken { .. })) => Err(broken.to_string()),
        Ok(Err(AuditError::Store(error))) => Err(error.to_string()),
        Err(fault) => Err(sentence(fault)),
    };
    Checkup {
        damage,
        tables,
        orphans: ["PRAGMA foreign_key_check", NUMBERED].iter().flat_map(|sql| said(conn, sql, orphan)).collect(),
        gaps: gaps(conn),
        audit,
        expired_cache: expired(conn, now).unwrap_or(0),
        dead_leases: dead_leases(conn, liveness).unwrap_or_default(),
        leftover_wal: 0,
    }
}

fn sentence(fault: Fault) -> String {
    match fault {
        Fault::Sql(error) => error.to_string(),
        Fault::Refused(error) => error.to_string(),
    }
}

/// The rows of a query as sentences; an error is the last of them.
fn said(conn: &Connection, sql: &str, say: impl Fn(&Row<'_>) -> rusqlite::Result<String>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut read = || -> rusqlite::Result<()> {
        let mut select = conn.prepare(sql)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            if lines.len() == MOST_SAID {
                lines.push("and more".to_owned());
                break;
            }
            lines.push(say(row)?);
        }
        Ok(())
    };
    let end = read();
    lines.extend(end.err().map(|error| error.to_string()));
    lines
}

/// Reads every column of every row, by the table itself and not by its indexes.
fn read_through(conn: &Connection, name: &'static str) -> TableState {
    let mut rows_read = 0;
    let mut read = || -> rusqlite::Result<()> {
        let mut select = conn.prepare(&format!("SELECT * FROM {name} NOT INDEXED"))?;
        let columns = select.column_count();
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            (0..columns).try_for_each(|column| row.get_ref(column).map(drop))?;
            rows_read += 1;
        }
        Ok(())
    };
    let error = read().err().map(|error| error.to_string());
    TableState { name, rows: rows_read, error }
}

/// What is missing between rows that are there. The journal's numbers may have gaps: a crash takes them.
fn gaps(conn: &Connection) -> Vec<String> {
    const CHECKPOINTS: &str = "
        SELECT t.id, l.ns, w.n & 4294967295, w.before & 4294967295 FROM
          (SELECT n, base, lag(n) OVER (PARTITION BY n >> 32 ORDER BY n) AS before FROM checkpoints) w
        JOIN lines l ON l.line = w.n >> 32 JOIN threads t ON t.n = l.thread
        WHERE (w.before IS NOT NULL AND w.n <> w.before + 1) OR (w.before IS NULL AND w.base = 0)";
    const EVENTS: &str = "
        SELECT t.id, w.last - w.many, w.before FROM
          (SELECT n >> 32 AS thread, n & 4294967295 AS last, iif(body ->> 0 = 'ran', 3, json_array_length(body)) AS many,
             coalesce(lag(n) OVER (PARTITION BY n >> 32 ORDER BY n) & 4294967295, 0) AS before FROM events) w
        JOIN threads t ON t.n = w.thread WHERE w.last - w.many <> w.before";
    const ORIGINS: &str = "
        SELECT id FROM threads t WHERE NOT EXISTS (SELECT 1 FROM thread_origins o WHERE o.thread = t.n)";
    const ROOTS: &str = "
        SELECT id FROM threads t WHERE NOT EXISTS
          (SELECT 1 FROM lines l JOIN checkpoints c ON c.n >> 32 = l.line WHERE l.thread = t.n AND l.ns = '')";
    let mut found = said(conn, CHECKPOINTS, |row| {
        let (id, ns, n, before): (String, String, i64, Option<i64>) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(format!("thread {id}, namespace `{ns}`: checkpoints {} to {} are missing", before.unwrap_or(0) + 1, n - 1))
    });
    found.extend(said(conn, EVENTS, |row| {
        let (id, behind, before): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!("thread {id}: events {} to {behind} are missing", before + 1))
    }));
    let of_thread =
        |what: &'static str| move |row: &Row<'_>| Ok(format!("thread {} has no {what}", row.get::<_, String>(0)?));
    found.extend(said(conn, ORIGINS, of_thread("origin")));
    found.extend(said(conn, ROOTS, of_thread("checkpoint")));
    found
}

fn expired(conn: &Connection, now: DateTime<Utc>) -> Done<u64> {
    let count: i64 =
        conn.query_row("SELECT count(*) FROM cache WHERE expires_at <= ?1", params![nanos(now)?], |row| row.get(0))?;
    super::fault::uncount(count)
}

fn dead_leases(conn: &Connection, liveness: &dyn Liveness) -> Done<Vec<ThreadId>> {
    let mut select = conn.prepare("SELECT id, owner FROM threads WHERE owner IS NOT NULL AND status <> ?1")?;
    let held = select.query_map([ThreadStatus::Interrupted.word()], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut dead = Vec::new();
    for row in held {
        let (id, owner) = row?;
        let owner: Owner = decode(&owner, "a thread's owner")?;
        if !liveness.alive(&owner) {
            dead.push(id.into());
        }
    }
    Ok(dead)
}
