//! The audit: the events that matter to an auditor, chained by hashes over the whole file.

use chrono::{DateTime, SecondsFormat, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::fault::{Done, count, decode, uncount};
use crate::graph::{Event, EventRow, StoreError, ThreadId};

/// What stands before the first row.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Why the audit is not what was written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AuditError {
    /// A row was changed, added or lost.
    #[error("the audit is broken at row {seq}: {why}")]
    Broken {
        /// The first row that does not fit.
        seq: u64,
        /// What does not fit.
        why: String,
    },
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds those of a commit's events that are audited.
pub(super) fn add(conn: &Connection, thread: &ThreadId, at: DateTime<Utc>, events: &[&Event]) -> Done<()> {
    let mut audited = events.iter().filter(|event| event.is_audited()).peekable();
    if audited.peek().is_none() {
        return Ok(());
    }
    let at = at.to_rfc3339_opts(SecondsFormat::Nanos, true);
    let newest: Option<String> = conn
        .prepare_cached("SELECT hash FROM audit ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let mut prev = newest.unwrap_or_else(|| GENESIS.to_owned());
    let mut insert =
        conn.prepare_cached("INSERT INTO audit (thread, at, body, prev_hash, hash) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for event in audited {
        // Through a Value: keys sorted, the canonical form that digests are made of everywhere.
        let value =
            serde_json::to_value(event).map_err(|e| StoreError::Failed(format!("an event cannot be written: {e}")))?;
        let body = value.to_string();
        let hash = chain(&prev, &body, &at, thread.as_str());
        insert.execute(params![thread.as_str(), at, body, prev, hash])?;
        prev = hash;
    }
    Ok(())
}

/// Each part ends with a zero byte, which none of them holds, so that nothing can move from one into the next.
fn chain(prev: &str, body: &str, at: &str, thread: &str) -> String {
    let mut sha = Sha256::new();
    for part in [prev, body, at, thread] {
        sha.update(part);
        sha.update([0]);
    }
    hex(&sha.finalize())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Walks the whole chain: the number of rows, or the first broken one.
pub(super) fn verify(conn: &Connection) -> Done<Result<u64, AuditError>> {
    let broken = |seq: i64, why: &str| {
        let seq = u64::try_from(seq).unwrap_or(0);
        Ok(Err(AuditError::Broken { seq, why: why.to_owned() }))
    };
    let mut select = conn.prepare("SELECT seq, thread, at, body, prev_hash, hash FROM audit ORDER BY seq")?;
    let mut rows = select.query([])?;
    let (mut last, mut prev) = (0_i64, GENESIS.to_owned());
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        let [thread, at, body, prev_hash, hash] = [1, 2, 3, 4, 5].map(|column| row.get::<_, String>(column));
        let (thread, at, body, prev_hash, hash) = (thread?, at?, body?, prev_hash?, hash?);
        if seq != last + 1 {
            return broken(last + 1, "the row is missing");
        }
        if prev_hash != prev {
            return broken(seq, "it does not follow the row before");
        }
        if hash != chain(&prev, &body, &at, &thread) {
            return broken(seq, "its content is not what was written");
        }
        (last, prev) = (seq, hash);
    }
    // AUTOINCREMENT remembers the highest number ever given.
    let given: Option<i64> =
        conn.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'audit'", [], |row| row.get(0)).optional()?;
    if given.unwrap_or(0) != last {
        return broken(last + 1, "rows are missing at the end");
    }
    Ok(Ok(uncount(last)?))
}

/// Audit rows of one thread as they were hashed: (number, time, canonical JSON), oldest first.
pub(super) fn of_thread(conn: &Connection, thread: &ThreadId, after: u64, limit: usize) -> Done<Vec<EventRow>> {
    let mut select =
        conn.prepare_cached("SELECT seq, at, body FROM audit WHERE thread = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map(params![thread.as_str(), count(after)?, limit], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    rows.map(|row| {
        let (seq, at, body) = row?;
        let at = DateTime::parse_from_rfc3339(&at)
            .map_err(|e| StoreError::Damaged(format!("the audit's row {seq} has no time: {e}")))?;
        Ok(EventRow { seq: uncount(seq)?, at: at.to_utc(), event: decode(&body, "an audit row")? })
    })
    .collect()
}
