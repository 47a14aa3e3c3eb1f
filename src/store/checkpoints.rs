//! Checkpoints: a line of rows per namespace, changes on snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use chrono::DateTime;
use rusqlite::types::{FromSqlError, ToSql, ToSqlOutput, Value as Sql, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::batch::Tx;
use super::delta::{self, Body};
use super::fault::{Done, decode, encode, nanos, time};
use super::lines::{Line, LineKey};
use crate::graph::{Checkpoint, CheckpointId, Name, Partial, Source, State, StoreError, TaskPath, TaskResult, Visits};

/// A snapshot is due when the changes since the last one weigh this many times as much. Then all snapshots of a growing state
/// together weigh about twice the last one, and reading the newest state costs at most this many times its size.
const DELTAS_PER_BASE: usize = 3;
/// Below this size rows are read so fast that snapshots would only take room.
const LEAST_BASE_BYTES: usize = 4096;
/// What only grows stands in the changes once, as it would in a snapshot: none is due while the changes weigh at most this many times what
/// the state does, and no more than [`MOST_GROWN_BYTES`].
const DELTAS_PER_STATE: usize = 2;
/// Rows of this size in all are read in a few milliseconds.
const MOST_GROWN_BYTES: usize = 256 << 10;
/// What is read faster than it is worth writing it once more where a thread comes to rest.
const LEAST_REST_BYTES: usize = 16 << 10;

/// Appends a checkpoint to its line; what was kept of the superstep before is dropped.
pub(super) fn append(tx: &mut Tx<'_>, thread: i64, checkpoint: &Arc<Checkpoint>) -> Done<()> {
    let key = (thread, checkpoint.ns.clone());
    let mut line = line(tx, &key)?;
    if line.partials {
        tx.conn.prepare_cached("DELETE FROM results WHERE line = ?1")?.execute([line.id])?;
        tx.conn.prepare_cached("DELETE FROM attempts WHERE line = ?1")?.execute([line.id])?;
        line.partials = false;
    }
    let most = most_changes(&line);
    let mut text = std::mem::take(&mut tx.lines.text);
    let changes = line.last.as_ref().and_then(|last| delta::changes(last, checkpoint, most, &mut text));
    let grown = changes.transpose().map_err(unwritable)?.filter(|_| text.len() <= most);
    let base = grown.is_none();
    if base {
        delta::snapshot(checkpoint, &mut text).map_err(unwritable)?;
    }
    line.state_bytes = grown.map_or(text.len(), |grown| line.state_bytes.saturating_add_signed(grown));
    let body = std::str::from_utf8(&text).map_err(|e| StoreError::Failed(format!("JSON is no text: {e}")))?;
    if base {
        (line.base_bytes, line.delta_bytes) = (body.len(), 0);
    } else {
        line.delta_bytes += body.len();
    }
    line.rows += 1;
    let mut insert = tx.conn.prepare_cached(
        "INSERT INTO checkpoints (n, id, step, source, at, base, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let at = nanos(checkpoint.at)?;
    let source = source_word(checkpoint.source);
    let n = rows_of(line.id).start + line.rows;
    insert.execute(params![n, StoredId(&checkpoint.id), checkpoint.step, source, at, base, body])?;
    line.last = Some(checkpoint.clone());
    tx.lines.put(key, line);
    tx.lines.take_back(text);
    Ok(())
}

/// The thread stands, and whoever lets it go on reads its state first: the root's newest row becomes a snapshot where that spares the reader
/// at least as much as the last one weighs, so that all of a growing state together weigh about twice the last one.
pub(super) fn rest(tx: &mut Tx<'_>, thread: i64) -> Done<()> {
    let key = (thread, Name::default());
    // Of a line that this process has not written to nothing is known; it was read then, and is as it was.
    let Some(known) = tx.lines.get(&key).filter(|line| line.generation == tx.lines.generation()) else { return Ok(()) };
    let spared = known.delta_bytes;
    let Some(last) = known.last.clone() else { return Ok(()) };
    if spared < LEAST_REST_BYTES || spared < known.base_bytes || spared < known.state_bytes / 2 {
        return Ok(());
    }
    let mut line = known.clone();
    let mut text = std::mem::take(&mut tx.lines.text);
    delta::snapshot(&last, &mut text).map_err(unwritable)?;
    let body = std::str::from_utf8(&text).map_err(|e| StoreError::Failed(format!("JSON is no text: {e}")))?;
    let n = rows_of(line.id).start + line.rows;
    tx.conn.prepare_cached(BECOMES_SNAPSHOT)?.execute(params![n, body])?;
    (line.base_bytes, line.delta_bytes) = (body.len(), 0);
    tx.lines.put(key, line);
    tx.lines.take_back(text);
    Ok(())
}

const BECOMES_SNAPSHOT: &str = "UPDATE checkpoints SET base = 1, body = ?2 WHERE n = ?1";

fn unwritable(e: serde_json::Error) -> StoreError {
    StoreError::Failed(format!("a checkpoint cannot be written: {e}"))
}

/// How large a row may be that says only what has changed.
fn most_changes(line: &Line) -> usize {
    let grown = (line.state_bytes * DELTAS_PER_STATE).min(MOST_GROWN_BYTES);
    LEAST_BASE_BYTES.max(line.base_bytes * DELTAS_PER_BASE).max(grown).saturating_sub(line.delta_bytes)
}

/// Keeps a finished task's result.
pub(super) fn result(tx: &mut Tx<'_>, thread: i64, ns: &str, of: &CheckpointId, result: &TaskResult) -> Done<()> {
    let line = with_partials(tx, thread, ns)?;
    // REPLACE gives a new row number: a repeated result moves to the end, as everywhere.
    let mut insert = tx
        .conn
        .prepare_cached("INSERT OR REPLACE INTO results (line, checkpoint, path, body) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![line, of.as_str(), encode(&result.path)?, encode(result)?])?;
    Ok(())
}

/// Keeps how often a task has failed.
pub(super) fn attempts(
    tx: &mut Tx<'_>,
    thread: i64,
    ns: &str,
    of: &CheckpointId,
    path: &TaskPath,
    failed: u32,
) -> Done<()> {
    let line = with_partials(tx, thread, ns)?;
    let mut insert = tx
        .conn
        .prepare_cached("INSERT OR REPLACE INTO attempts (line, checkpoint, path, failed) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![line, of.as_str(), encode(path)?, failed])?;
    Ok(())
}

fn with_partials(tx: &mut Tx<'_>, thread: i64, ns: &str) -> Done<i64> {
    let key = (thread, Name::from(ns));
    let mut line = line(tx, &key)?;
    let id = line.id;
    line.partials = true;
    tx.lines.put(key, line);
    Ok(id)
}

/// The line from memory if the file still agrees, or from the file; a new one where there is none.
fn line(tx: &mut Tx<'_>, key: &LineKey) -> Done<Line> {
    let generation = tx.lines.generation();
    let known = match tx.lines.get(key) {
        Some(known) if known.generation == generation => return Ok(known.clone()),
        Some(known) => Some(known.clone()),
        None => tx.lines.hint(key),
    };
    if let Some(known) = known
        && newest_id(tx.conn, known.id)?.as_ref() == known.last.as_ref().map(|last| &last.id)
    {
        return Ok(Line { generation, partials: true, ..known });
    }
    let (thread, ns) = key;
    let Some(id) = line_id(tx.conn, *thread, ns)? else {
        tx.conn
            .prepare_cached("INSERT INTO lines (thread, ns) VALUES (?1, ?2)")?
            .execute(params![thread, ns.as_str()])?;
        let id = tx.conn.last_insert_rowid();
        return Ok(Line { partials: false, ..no_rows(id, generation) });
    };
    read_line(tx.conn, id, ns, generation)
}

fn read_line(conn: &Connection, id: i64, ns: &str, generation: u64) -> Done<Line> {
    Ok(match newest(conn, id, ns)? {
        Some(Newest { checkpoint, rows, base_bytes, delta_bytes }) => {
            let (state_bytes, last) = (delta::size(&checkpoint.values, MOST_GROWN_BYTES), Some(Arc::new(checkpoint)));
            Line { id, rows, last, base_bytes, delta_bytes, state_bytes, partials: true, generation }
        }
        None => no_rows(id, generation),
    })
}

fn no_rows(id: i64, generation: u64) -> Line {
    Line { id, rows: 0, last: None, base_bytes: 0, delta_bytes: 0, state_bytes: 0, partials: true, generation }
}

/// The root's line, if the thread has one.
pub(super) fn root(conn: &Connection, thread: i64) -> Done<Option<Line>> {
    line_id(conn, thread, "")?.map(|id| read_line(conn, id, "", 0)).transpose()
}

/// The numbers that a line's rows can have; the first one stays free.
pub(super) fn rows_of(line: i64) -> Range<i64> {
    line << 32..(line + 1) << 32
}

/// An id's column: the bytes of a UUID, which take less than half of its text.
struct StoredId<'a>(&'a CheckpointId);

impl ToSql for StoredId<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = self.0.as_str();
        let uuid = Uuid::try_parse(text).ok().filter(|uuid| *uuid.hyphenated().encode_lower(&mut [0; 36]) == *text);
        Ok(match uuid {
            Some(uuid) => ToSqlOutput::Owned(Sql::Blob(uuid.into_bytes().into())),
            None => ToSqlOutput::Borrowed(text.into()),
        })
    }
}

pub(super) fn read_id(row: &Row<'_>, column: usize) -> rusqlite::Result<CheckpointId> {
    match row.get_ref(column)? {
        ValueRef::Blob(bytes) => {
            let uuid = Uuid::from_slice(bytes).map_err(|e| FromSqlError::Other(Box::new(e)))?;
            Ok(CheckpointId::from(&*uuid.hyphenated().encode_lower(&mut [0; 36])))
        }
        text => Ok(CheckpointId::from(text.as_str()?)),
    }
}

fn newest_id(conn: &Connection, line: i64) -> Done<Option<CheckpointId>> {
    let rows = rows_of(line);
    let sql = "SELECT id FROM checkpoints WHERE n > ?1 AND n < ?2 ORDER BY n DESC LIMIT 1";
    Ok(conn.prepare_cached(sql)?.query_row([rows.start, rows.end], |row| read_id(row, 0)).optional()?)
}

pub(super) fn line_id(conn: &Connection, thread: i64, ns: &str) -> Done<Option<i64>> {
    let mut select = conn.prepare_cached("SELECT line FROM lines WHERE thread = ?1 AND ns = ?2")?;
    Ok(select.query_row(params![thread, ns], |row| row.get(0)).optional()?)
}

/// A row.
pub(super) struct Stored {
    pub n: i64,
    id: CheckpointId,
    pub step: i64,
    source: String,
    pub at: i64,
    base: bool,
    body: String,
}

impl Stored {
    const N: usize = 0;
    const ID: usize = 1;
    const BASE: usize = 5;
    const BODY: usize = 6;
    /// Those between two numbers.
    pub const OF_LINE: &str =
        "SELECT n, id, step, source, at, base, body FROM checkpoints WHERE n > ?1 AND n < ?2 ORDER BY n";

    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            n: row.get(0)?,
            id: read_id(row, Self::ID)?,
            step: row.get(2)?,
            source: row.get(3)?,
            at: row.get(4)?,
            base: row.get(Self::BASE)?,
            body: row.get(Self::BODY)?,
        })
    }

    /// Turns the checkpoint before into this one.
    pub fn apply(self, to: &mut Checkpoint) -> Done<()> {
        self.apply_as(to, |body| body)
    }

    fn apply_as(self, to: &mut Checkpoint, edit: fn(Body) -> Body) -> Done<()> {
        let ns = std::mem::take(&mut to.ns);
        if self.base {
            *to = empty();
        }
        let body: Body = decode(&self.body, &format!("checkpoint {}", self.id))?;
        edit(body).apply(to);
        to.ns = ns;
        to.id = self.id;
        to.step = self.step;
        to.source = parse_source(&self.source)?;
        to.at = time(self.at);
        Ok(())
    }
}

