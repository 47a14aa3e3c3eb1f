//! Rows of threads, and their leases.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::batch::Tx;
use super::fault::{Done, count, decode, decode_opt, encode, nanos, time, uncount};
use super::{checkpoints, events};
use crate::graph::{Failure, Liveness, Owner, StoreError, Thread, ThreadFilter, ThreadId, ThreadStatus, Unwinding};

/// What never changes of a thread.
#[derive(Serialize, Deserialize)]
struct Origin {
    workflow: String,
    document: Value,
    fingerprint: String,
    node_versions: BTreeMap<String, u32>,
    input: Value,
    labels: BTreeMap<String, String>,
}

/// What a commit needs of a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// The row's number.
    pub n: i64,
    /// The lease's epoch.
    pub epoch: u64,
    /// The newest event's number.
    pub last_event: i64,
}

pub(super) fn head(conn: &Connection, id: &ThreadId) -> Done<Head> {
    let mut select = conn.prepare_cached("SELECT n, epoch FROM threads WHERE id = ?1")?;
    let found = select.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (n, epoch) = found.ok_or_else(|| StoreError::NoThread(id.clone()))?;
    Ok(Head { n, epoch: uncount(epoch)?, last_event: events::last(conn, n)? })
}

/// The same from memory if the file still agrees.
pub(super) fn known_head(tx: &Tx<'_>, id: &ThreadId) -> Done<Head> {
    tx.lines.head(id).map_or_else(|| head(tx.conn, id), Ok)
}

/// The row's number.
pub(super) fn number(conn: &Connection, id: &ThreadId) -> Done<i64> {
    let mut select = conn.prepare_cached("SELECT n FROM threads WHERE id = ?1")?;
    let found = select.query_row([id.as_str()], |row| row.get(0)).optional()?;
    Ok(found.ok_or_else(|| StoreError::NoThread(id.clone()))?)
}

/// More than this is read off the runtime's threads, in bytes; a row counts as a kilobyte more than it has.
const LITTLE: i64 = 128 << 10;

/// Whether a thread has so little that reading its newest state, its effects, results and questions takes less time than handing that over to
/// another thread. Lengths are looked at, no contents.
pub(super) fn is_little(conn: &Connection, id: &ThreadId) -> Done<bool> {
    const WEIGHT: &str = "SELECT l.line,
       (SELECT coalesce(sum(octet_length(body) + 1024), 0) FROM (SELECT body FROM entries WHERE thread = l.thread LIMIT 129))
     + (SELECT coalesce(sum(octet_length(body) + 1024), 0) FROM (SELECT body FROM interrupts WHERE thread = l.thread LIMIT 129))
     + (SELECT coalesce(sum(octet_length(body) + 1024), 0) FROM (SELECT body FROM results WHERE line = l.line LIMIT 129))
     FROM lines l WHERE l.thread = (SELECT n FROM threads WHERE id = ?1) AND l.ns = ''";
    let mut weigh = conn.prepare_cached(WEIGHT)?;
    let found = weigh.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((line, others)): Option<(i64, i64)> = found else { return Ok(true) };
    checkpoints::newest_weighs_at_most(conn, line, LITTLE - others)
}

/// What a commit changes in the row. Most change nothing there: when a thread changed last stands in its newest event.
#[derive(Default)]
pub(super) struct RowChange<'a> {
    /// Status, failure and unwinding.
    pub status: Option<(ThreadStatus, Option<&'a Failure>, Option<&'a Unwinding>)>,
    /// How many answers a run knew.
    pub seen: Option<u64>,
    /// Entries up to this number are never undone.
    pub commit_point: Option<u64>,
    /// Whether something was undone.
    pub undone: Option<bool>,
    /// The lease is given back.
    pub release: bool,
}

impl RowChange<'_> {
    pub fn is_none(&self) -> bool {
        let Self { status, seen, commit_point, undone, release } = self;
        status.is_none() && seen.is_none() && commit_point.is_none() && undone.is_none() && !release
    }

    pub fn save(&self, conn: &Connection, thread: i64, at: DateTime<Utc>) -> Done<()> {
        let mut update = conn.prepare_cached(
            "UPDATE threads SET updated_at = ?2, status = coalesce(?3, status),
               failure = iif(?3 IS NULL, failure, ?4), unwinding = iif(?3 IS NULL, unwinding, ?5),
               seen = coalesce(?6, seen), committed_seq = coalesce(?7, committed_seq), undone = coalesce(?8, undone),
               owner = iif(?9, NULL, owner) WHERE n = ?1",
        )?;
        let (status, failure, unwinding) = match self.status {
            Some((status, failure, unwinding)) => (Some(status.word()), failure, unwinding),
            None => (None, None, None),
        };
        update.execute(params![
            thread,
            nanos(at)?,
            status,
            encode_opt(failure)?,
            encode_opt(unwinding)?,
            self.seen.map(count).transpose()?,
            self.commit_point.map(count).transpose()?,
            self.undone,
            self.release,
        ])?;
        Ok(())
    }
}

