//! The audit: the events that matter to an auditor, chained by hashes over the whole file.

use chrono::{DateTime, SecondsFormat, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fault::{Done, count, decode, uncount};
use crate::graph::{Event, EventRow, StoreError, ThreadId};

/// What stands before the first row.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Whose rows those are that are no thread's: keys that were made and revoked, reminders.
const HOME: &str = "home";

/// The document's format; counted up when its meaning changes.
pub const AUDIT_FORMAT: &str = "tidegate-audit/1";

/// The audit as a document, whole or of one thread: enough to prove it anywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditExport {
    /// [`AUDIT_FORMAT`].
    pub format: String,
    /// Whose rows; `None`: all.
    pub thread: Option<String>,
    /// Oldest first.
    pub rows: Vec<AuditRow>,
}

/// One row of the audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRow {
    /// Its number in the whole audit, from 1 without a gap.
    pub seq: u64,
    /// Whose event it is.
    pub thread: String,
    /// When, as it was hashed.
    pub at: String,
    /// The event; hashed as canonical JSON (keys sorted, no spaces).
    pub event: Value,
    /// The hash of the row before.
    pub prev_hash: String,
    /// SHA-256 over `prev_hash`, event, time and thread, each followed by a zero byte; hex.
    pub hash: String,
}

/// How far a proven audit goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditHead {
    /// How many rows were looked at.
    pub rows: u64,
    /// The number of the newest; 0: there is none.
    pub seq: u64,
    /// Its hash: whoever notes it can later tell whether anything before it was changed.
    pub hash: String,
}

impl AuditExport {
    /// Holds each row against its hash and the row before it. All rows: none is missing from the first one on. Those of one thread: what
    /// lies between them is not in the document.
    ///
    /// # Errors
    /// The first row that does not fit.
    pub fn verify(&self) -> Result<AuditHead, AuditError> {
        let mut head = AuditHead { rows: 0, seq: 0, hash: GENESIS.to_owned() };
        for row in &self.rows {
            let broken = |seq, why: &str| Err(AuditError::Broken { seq, why: why.to_owned() });
            let AuditRow { seq, thread, at, event, prev_hash, hash } = row;
            match &self.thread {
                None if *seq != head.seq + 1 => return broken(head.seq + 1, "the row is missing"),
                Some(_) if *seq <= head.seq => return broken(*seq, "it is not behind the row before"),
                Some(of) if of != thread => return broken(*seq, "it is another thread's"),
                _ => {}
            }
            if *seq == head.seq + 1 && *prev_hash != head.hash {
                return broken(*seq, "it does not follow the row before");
            }
            if *hash != chain(prev_hash, &event.to_string(), at, thread) {
                return broken(*seq, "its content is not what was written");
            }
            head = AuditHead { rows: head.rows + 1, seq: *seq, hash: hash.clone() };
        }
        Ok(head)
    }
}

/// Rows as they were hashed, oldest first.
pub(super) fn export(conn: &Connection, thread: Option<&ThreadId>) -> Done<AuditExport> {
    let of = thread.map(ThreadId::as_str);
    let mut select = conn.prepare_cached(
        "SELECT seq, thread, at, body, prev_hash, hash FROM audit WHERE ?1 IS NULL OR thread = ?1 ORDER BY seq",
    )?;
    let rows = select.query_map([of], |row| {
        let [thread, at, body, prev_hash, hash] = [1, 2, 3, 4, 5].map(|column| row.get::<_, String>(column));
        Ok((row.get::<_, i64>(0)?, thread?, at?, body?, prev_hash?, hash?))
    })?;
    let rows: Done<Vec<AuditRow>> = rows
        .map(|row| {
            let (seq, thread, at, body, prev_hash, hash) = row?;
            Ok(AuditRow { seq: uncount(seq)?, thread, at, event: decode(&body, "an audit row")?, prev_hash, hash })
        })
        .collect();
    Ok(AuditExport { format: AUDIT_FORMAT.to_owned(), thread: of.map(str::to_owned), rows: rows? })
}

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
    // Through a Value: keys sorted, the canonical form that digests are made of everywhere.
    let value =
        |event| serde_json::to_value(event).map_err(|e| StoreError::Failed(format!("an event cannot be written: {e}")));
    let bodies: Vec<Value> = audited.map(value).collect::<Result<_, _>>()?;
    append(conn, thread.as_str(), at, &bodies)
}

/// Adds what happened to the home as a whole.
pub(super) fn add_of_home(conn: &Connection, at: DateTime<Utc>, event: &Value) -> Done<()> {
    append(conn, HOME, at, std::slice::from_ref(event))
}

fn append(conn: &Connection, whose: &str, at: DateTime<Utc>, events: &[Value]) -> Done<()> {
    let at = at.to_rfc3339_opts(SecondsFormat::Nanos, true);
    let newest: Option<String> = conn
        .prepare_cached("SELECT hash FROM audit ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let mut prev = newest.unwrap_or_else(|| GENESIS.to_owned());
    let mut insert =
        conn.prepare_cached("INSERT INTO audit (thread, at, body, prev_hash, hash) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for event in events {
        let body = event.to_string();
        let hash = chain(&prev, &body, &at, whose);
        insert.execute(params![whose, at, body, prev, hash])?;
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

/// Walks the whole chain: how far it goes, or the first broken row.
pub(super) fn verify(conn: &Connection) -> Done<Result<AuditHead, AuditError>> {
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
    let seq = uncount(last)?;
    Ok(Ok(AuditHead { rows: seq, seq, hash: prev }))
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