/// What a snapshot's changes are applied to.
fn empty() -> Checkpoint {
    Checkpoint {
        id: CheckpointId::from(""),
        parent: None,
        ns: Name::default(),
        step: 0,
        fork: 0,
        source: Source::Loop,
        values: State::new(),
        written: State::new(),
        barriers: BTreeMap::new(),
        deferred: BTreeSet::new(),
        frontier: Vec::new(),
        visits: Visits::new(),
        at: DateTime::UNIX_EPOCH,
    }
}

/// The newest checkpoint of a line.
struct Newest {
    checkpoint: Checkpoint,
    /// Its row's number in the line.
    rows: i64,
    /// Size of its snapshot's row.
    base_bytes: usize,
    /// Size of the rows since.
    delta_bytes: usize,
}

fn newest(conn: &Connection, line: i64, ns: &str) -> Done<Option<Newest>> {
    newest_before(conn, line, ns, rows_of(line).end)
}

/// The checkpoint of a row.
pub(super) fn of_row(conn: &Connection, line: i64, ns: &str, row: i64) -> Done<Option<Checkpoint>> {
    Ok(newest_before(conn, line, ns, row + 1)?.map(|newest| newest.checkpoint))
}

/// What is read is of one moment, so that both statements see the same rows.
fn newest_before(conn: &Connection, line: i64, ns: &str, end: i64) -> Done<Option<Newest>> {
    let rows = rows_of(line);
    let Some(Span { base, before, newest }) = since_snapshot(conn, rows.start..end)? else { return Ok(None) };
    let mut select = conn.prepare_cached(Stored::OF_LINE)?;
    // Oldest first, each applied as it is read: what a row takes is used again for the next one.
    let mut found = select.query([base - 1, newest + 1])?;
    let mut checkpoint = Checkpoint { ns: ns.into(), ..empty() };
    let (mut base_bytes, mut delta_bytes) = (0, 0);
    while let Some(row) = found.next()? {
        let body = row.get_ref(Stored::BODY)?.as_str().map_err(rusqlite::Error::from)?;
        let n: i64 = row.get(Stored::N)?;
        if n == base {
            base_bytes = body.len();
        } else {
            delta_bytes += body.len();
        }
        // Of the rows that the newest builds on only the changes count, and of the one before it the id.
        if n < newest {
            let changes: Body = decode(body, "a checkpoint")?;
            changes.change(&mut checkpoint);
            if n == before {
                checkpoint.id = read_id(row, Stored::ID)?;
            }
        } else {
            Stored::read(row)?.apply(&mut checkpoint)?;
        }
    }
    Ok(Some(Newest { checkpoint, rows: newest - rows.start, base_bytes, delta_bytes }))
}

