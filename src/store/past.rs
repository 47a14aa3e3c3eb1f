//! A line of checkpoints read forward: whoever reads a record again builds each state from the one before it, and reads each row once.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::checkpoints::{Stored, line_id, of_row, read_id, rows_of};
use super::fault::{Done, nanos};
use super::readers::Watch;
use super::{SqliteStore, events};
use crate::graph::{Checkpoint, EventRow, Name, StoreError, ThreadId};

/// A checkpoint that an event speaks of: the newest of its namespace with this step that was there by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// The namespace.
    pub ns: Name,
    /// The step.
    pub step: i64,
    /// When the event was.
    pub by: DateTime<Utc>,
}

/// How a thread stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    thread: i64,
    status: String,
    signals: i64,
    event: i64,
}

/// A place in a line: the checkpoint there, and its row.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    row: i64,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
}

/// What came of going on in a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Went {
    /// To the checkpoint that was spoken of.
    To(Place),
    /// Nowhere: it is not kept. The place is as it was.
    Nowhere(Option<Place>),
}

impl SqliteStore {
    /// Goes on in a line from `from`, an earlier place of it, to the checkpoint that is spoken of. Without a place it is looked for from
    /// the line's end.
    pub async fn go_on(&self, thread: &ThreadId, from: Option<Place>, to: Spoken) -> Result<Went, StoreError> {
        let id = thread.clone();
        self.readers
            .read(move |conn| {
                let Some(thread) = known(conn, &id)? else { return Ok(Went::Nowhere(from)) };
                Ok(go_on(conn, thread, from, &to)?.0)
            })
            .await
    }

    /// The newest checkpoint of the root that was there at a time, without those that only branch off.
    pub async fn checkpoint_by(&self, thread: &ThreadId, by: DateTime<Utc>) -> Result<Option<Checkpoint>, StoreError> {
        let id = thread.clone();
        self.readers
            .read(move |conn| {
                let Some(thread) = known(conn, &id)? else { return Ok(None) };
                let Some(line) = line_id(conn, thread, "")? else { return Ok(None) };
                let sql = "SELECT n FROM checkpoints WHERE n > ?1 AND n < ?2 AND at <= ?3 AND source <> 'fork'
                           ORDER BY n DESC LIMIT 1";
                let rows = rows_of(line);
                let values = params![rows.start, rows.end, nanos(by)?];
                let row: Option<i64> = conn.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
                row.map_or(Ok(None), |row| of_row(conn, line, "", row))
            })
            .await
    }

    /// Events after a number: at most `limit`, and no further commit once those that were read have `most_bytes` as text. None where
    /// the thread has not begun.
    pub async fn some_events(
        &self,
        thread: &ThreadId,
        after: u64,
        limit: usize,
        most_bytes: usize,
    ) -> Result<Vec<EventRow>, StoreError> {
        let id = thread.clone();
        self.readers
            .read(move |conn| match known(conn, &id)? {
                Some(thread) => events::after(conn, thread, after, limit, most_bytes),
                None => Ok(Vec::new()),
            })
            .await
    }

    /// How threads stand: two marks of one differ when something of it was written that somebody may wait for. Those that are not there
    /// are left out.
    pub async fn marks(&self, threads: Vec<ThreadId>) -> Result<Vec<(ThreadId, Mark)>, StoreError> {
        let marks = move |conn: &Connection| {
            let mut all = Vec::with_capacity(threads.len());
            for id in threads {
                let sql = "SELECT n, status, (SELECT coalesce(max(seq), 0) FROM signals s WHERE s.thread = t.n)
                           FROM threads t WHERE id = ?1";
                let found = conn
                    .prepare_cached(sql)?
                    .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                if let Some((thread, status, signals)) = found.optional()? {
                    all.push((id, Mark { thread, status, signals, event: events::last(conn, thread)? }));
                }
            }
            Ok(all)
        };
        self.readers.read(marks).await
    }

    /// A connection of its own that looks whether the file was written.
    pub fn watch(&self) -> Watch {
        self.readers.watch()
    }

    /// Events up to a commit's newest one: commits, newest first, until some `limit` events were read; each commit's in their order.
    pub async fn events_back(
        &self,
        thread: &ThreadId,
        upto: u64,
        limit: usize,
    ) -> Result<Vec<Vec<EventRow>>, StoreError> {
        let id = thread.clone();
        self.readers
            .read(move |conn| match known(conn, &id)? {
                Some(thread) => events::back(conn, thread, upto, limit),
                None => Ok(Vec::new()),
            })
            .await
    }
}

fn known(conn: &Connection, id: &ThreadId) -> Done<Option<i64>> {
    let mut select = conn.prepare_cached("SELECT n FROM threads WHERE id = ?1")?;
    Ok(select.query_row([id.as_str()], |row| row.get(0)).optional()?)
}

/// The same with how many rows were read.
fn go_on(conn: &Connection, thread: i64, from: Option<Place>, to: &Spoken) -> Done<(Went, usize)> {
    let Some(line) = line_id(conn, thread, &to.ns)? else { return Ok((Went::Nowhere(from), 0)) };
    match from {
        // A line that was pruned or begun anew is another one.
        Some(from) if is_there(conn, &from)? && rows_of(line).contains(&from.row) => forward(conn, line, from, to),
        _ => Ok((find(conn, line, to)?.map_or(Went::Nowhere(None), Went::To), 1)),
    }
}

fn is_there(conn: &Connection, place: &Place) -> Done<bool> {
    let mut select = conn.prepare_cached("SELECT id FROM checkpoints WHERE n = ?1")?;
    let found = select.query_row([place.row], |row| read_id(row, 0)).optional()?;
    Ok(found.as_ref() == Some(&place.checkpoint.id))
}

/// The rows behind a place up to the one that is spoken of; those of one line are in order of time.
fn forward(conn: &Connection, line: i64, mut from: Place, to: &Spoken) -> Done<(Went, usize)> {
    let (by, end) = (nanos(to.by)?, rows_of(line).end);
    let mut select = conn.prepare_cached(Stored::OF_LINE)?;
    let (mut between, mut found) = (Vec::new(), false);
    for stored in select.query_map([from.row, end], Stored::read)? {
        let stored = stored?;
        if stored.at > by {
            break;
        }
        found = stored.step == to.step;
        between.push(stored);
        if found {
            break;
        }
    }
    let read = between.len() + 1;
    if !found {
        return Ok((Went::Nowhere(Some(from)), read));
    }
    for stored in between {
        from.row = stored.n;
        stored.apply(&mut from.checkpoint)?;
    }
    Ok((Went::To(from), read))
}

fn find(conn: &Connection, line: i64, spoken: &Spoken) -> Done<Option<Place>> {
    let sql = "SELECT n FROM checkpoints WHERE n > ?1 AND n < ?2 AND step = ?3 AND at <= ?4 ORDER BY n DESC LIMIT 1";
    let rows = rows_of(line);
    let values = params![rows.start, rows.end, spoken.step, nanos(spoken.by)?];
    let row: Option<i64> = conn.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
    let Some(row) = row else { return Ok(None) };
    Ok(of_row(conn, line, &spoken.ns, row)?.map(|checkpoint| Place { row, checkpoint }))
}
