//! The journal's entries.

use rusqlite::{Connection, params};

use super::fault::{Done, count, decode, encode, uncount};
use crate::graph::{Entry, EntryStatus};

/// Adds an entry, or replaces the one with its key; the number stays.
pub(super) fn put(conn: &Connection, thread: i64, entry: &Entry) -> Done<()> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO entries (thread, seq, place, status, effect, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (thread, place) DO UPDATE SET status = excluded.status, effect = excluded.effect, body = excluded.body",
    )?;
    let status = status_word(entry.status);
    insert.execute(params![thread, count(entry.seq)?, entry.key.place(), status, entry.effect, encode(entry)?])?;
    Ok(())
}

/// All entries by number.
pub(super) fn all(conn: &Connection, thread: i64) -> Done<Vec<Entry>> {
    let mut select = conn.prepare_cached("SELECT seq, body FROM entries WHERE thread = ?1 ORDER BY seq")?;
    let rows = select.query_map([thread], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (seq, body) = row?;
        let entry: Entry = decode(&body, "a journal entry")?;
        Ok(Entry { seq: uncount(seq)?, ..entry })
    })
    .collect()
}

fn status_word(status: EntryStatus) -> &'static str {
    match status {
        EntryStatus::Intent => "intent",
        EntryStatus::Done => "done",
        EntryStatus::Failed => "failed",
        EntryStatus::Undoing => "undoing",
        EntryStatus::Undone => "undone",
        EntryStatus::UndoFailed => "undo_failed",
        EntryStatus::Accepted => "accepted",
    }
}