/// Adds a thread's rows.
pub(super) fn insert(conn: &Connection, thread: &Thread) -> Done<Head> {
    let there: Option<i64> = conn
        .prepare_cached("SELECT n FROM threads WHERE id = ?1")?
        .query_row([thread.id.as_str()], |row| row.get(0))
        .optional()?;
    if there.is_some() {
        return Err(StoreError::ThreadExists(thread.id.clone()).into());
    }
    let mut insert = conn.prepare_cached(
        "INSERT INTO threads (id, status, epoch, owner, attendant, failure, unwinding, committed_seq, undone,
         created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    insert.execute(params![
        thread.id.as_str(),
        thread.status.word(),
        count(thread.epoch)?,
        encode_opt(thread.owner.as_ref())?,
        encode_opt(thread.attendant.as_ref())?,
        encode_opt(thread.failure.as_ref())?,
        encode_opt(thread.unwinding.as_ref())?,
        count(thread.committed_seq)?,
        thread.undone,
        nanos(thread.created_at)?,
        nanos(thread.updated_at)?,
    ])?;
    let n = conn.last_insert_rowid();
    let origin = Origin {
        workflow: thread.workflow.clone(),
        document: thread.document.clone(),
        fingerprint: thread.fingerprint.clone(),
        node_versions: thread.node_versions.clone(),
        input: thread.input.clone(),
        labels: thread.labels.clone(),
    };
    conn.prepare_cached("INSERT INTO thread_origins (thread, body) VALUES (?1, ?2)")?
        .execute(params![n, encode(&origin)?])?;
    let mut label = conn.prepare_cached("INSERT INTO labels (thread, name, value) VALUES (?1, ?2, ?3)")?;
    for (name, value) in &thread.labels {
        label.execute(params![n, name, value])?;
    }
    Ok(Head { n, epoch: thread.epoch, last_event: 0 })
}

/// Notes that a thread goes on with other versions of its nodes.
pub(super) fn migrated(
    conn: &Connection,
    thread: i64,
    fingerprint: &str,
    node_versions: &BTreeMap<String, u32>,
) -> Done<()> {
    let mut select = conn.prepare_cached("SELECT body FROM thread_origins WHERE thread = ?1")?;
    let body: String = select.query_row([thread], |row| row.get(0))?;
    let origin: Origin = decode(&body, "a thread's origin")?;
    let origin = Origin { fingerprint: fingerprint.to_owned(), node_versions: node_versions.clone(), ..origin };
    let mut update = conn.prepare_cached("UPDATE thread_origins SET body = ?2 WHERE thread = ?1")?;
    update.execute(params![thread, encode(&origin)?])?;
    Ok(())
}

pub(super) fn encode_opt<T: Serialize>(value: Option<&T>) -> Done<Option<String>> {
    value.map(encode).transpose()
}

/// When the row `t` changed last: most commits say it in their events alone.
pub(super) const CHANGED_AT: &str = "max(t.updated_at, coalesce((SELECT at FROM events e WHERE e.n > t.n << 32 AND e.n < (t.n + 1) << 32 ORDER BY e.n DESC LIMIT 1), 0))";

const COLUMNS: &str =
    "t.id, t.status, t.epoch, t.owner, t.attendant, t.failure, t.unwinding, t.committed_seq, t.undone, t.created_at,
     max(t.updated_at, coalesce((SELECT at FROM events e WHERE e.n > t.n << 32 AND e.n < (t.n + 1) << 32 ORDER BY e.n DESC LIMIT 1), 0)),
     o.body, t.wake, t.imported FROM threads t JOIN thread_origins o ON o.thread = t.n";

struct Stored {
    id: String,
    status: String,
    epoch: i64,
    owner: Option<String>,
    attendant: Option<String>,
    wake: Option<String>,
    failure: Option<String>,
    unwinding: Option<String>,
    committed_seq: i64,
    undone: bool,
    created_at: i64,
    updated_at: i64,
    origin: String,
    imported: Option<String>,
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            status: row.get(1)?,
            epoch: row.get(2)?,
            owner: row.get(3)?,
            attendant: row.get(4)?,
            failure: row.get(5)?,
            unwinding: row.get(6)?,
            committed_seq: row.get(7)?,
            undone: row.get(8)?,
            created_at: row.get(9)?,
            updated_at: row.get(10)?,
            origin: row.get(11)?,
            wake: row.get(12)?,
            imported: row.get(13)?,
        })
    }

    fn thread(self) -> Done<Thread> {
        let origin: Origin = decode(&self.origin, &format!("thread {}", self.id))?;
        Ok(Thread {
            workflow: origin.workflow,
            document: origin.document,
            fingerprint: origin.fingerprint,
            node_versions: origin.node_versions,
            input: origin.input,
            labels: origin.labels,
            status: decode(&format!("\"{}\"", self.status), "a thread's status")?,
            failure: decode_opt(self.failure, "a thread's failure")?,
            unwinding: decode_opt(self.unwinding, "a thread's unwinding")?,
            committed_seq: uncount(self.committed_seq)?,
            undone: self.undone,
            owner: decode_opt(self.owner, "a thread's owner")?,
            epoch: uncount(self.epoch)?,
            attendant: decode_opt(self.attendant, "a thread's attendant")?,
            wake: decode_opt(self.wake, "a thread's timer")?,
            imported: decode_opt(self.imported, "a thread's import")?,
            created_at: time(self.created_at),
            updated_at: time(self.updated_at),
            id: self.id.into(),
        })
    }
}