/// Rows that build on each other.
struct Span {
    /// The snapshot.
    base: i64,
    /// The last one but one; the newest where there is no other.
    before: i64,
    newest: i64,
}

/// Whether what a line's newest state is read from has at most so many bytes; a row counts as a kilobyte more than it has. Only lengths are looked at.
pub(super) fn newest_weighs_at_most(conn: &Connection, line: i64, most: i64) -> Done<bool> {
    let sql = "SELECT octet_length(body) + 1024, base FROM checkpoints WHERE n > ?1 AND n < ?2 ORDER BY n DESC";
    let (rows, mut left) = (rows_of(line), most);
    let mut select = conn.prepare_cached(sql)?;
    let mut found = select.query([rows.start, rows.end])?;
    while left >= 0
        && let Some(row) = found.next()?
    {
        left -= row.get::<_, i64>(0)?;
        if row.get(1)? {
            break;
        }
    }
    Ok(left >= 0)
}

/// From the snapshot to the newest row.
fn since_snapshot(conn: &Connection, rows: Range<i64>) -> Done<Option<Span>> {
    let sql = "SELECT n, base, id FROM checkpoints WHERE n > ?1 AND n < ?2 ORDER BY n DESC";
    let mut select = conn.prepare_cached(sql)?;
    let mut found = select.query([rows.start, rows.end])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let (newest, id, mut is_base): (i64, _, bool) = (row.get(0)?, read_id(row, 2)?, row.get(1)?);
    let mut span = Span { base: newest, before: newest, newest };
    while !is_base {
        let Some(row) = found.next()? else {
            return Err(StoreError::Damaged(format!("checkpoint {id} has lost its snapshot")).into());
        };
        (span.base, is_base) = (row.get(0)?, row.get(1)?);
        if span.before == newest {
            span.before = span.base;
        }
    }
    Ok(Some(span))
}

