//! How far webhooks were told of the audit, and of which questions people were reminded.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use crate::graph::InterruptId;
use crate::store::audit;
use crate::store::fault::{Done, count, decode, nanos, time, uncount};

/// How far a webhook was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRow {
    /// Its name.
    pub name: String,
    /// The newest row of the audit that it was told of.
    pub told: u64,
    /// Attempts for the next one that have failed.
    pub attempts: u32,
    /// No attempt before.
    pub next_at: DateTime<Utc>,
}

/// A row of the audit.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditedRow {
    /// Its number.
    pub seq: u64,
    /// Whose it is: a thread's id, or `home`.
    pub thread: String,
    /// When.
    pub at: String,
    /// What happened.
    pub event: Value,
}

pub(super) fn known(conn: &Connection, name: &str) -> Done<Option<HookRow>> {
    let mut select = conn.prepare_cached("SELECT told, attempts, next_at FROM hooks WHERE name = ?1")?;
    let found = select.query_row([name], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, i64>(2)?)));
    let Some((told, attempts, next_at)) = found.optional()? else { return Ok(None) };
    Ok(Some(HookRow { name: name.to_owned(), told: uncount(told)?, attempts, next_at: time(next_at) }))
}

pub(super) fn begin(conn: &Connection, name: &str, at: DateTime<Utc>) -> Done<HookRow> {
    let mut insert = conn.prepare_cached(
        "INSERT OR IGNORE INTO hooks (name, told, attempts, next_at)
         VALUES (?1, (SELECT coalesce(max(seq), 0) FROM audit), 0, ?2)",
    )?;
    insert.execute(params![name, nanos(at)?])?;
    known(conn, name)?.ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
}

pub(super) fn put(conn: &Connection, hook: &HookRow) -> Done<()> {
    // Never backwards: two servers one after the other may tell the same.
    let sql = "UPDATE hooks SET told = max(told, ?2), attempts = ?3, next_at = ?4 WHERE name = ?1";
    let told = count(hook.told)?;
    conn.prepare_cached(sql)?.execute(params![hook.name, told, hook.attempts, nanos(hook.next_at)?])?;
    Ok(())
}

pub(super) fn after(conn: &Connection, seq: u64, limit: usize) -> Done<Vec<AuditedRow>> {
    let mut select =
        conn.prepare_cached("SELECT seq, thread, at, body FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map(params![count(seq)?, limit], |row| {
        Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?))
    })?;
    rows.map(|row| {
        let (seq, thread, at, body) = row?;
        Ok(AuditedRow { seq: uncount(seq)?, thread, at, event: decode(&body, "an audit row")? })
    })
    .collect()
}

pub(super) fn remind(conn: &Connection, question: &InterruptId, at: DateTime<Utc>) -> Done<bool> {
    let mut insert = conn.prepare_cached("INSERT OR IGNORE INTO reminders (question, at) VALUES (?1, ?2)")?;
    if insert.execute(params![question.as_str(), nanos(at)?])? == 0 {
        return Ok(false);
    }
    let sql = "SELECT t.id FROM interrupts i JOIN threads t ON t.n = i.thread WHERE i.id = ?1";
    let thread: Option<String> =
        conn.prepare_cached(sql)?.query_row([question.as_str()], |row| row.get(0)).optional()?;
    let event = json!({"type": "reminded", "id": question.as_str(), "thread": thread});
    audit::add_of_home(conn, at, &event)?;
    Ok(true)
}
