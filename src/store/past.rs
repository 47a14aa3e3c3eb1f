//! A line of checkpoints read forward: whoever reads a record again builds each state from the one before it, and reads each row once.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::checkpoints::{Stored, line_id, of_row, outline, read_id, rows_of};
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

    /// The root's checkpoints without their states, oldest first: how the line went.
    pub async fn outline(&self, thread: &ThreadId) -> Result<Vec<Checkpoint>, StoreError> {
        let id = thread.clone();
        self.readers
            .read(move |conn| match known(conn, &id)? {
                Some(thread) => outline(conn, thread),
                None => Ok(Vec::new()),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::graph::{Event, Record, Source, State, Store, Transaction};
    use crate::store::checkpoints;
    use crate::store::conformance::{at, begun, checkpoint};

    const STEPS: i64 = 200;

    /// A thread whose list grows by an item in each step; the text of the whole weighs far more than its rows.
    async fn grown(dir: &std::path::Path) -> (SqliteStore, ThreadId) {
        let (store, id) = (SqliteStore::open(dir.join("t.db")).unwrap(), ThreadId::from("t"));
        begun(&store, "t").await.unwrap();
        for step in 1..=STEPS {
            let values: State =
                [(Name::from("log"), json!((0..step).map(|n| format!("item {n}")).collect::<Vec<_>>()))]
                    .into_iter()
                    .collect();
            let parent = format!("t-{}", step - 1);
            let next = checkpoint(&format!("t-{step}"), Some(&parent), "", step, values);
            let told = Event::Checkpointed { ns: "".into(), step, source: Source::Loop, next: Vec::new() };
            let records = vec![Record::Checkpoint(Arc::new(next)), Record::Event(told)];
            store.commit(Transaction { thread: id.clone(), epoch: 1, at: at(step), records }).await.unwrap();
        }
        (store, id)
    }

    fn spoken(of: &Checkpoint) -> Spoken {
        Spoken { ns: of.ns.clone(), step: of.step, by: of.at }
    }

    #[tokio::test]
    async fn who_goes_on_reads_each_row_once() {
        let dir = tempfile::tempdir().unwrap();
        let (store, id) = grown(dir.path()).await;
        let history = store.history(&id, "").await.unwrap();
        let (mut place, mut read) = (None, 0);
        for wanted in &history {
            let (from, to, thread) = (place.take(), spoken(wanted), id.clone());
            let gone = move |conn: &Connection| go_on(conn, known(conn, &thread)?.unwrap_or(0), from, &to);
            let (went, rows) = store.readers.read(gone).await.unwrap();
            let Went::To(there) = went else { panic!("step {} is not found", wanted.step) };
            assert_eq!(there.checkpoint, *wanted);
            (place, read) = (Some(there), read + rows);
        }
        assert!(read <= 3 * history.len(), "{read} rows for {} checkpoints", history.len());
    }

    #[tokio::test]
    async fn a_place_is_found_from_nowhere_and_what_is_gone_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (store, id) = grown(dir.path()).await;
        let history = store.history(&id, "").await.unwrap();
        let middle = &history[120];
        let Went::To(place) = store.go_on(&id, None, spoken(middle)).await.unwrap() else { panic!("it is there") };
        assert_eq!(place.checkpoint, *middle);
        // Over some that nobody speaks of.
        let Went::To(further) = store.go_on(&id, Some(place.clone()), spoken(&history[150])).await.unwrap() else {
            panic!("it is there")
        };
        assert_eq!(further.checkpoint, history[150]);
        let nowhere = Spoken { step: 9_999, ..spoken(middle) };
        assert_eq!(store.go_on(&id, Some(place.clone()), nowhere).await.unwrap(), Went::Nowhere(Some(place.clone())));
        assert_eq!(store.checkpoint_by(&id, middle.at).await.unwrap().as_ref(), Some(middle));

        let outline = store.outline(&id).await.unwrap();
        let heads =
            |all: &[Checkpoint]| all.iter().map(|c| (c.id.clone(), c.parent.clone(), c.step)).collect::<Vec<_>>();
        assert_eq!(heads(&outline), heads(&history));
        assert!(outline.iter().all(|c| c.frontier == history[0].frontier && c.values == State::new()));
        // A line that was cut begins elsewhere: a place in what is gone is none.
        let thread = id.clone();
        let cut = store.writer.run(move |tx| {
            let line = line_id(tx.conn, known(tx.conn, &thread)?.unwrap_or(0), "")?.unwrap_or(0);
            checkpoints::cut(tx.conn, line, 20, false)
        });
        assert!(cut.await.unwrap() > 100);
        let newest = &history[195];
        let Went::To(found) = store.go_on(&id, Some(place), spoken(newest)).await.unwrap() else {
            panic!("it is there")
        };
        assert_eq!(found.checkpoint, *newest);
    }

    #[tokio::test]
    async fn events_come_in_portions_forward_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let (store, id) = grown(dir.path()).await;
        let all = store.events(&id, 0, usize::MAX).await.unwrap();
        let (mut read, mut heard) = (Vec::new(), 0);
        loop {
            let some = store.some_events(&id, heard, 50, 500).await.unwrap();
            let Some(last) = some.last() else { break };
            assert!(some.len() < 50, "bounded by bytes: {}", some.len());
            heard = last.seq;
            read.extend(some);
        }
        assert_eq!(read, all);
        let back = store.events_back(&id, 100, 10).await.unwrap();
        assert_eq!((back.len(), back[0].last(), back[9].last()), (10, Some(&all[99]), Some(&all[90])));
        assert!(store.some_events(&ThreadId::from("none"), 0, 9, 9).await.unwrap().is_empty());
    }
}