/// The newest checkpoint of a namespace.
pub(super) fn latest(conn: &Connection, thread: i64, ns: &str) -> Done<Option<Checkpoint>> {
    let Some(line) = line_id(conn, thread, ns)? else { return Ok(None) };
    Ok(newest(conn, line, ns)?.map(|newest| newest.checkpoint))
}

/// All checkpoints of a namespace, oldest first.
pub(super) fn history(conn: &Connection, thread: i64, ns: &str) -> Done<Vec<Checkpoint>> {
    let Some(line) = line_id(conn, thread, ns)? else { return Ok(Vec::new()) };
    let rows = rows_of(line);
    let mut select = conn.prepare_cached(Stored::OF_LINE)?;
    let mut all = Vec::new();
    let mut checkpoint = Checkpoint { ns: ns.into(), ..empty() };
    for stored in select.query_map([rows.start, rows.end], Stored::read)? {
        stored?.apply(&mut checkpoint)?;
        all.push(checkpoint.clone());
    }
    Ok(all)
}

/// The same of the root, without the states.
pub(super) fn outline(conn: &Connection, thread: i64) -> Done<Vec<Checkpoint>> {
    let Some(line) = line_id(conn, thread, "")? else { return Ok(Vec::new()) };
    let rows = rows_of(line);
    let mut select = conn.prepare_cached(Stored::OF_LINE)?;
    let (mut all, mut checkpoint) = (Vec::new(), empty());
    for stored in select.query_map([rows.start, rows.end], Stored::read)? {
        stored?.apply_as(&mut checkpoint, Body::without_state)?;
        all.push(checkpoint.clone());
    }
    Ok(all)
}

