//! Rows of API keys.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

use crate::store::audit;
use crate::store::fault::{Done, decode, encode, nanos, time};

/// A key to be made. Its secret stays with whoever it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct NewKey {
    /// Its id, which is no secret.
    pub id: String,
    /// Whose it is.
    pub holder: String,
    /// Words of roles.
    pub roles: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
    /// SHA-256 of its secret, hex.
    pub digest: String,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: String,
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyRow {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub holder: String,
    /// Words of roles.
    pub roles: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
    /// SHA-256 of its secret, hex.
    pub digest: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// By whom.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "id, holder, roles, groups, digest, created_at, created_by, expires_at, revoked_at FROM api_keys";

type Raw = (String, String, String, String, String, i64, String, Option<i64>, Option<i64>);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
        row.get(7)?,
        row.get(8)?,
    ))
}

fn key((id, holder, roles, groups, digest, created_at, created_by, expires_at, revoked_at): Raw) -> Done<KeyRow> {
    Ok(KeyRow {
        id,
        holder,
        roles: decode(&roles, "a key's roles")?,
        groups: decode(&groups, "a key's groups")?,
        digest,
        created_at: time(created_at),
        created_by,
        expires_at: expires_at.map(time),
        revoked_at: revoked_at.map(time),
    })
}

pub(super) fn add(conn: &Connection, new: &NewKey) -> Done<KeyRow> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO api_keys (id, holder, roles, groups, digest, created_at, created_by, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let expires_at = new.expires_at.map(nanos).transpose()?;
    let (roles, groups) = (encode(&new.roles)?, encode(&new.groups)?);
    insert.execute(params![new.id, new.holder, roles, groups, new.digest, nanos(new.at)?, new.by, expires_at])?;
    let event = json!({
        "type": "key_created", "id": new.id, "holder": new.holder, "roles": new.roles, "groups": new.groups,
        "expires_at": new.expires_at, "by": new.by,
    });
    audit::add_of_home(conn, new.at, &event)?;
    one(conn, &new.id)?.ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
}

pub(super) fn one(conn: &Connection, id: &str) -> Done<Option<KeyRow>> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE id = ?1"))?;
    select.query_row([id], raw).optional()?.map(key).transpose()
}

pub(super) fn list(conn: &Connection) -> Done<Vec<KeyRow>> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} ORDER BY n"))?;
    select.query_map([], raw)?.map(|row| key(row?)).collect()
}

pub(super) fn any(conn: &Connection) -> Done<bool> {
    Ok(conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM api_keys)")?.query_row([], |row| row.get(0))?)
}

pub(super) fn revoke(conn: &Connection, id: &str, by: &str, at: DateTime<Utc>) -> Done<Option<KeyRow>> {
    let sql = "UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
    if conn.prepare_cached(sql)?.execute(params![id, nanos(at)?])? > 0 {
        audit::add_of_home(conn, at, &json!({"type": "key_revoked", "id": id, "by": by}))?;
    }
    one(conn, id)
}
