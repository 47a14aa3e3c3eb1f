//! What all threads share: values by namespace and key.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::{Done, decode, encode, nanos, time};
use crate::graph::Item;

/// Writes an item over what is there, and drops those that are over.
pub(super) fn keep(conn: &Connection, item: &Item, now: DateTime<Utc>) -> Done<()> {
    conn.prepare_cached("DELETE FROM items WHERE expires_at <= ?1")?.execute([nanos(now)?])?;
    let over = item.expires_at.map(nanos).transpose()?;
    conn.prepare_cached(
        "INSERT INTO items (namespace, key, value, created_at, updated_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (namespace, key) DO UPDATE SET value = ?3, updated_at = ?5, expires_at = ?6",
    )?
    .execute(params![
        item.namespace,
        item.key,
        encode(&item.value)?,
        nanos(item.created_at)?,
        nanos(item.updated_at)?,
        over
    ])?;
    Ok(())
}

/// Takes an item away.
pub(super) fn forget(conn: &Connection, namespace: &str, key: &str) -> Done<()> {
    conn.prepare_cached("DELETE FROM items WHERE namespace = ?1 AND key = ?2")?.execute([namespace, key])?;
    Ok(())
}

const READ: &str = "SELECT namespace, key, value, created_at, updated_at, expires_at FROM items
    WHERE (expires_at IS NULL OR expires_at > ?1)";

/// An item that is not over.
pub(super) fn one(conn: &Connection, namespace: &str, key: &str, now: DateTime<Utc>) -> Done<Option<Item>> {
    let mut select = conn.prepare_cached(&format!("{READ} AND namespace = ?2 AND key = ?3"))?;
    let raw = select.query_row(params![nanos(now)?, namespace, key], raw).optional()?;
    raw.map(item).transpose()
}

/// Items in a namespace and those inside it.
pub(super) fn inside(conn: &Connection, prefix: &str, now: DateTime<Utc>, limit: usize) -> Done<Vec<Item>> {
    // `0` comes right behind `/`: between the two lies everything inside.
    let within = "AND (?2 = '' OR namespace = ?2 OR (namespace > ?2 || '/' AND namespace < ?2 || '0'))";
    let mut select = conn.prepare_cached(&format!("{READ} {within} ORDER BY namespace, key LIMIT ?3"))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map(params![nanos(now)?, prefix, limit], raw)?.collect::<Result<Vec<_>, _>>()?;
    rows.into_iter().map(item).collect()
}

type Raw = (String, String, String, i64, i64, Option<i64>);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
}

fn item((namespace, key, value, created_at, updated_at, expires_at): Raw) -> Done<Item> {
    let value = decode(&value, "a shared item")?;
    let (created_at, updated_at) = (time(created_at), time(updated_at));
    Ok(Item { namespace, key, value, created_at, updated_at, expires_at: expires_at.map(time) })
}