/// One row.
pub(super) fn one(conn: &Connection, id: &ThreadId) -> Done<Option<Thread>> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE t.id = ?1"))?;
    let stored = select.query_row([id.as_str()], Stored::read).optional()?;
    stored.map(Stored::thread).transpose()
}

/// Rows, newest first.
pub(super) fn list(conn: &Connection, filter: &ThreadFilter) -> Done<Vec<Thread>> {
    let mut wanted = Vec::new();
    let mut values: Vec<Sql> = Vec::new();
    if !filter.statuses.is_empty() {
        wanted.push(format!("t.status IN ({})", vec!["?"; filter.statuses.len()].join(", ")));
        values.extend(filter.statuses.iter().map(|s: &ThreadStatus| Sql::from(s.word().to_owned())));
    }
    if let Some((name, value)) = &filter.label {
        wanted.push("EXISTS (SELECT 1 FROM labels l WHERE l.thread = t.n AND l.name = ? AND l.value = ?)".to_owned());
        values.extend([Sql::from(name.clone()), Sql::from(value.clone())]);
    }
    let wanted = if wanted.is_empty() { String::new() } else { format!("WHERE {}", wanted.join(" AND ")) };
    // A negative limit is none.
    let limit = if filter.limit == 0 { -1 } else { i64::try_from(filter.limit).unwrap_or(i64::MAX) };
    values.push(Sql::from(limit));
    let sql = format!("SELECT {COLUMNS} {wanted} ORDER BY t.created_at DESC, t.id DESC LIMIT ?");
    let mut select = conn.prepare_cached(&sql)?;
    let rows = select.query_map(params_from_iter(values), Stored::read)?;
    rows.map(|stored| stored?.thread()).collect()
}

/// Refuses to change a record from elsewhere.
pub(super) fn refuse_imported(conn: &Connection, id: &ThreadId) -> Done<()> {
    let mut select = conn.prepare_cached("SELECT imported IS NOT NULL FROM threads WHERE id = ?1")?;
    match select.query_row([id.as_str()], |row| row.get(0)).optional()? {
        Some(true) => Err(StoreError::Imported(id.clone()).into()),
        Some(false) | None => Ok(()),
    }
}

/// Takes the lease unless its owner lives.
pub(super) fn acquire(tx: &mut Tx<'_>, id: &ThreadId, owner: &Owner, liveness: &dyn Liveness) -> Done<Thread> {
    let mut thread = one(tx.conn, id)?.ok_or_else(|| StoreError::NoThread(id.clone()))?;
    if let Some(held) = thread.owner.take_if(|held| held != owner && liveness.alive(held)) {
        return Err(StoreError::Held { thread: id.clone(), owner: Box::new(held) }.into());
    }
    if thread.imported.is_some() {
        return Err(StoreError::Imported(id.clone()).into());
    }
    thread.owner = Some(owner.clone());
    thread.epoch += 1;
    let mut update = tx.conn.prepare_cached("UPDATE threads SET owner = ?2, epoch = ?3 WHERE id = ?1")?;
    update.execute(params![id.as_str(), encode(owner)?, count(thread.epoch)?])?;
    let head = head(tx.conn, id)?;
    tx.lines.put_head(id, head);
    Ok(thread)
}

/// Whether a thread as it stands is gone on with by whoever looks, without anybody's further word. One that is not there is not.
pub(super) fn goes_on_by_itself(conn: &Connection, id: &ThreadId) -> Done<bool> {
    let sql = "SELECT status IN ('pending', 'running', 'sleeping') OR (status = 'interrupted' AND seen <
                 (SELECT count(*) FROM interrupts i WHERE i.thread = t.n AND i.answer IS NOT NULL))
               FROM threads t WHERE id = ?1";
    let found = conn.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0)).optional()?;
    Ok(found.unwrap_or(false))
}

/// Gives the lease back if it is still the one of `epoch`.
pub(super) fn release(tx: &mut Tx<'_>, id: &ThreadId, epoch: u64) -> Done<()> {
    let mut update = tx.conn.prepare_cached("UPDATE threads SET owner = NULL WHERE id = ?1 AND epoch = ?2")?;
    update.execute(params![id.as_str(), count(epoch)?])?;
    Ok(())
}

/// Sets who waits for the thread.
pub(super) fn attend(tx: &mut Tx<'_>, id: &ThreadId, attendant: Option<&Owner>) -> Done<()> {
    refuse_imported(tx.conn, id)?;
    let mut update = tx.conn.prepare_cached("UPDATE threads SET attendant = ?2 WHERE id = ?1")?;
    match update.execute(params![id.as_str(), encode_opt(attendant)?])? {
        0 => Err(StoreError::NoThread(id.clone()).into()),
        _ => Ok(()),
    }
}
