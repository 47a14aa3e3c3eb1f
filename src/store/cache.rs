//! Results of nodes that are given again for the same input.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::{Done, decode, encode, nanos};
use crate::graph::Produced;

/// Keeps a result that a thread's node gave, and drops those that are over.
pub(super) fn put(
    conn: &Connection,
    thread: i64,
    key: &str,
    produced: &Produced,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Done<()> {
    conn.prepare_cached("DELETE FROM cache WHERE expires_at <= ?1")?.execute([nanos(now)?])?;
    conn.prepare_cached("INSERT OR REPLACE INTO cache (key, body, expires_at, thread) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![key, encode(produced)?, expires_at.map(nanos).transpose()?, thread])?;
    Ok(())
}

/// Drops what a thread's nodes gave.
pub(super) fn drop_of(conn: &Connection, thread: i64) -> Done<()> {
    conn.prepare_cached("DELETE FROM cache WHERE thread = ?1")?.execute([thread])?;
    Ok(())
}

/// A result that is not over.
pub(super) fn get(conn: &Connection, key: &str, now: DateTime<Utc>) -> Done<Option<Produced>> {
    let mut select =
        conn.prepare_cached("SELECT body FROM cache WHERE key = ?1 AND (expires_at IS NULL OR expires_at > ?2)")?;
    let body: Option<String> = select.query_row(params![key, nanos(now)?], |row| row.get(0)).optional()?;
    body.map(|body| decode(&body, "a cached result")).transpose()
}
