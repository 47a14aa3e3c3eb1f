//! Takes what can still be read out of a damaged file into a new one, row by row; the old one is not touched.

use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::checkup::TABLES;
use super::fault::{Done, Fault};
use super::migrate;
use super::open::{self, Options};
use super::repair::{RepairError, fits};
use crate::graph::StoreError;

/// Tables whose rows are found by their key alone.
const WITHOUT_ROWID: [&str; 4] = ["labels", "signals", "cache", "items"];

/// Columns of JSON without which a row says nothing.
const BODIES: [(&str, &str); 14] = [
    ("thread_origins", "body"),
    ("checkpoints", "body"),
    ("results", "body"),
    ("entries", "body"),
    ("interrupts", "body"),
    ("events", "body"),
    ("signals", "body"),
    ("cache", "body"),
    ("items", "value"),
    ("assistant_versions", "body"),
    ("api_threads", "metadata"),
    ("api_runs", "body"),
    ("votes", "body"),
    ("run_webhooks", "body"),
];

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// Each table: rows taken, and whether that is all of them.
    pub tables: Vec<(&'static str, u64, bool)>,
    /// What was read but cannot be used, as sentences.
    pub dropped: Vec<String>,
}

/// Copies what can be read of `path` into the new file `into`. Nobody may use `path` meanwhile.
pub fn salvage(path: &Path, into: &Path) -> Result<Salvaged, RepairError> {
    if into.exists() {
        return Err(RepairError::Exists(into.display().to_string()));
    }
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    // The copy, and the new file.
    fits(into, 2 * (size(path) + size(&beside(path, "-wal"))))?;
    let copy = Copy::of(path, into)?;
    let at = |fault: Fault| RepairError::from(fault.at(path));
    let from = copy.open().map_err(at)?;
    migrate::migrate(&from, path)?;
    let to = open::writer(into, &Options::default())?;
    let taken = take(&from, &to).map_err(|fault| RepairError::from(fault.at(into)));
    drop((from, to));
    if taken.is_err() {
        // Half of a salvage is none: the old file is as it was.
        remove(into);
    }
    taken
}

pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A copy of the damaged file with its log: opening a file may write to it. Removed when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(path: &Path, into: &Path) -> Result<Self, StoreError> {
        let copy = Self(beside(into, ".copy"));
        let cannot = |e: std::io::Error| StoreError::CannotWrite(format!("{}: {e}", copy.0.display()));
        std::fs::copy(path, &copy.0).map_err(cannot)?;
        let log = beside(path, "-wal");
        if log.exists() {
            std::fs::copy(log, beside(&copy.0, "-wal")).map_err(cannot)?;
        }
        Ok(copy)
    }

    fn open(&self) -> Done<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.0, flags)?;
        conn.pragma_update(None, "trusted_schema", "OFF")?;
        // Without this nothing is read of a file that lost its end.
        conn.pragma_update(None, "writable_schema", "ON")?;
        Ok(conn)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// The same file with other indexes: all rows of `from` in a new file, if all of them can be taken as they are.
pub(super) fn rebuilt(from: &Connection, into: &Path) -> Result<Option<Connection>, StoreError> {
    let to = open::writer(into, &Options::default())?;
    let taken = take(from, &to).map_err(|fault| fault.at(into))?;
    let whole = taken.dropped.is_empty() && taken.tables.iter().all(|(_, _, all)| *all);
    Ok(whole.then_some(to))
}

/// Removes a file of ours with its companions.
pub(super) fn remove(path: &Path) {
    // What is not there need not be removed.
    ["", "-wal", "-shm", "-journal"].iter().for_each(|end| drop(std::fs::remove_file(beside(path, end))));
}

