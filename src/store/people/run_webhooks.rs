//! What is to be told of runs of the server that have ended.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use crate::store::fault::{Done, decode, encode, nanos, uncount};

/// What is to be told of a run that ends now.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRunWebhook {
    /// Where to.
    pub url: String,
    /// Scheme, host and port of that.
    pub place: String,
    /// What.
    pub body: Value,
}

/// What is still to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct RunWebhookRow {
    /// Of which run.
    pub run: String,
    /// Where to.
    pub url: String,
    /// What.
    pub body: Value,
    /// Attempts that have failed.
    pub attempts: u32,
}

/// That something is to be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunWebhookDue {
    /// Of which run.
    pub run: String,
    /// See [`NewRunWebhook::place`].
    pub place: String,
}

pub(in crate::store) fn add(conn: &Connection, run: &str, new: &NewRunWebhook, at: DateTime<Utc>) -> Done<()> {
    let sql = "INSERT INTO run_webhooks (run, url, body, attempts, next_at, place) VALUES (?1, ?2, ?3, 0, ?4, ?5)
               ON CONFLICT (run) DO NOTHING";
    conn.prepare_cached(sql)?.execute(params![run, new.url, encode(&new.body)?, nanos(at)?, new.place])?;
    Ok(())
}

/// Of each place those that have been due for longest: one that takes nothing keeps those of others from nobody.
pub(super) fn due(conn: &Connection, now: DateTime<Utc>, of_each: usize) -> Done<Vec<RunWebhookDue>> {
    let sql = "SELECT run, place FROM
                 (SELECT run, place, next_at, row_number() OVER (PARTITION BY place ORDER BY next_at) AS nth
                  FROM run_webhooks WHERE next_at <= ?1)
               WHERE nth <= ?2 ORDER BY next_at";
    let mut select = conn.prepare_cached(sql)?;
    let of_each = i64::try_from(of_each).unwrap_or(i64::MAX);
    let rows = select
        .query_map(params![nanos(now)?, of_each], |row| Ok(RunWebhookDue { run: row.get(0)?, place: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn one(conn: &Connection, run: &str) -> Done<Option<RunWebhookRow>> {
    let mut select = conn.prepare_cached("SELECT url, body, attempts FROM run_webhooks WHERE run = ?1")?;
    let found = select.query_row([run], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?))).optional()?;
    let Some((url, body, attempts)) = found else { return Ok(None) };
    Ok(Some(RunWebhookRow { run: run.to_owned(), url, body: decode(&body, "a run's webhook")?, attempts }))
}

pub(super) fn waiting(conn: &Connection) -> Done<u64> {
    uncount(conn.prepare_cached("SELECT count(*) FROM run_webhooks")?.query_row([], |row| row.get(0))?)
}

pub(super) fn delay(conn: &Connection, run: &str, until: DateTime<Utc>) -> Done<()> {
    let sql = "UPDATE run_webhooks SET attempts = attempts + 1, next_at = ?2 WHERE run = ?1";
    conn.prepare_cached(sql)?.execute(params![run, nanos(until)?])?;
    Ok(())
}

pub(super) fn remove(conn: &Connection, run: &str) -> Done<()> {
    conn.prepare_cached("DELETE FROM run_webhooks WHERE run = ?1")?.execute([run])?;
    Ok(())
}