/// Drops all rows of a line but the `keep` newest; the oldest that stays becomes a snapshot. How many went.
pub(super) fn cut(conn: &Connection, line: i64, keep: usize, only_count: bool) -> Done<usize> {
    let rows = rows_of(line);
    let first: Option<i64> = conn
        .prepare_cached("SELECT n FROM checkpoints WHERE n > ?1 AND n < ?2 ORDER BY n DESC LIMIT 1 OFFSET ?3")?
        .query_row(params![rows.start, rows.end, i64::try_from(keep).unwrap_or(i64::MAX) - 1], |row| row.get(0))
        .optional()?;
    let Some(first) = first else { return Ok(0) };
    if only_count {
        let mut count = conn.prepare_cached("SELECT count(*) FROM checkpoints WHERE n > ?1 AND n < ?2")?;
        let older: i64 = count.query_row([rows.start, first], |row| row.get(0))?;
        return Ok(usize::try_from(older).unwrap_or(0));
    }
    let mut oldest = empty();
    let mut select = conn.prepare_cached(Stored::OF_LINE)?;
    for stored in select.query_map([rows.start, first + 1], Stored::read)? {
        stored?.apply(&mut oldest)?;
    }
    let mut text = Vec::new();
    delta::snapshot(&oldest, &mut text).map_err(unwritable)?;
    let body = String::from_utf8_lossy(&text);
    conn.prepare_cached(BECOMES_SNAPSHOT)?.execute(params![first, body])?;
    let mut delete = conn.prepare_cached("DELETE FROM checkpoints WHERE n > ?1 AND n < ?2")?;
    Ok(delete.execute([rows.start, first])?)
}

/// The namespaces that have checkpoints.
pub(super) fn namespaces(conn: &Connection, thread: i64) -> Done<Vec<String>> {
    let mut select = conn.prepare_cached(
        "SELECT ns FROM lines WHERE thread = ?1
         AND EXISTS (SELECT 1 FROM checkpoints WHERE n > lines.line << 32 AND n < (lines.line + 1) << 32) ORDER BY ns",
    )?;
    let names = select.query_map([thread], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

/// What is kept of an incomplete superstep.
pub(super) fn partial(conn: &Connection, thread: i64, ns: &str, of: &CheckpointId) -> Done<Partial> {
    let Some(line) = line_id(conn, thread, ns)? else { return Ok(Partial::default()) };
    let mut partial = Partial::default();
    let mut select = conn.prepare_cached("SELECT body FROM results WHERE line = ?1 AND checkpoint = ?2 ORDER BY n")?;
    for body in select.query_map(params![line, of.as_str()], |row| row.get::<_, String>(0))? {
        partial.results.push(decode(&body?, "a task's result")?);
    }
    let mut select =
        conn.prepare_cached("SELECT path, failed FROM attempts WHERE line = ?1 AND checkpoint = ?2 ORDER BY n")?;
    let rows = select.query_map(params![line, of.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    for row in rows {
        let (path, failed) = row?;
        partial.attempts.push((decode(&path, "a task's path")?, failed));
    }
    Ok(partial)
}

fn source_word(source: Source) -> &'static str {
    match source {
        // Most are.
        Source::Loop => "",
        Source::Update => "update",
        Source::Fork => "fork",
        Source::Input => "input",
    }
}

fn parse_source(word: &str) -> Done<Source> {
    // Files of before have the word.
    let word = if word == "loop" { "" } else { word };
    let known =
        [Source::Loop, Source::Update, Source::Fork, Source::Input].into_iter().find(|s| source_word(*s) == word);
    known.ok_or_else(|| StoreError::Damaged(format!("`{word}` is no source of a checkpoint")).into())
}