fn take(from: &Connection, to: &Connection) -> Done<Salvaged> {
    to.pragma_update(None, "foreign_keys", "OFF")?;
    let tx = to.unchecked_transaction()?;
    let mut tables = Vec::new();
    for name in TABLES {
        let (rows, all) = Table::new(&tx, name)?.copy(from, &tx)?;
        tables.push((name, rows, all));
    }
    let mut dropped = Vec::new();
    unreadable(&tx, &mut dropped)?;
    behind_gaps(&tx, &mut dropped)?;
    orphans(&tx, &mut dropped)?;
    // That rows of the audit are missing at its end must be seen in the new file too.
    let given = from.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'audit'", [], |row| row.get::<_, i64>(0));
    if let Ok(given) = given {
        tx.execute("UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'audit'", [given])?;
    }
    tx.commit()?;
    to.pragma_update(None, "foreign_keys", "ON")?;
    Ok(Salvaged { tables, dropped })
}

/// One table's statements.
struct Table {
    select: String,
    insert: String,
    /// Whether its rows have numbers.
    numbered: bool,
    /// From its end, by its key.
    backwards: &'static str,
}

/// One end of a pass over a table: the last number that was read, and whether the pass came to its end.
struct Pass {
    rows: u64,
    last: Option<i64>,
    through: bool,
}

impl Table {
    fn new(to: &Connection, name: &str) -> Done<Self> {
        let mut info = to.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let columns: Vec<String> = info.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let marks = vec!["?"; columns.len()].join(", ");
        let columns = columns.join(", ");
        let numbered = !WITHOUT_ROWID.contains(&name);
        let number = if numbered { "rowid" } else { "0" };
        Ok(Self {
            select: format!("SELECT {number}, {columns} FROM {name} NOT INDEXED"),
            insert: format!("INSERT OR IGNORE INTO {name} ({columns}) VALUES ({marks})"),
            numbered,
            backwards: if name == "cache" { "ORDER BY 2 DESC" } else { "ORDER BY 2 DESC, 3 DESC" },
        })
    }

    /// From the front to the first damage, then from the first row behind it that can be found, and so on; backwards from there, too.
    fn copy(&self, from: &Connection, to: &Connection) -> Done<(u64, bool)> {
        let mut pass = self.pass(from, to, if self.numbered { "ORDER BY rowid" } else { "" })?;
        let (mut rows, all) = (pass.rows, pass.through);
        if !self.numbered {
            if !all {
                rows += self.pass(from, to, self.backwards)?.rows;
            }
            return Ok((rows, all));
        }
        let mut lower = pass.last.unwrap_or(i64::MIN);
        while !pass.through {
            let Some(behind) = self.behind(from, lower) else {
                // Nothing is found from the front any more: what is left comes from the end.
                let rest = format!("WHERE rowid > {lower} ORDER BY rowid DESC");
                rows += self.pass(from, to, &rest)?.rows;
                break;
            };
            let between = format!("WHERE rowid > {lower} AND rowid < {behind} ORDER BY rowid DESC");
            rows += self.pass(from, to, &between)?.rows;
            pass = self.pass(from, to, &format!("WHERE rowid >= {behind} ORDER BY rowid"))?;
            rows += pass.rows;
            lower = pass.last.unwrap_or(behind);
        }
        Ok((rows, all))
    }

    /// The first number behind a damage from which on a row can be read: in steps that double.
    fn behind(&self, from: &Connection, lower: i64) -> Option<i64> {
        let start = if lower == i64::MIN { 0 } else { lower };
        (0..62).filter_map(|step| start.checked_add(1 << step)).find_map(|at| {
            let sql = format!("{} WHERE rowid >= {at} ORDER BY rowid LIMIT 1", self.select);
            from.prepare(&sql).ok()?.query_row([], |row| row.get(0)).ok()
        })
    }

    fn pass(&self, from: &Connection, to: &Connection, order: &str) -> Done<Pass> {
        let mut pass = Pass { rows: 0, last: None, through: true };
        let Ok(mut select) = from.prepare(&format!("{} {order}", self.select)) else {
            return Ok(Pass { through: false, ..pass });
        };
        let columns = select.column_count();
        let mut insert = to.prepare_cached(&self.insert)?;
        let mut rows = select.query([])?;
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(pass),
                Err(_) => return Ok(Pass { through: false, ..pass }),
            };
            let values: Result<Vec<Value>, _> = (1..columns).map(|column| row.get(column)).collect();
            pass.last = row.get(0).ok();
            match values.map(|values| insert.execute(params_from_iter(values))) {
                Ok(Ok(added)) => pass.rows += added as u64,
                // Not what such a column can hold: the row is damaged, its page is not.
                Ok(Err(rusqlite::Error::SqliteFailure(error, _)))
                    if error.code == rusqlite::ErrorCode::ConstraintViolation =>
                {
                    pass.through = false;
                    if !self.numbered {
                        continue;
                    }
                    return Ok(pass);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Ok(Pass { through: false, ..pass }),
            }
        }
    }
}

fn note(dropped: &mut Vec<String>, count: usize, what: &str) {
    if count > 0 {
        dropped.push(format!("{count} {what}"));
    }
}

fn unreadable(to: &Connection, dropped: &mut Vec<String>) -> Done<()> {
    for (table, column) in BODIES {
        let gone = to.execute(&format!("DELETE FROM {table} WHERE NOT json_valid({column})"), [])?;
        note(dropped, gone, &format!("rows of {table} whose content cannot be read"));
    }
    Ok(())
}

/// A checkpoint that holds only changes is worth nothing without the one before: so is all behind it, up to the next snapshot.
fn behind_gaps(to: &Connection, dropped: &mut Vec<String>) -> Done<()> {
    // What a row builds on without a gap begins where `n` less its place among the line's rows does; there must be a snapshot.
    const LOST: &str = "
        DELETE FROM checkpoints WHERE n IN
          (SELECT n FROM
            (SELECT n, max(base) OVER (PARTITION BY n >> 32, island ORDER BY n) AS since FROM
              (SELECT n, base, n - row_number() OVER (PARTITION BY n >> 32 ORDER BY n) AS island FROM checkpoints))
           WHERE since = 0)";
    let gone = to.execute(LOST, [])?;
    note(dropped, gone, "checkpoints that say only what changed since one that is lost");
    Ok(())
}

/// Rows without their parent. A thread without what it began with stays: nobody can go on with it, but its rows can be read.
fn orphans(to: &Connection, dropped: &mut Vec<String>) -> Done<()> {
    const CHILDREN: [(&str, &str); 15] = [
        ("signals", "thread NOT IN (SELECT n FROM threads)"),
        ("thread_origins", "thread NOT IN (SELECT n FROM threads)"),
        ("labels", "thread NOT IN (SELECT n FROM threads)"),
        ("lines", "thread NOT IN (SELECT n FROM threads)"),
        ("checkpoints", "n >> 32 NOT IN (SELECT line FROM lines)"),
        ("results", "line NOT IN (SELECT line FROM lines)"),
        ("attempts", "line NOT IN (SELECT line FROM lines)"),
        ("entries", "thread NOT IN (SELECT n FROM threads)"),
        ("interrupts", "thread NOT IN (SELECT n FROM threads)"),
        ("events", "n >> 32 NOT IN (SELECT n FROM threads)"),
        ("assistant_versions", "assistant NOT IN (SELECT n FROM assistants)"),
        ("api_runs", "thread NOT IN (SELECT n FROM api_threads)"),
        ("votes", "question NOT IN (SELECT id FROM interrupts)"),
        ("reminders", "question NOT IN (SELECT id FROM interrupts)"),
        ("links", "question NOT IN (SELECT id FROM interrupts)"),
    ];
    for (table, lost) in CHILDREN {
        let gone = to.execute(&format!("DELETE FROM {table} WHERE {lost}"), [])?;
        note(dropped, gone, &format!("rows of {table} without the row that they belong to"));
    }
    Ok(())
}
