//! Rows of links that decide one question as one person.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::graph::InterruptId;
use crate::store::audit;
use crate::store::fault::{Done, decode_opt, encode, nanos, time};

/// Most links of one question that can still be used: a hundred people could be asked, and nobody fills the table.
const MOST_OPEN: i64 = 100;

/// What its maker could do who made a link for themselves: it can do no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkBounds {
    /// Words of roles.
    pub roles: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
}

/// A link. Its secret stays with whoever it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkRow {
    /// Its id.
    pub id: String,
    /// What it decides.
    pub question: InterruptId,
    /// The question's digest when it was made.
    pub shown: String,
    /// As whom it decides.
    pub holder: String,
    /// What it is held to; `None`: to all that its holder has.
    pub within: Option<LinkBounds>,
    /// SHA-256 of its secret, hex.
    pub digest: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// By whom.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// When somebody decided with it, and what they said.
    pub used: Option<(DateTime<Utc>, String)>,
}

/// That a link is used now: once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkUse {
    /// Its id.
    pub id: String,
    /// One word for what is said with it.
    pub verdict: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// False: so many links of the question can still be used that no more is made.
pub(super) fn add(conn: &Connection, new: &LinkRow) -> Done<bool> {
    let sql = "SELECT count(*) FROM links WHERE question = ?1 AND used_at IS NULL AND expires_at > ?2";
    let open: i64 = conn
        .prepare_cached(sql)?
        .query_row(params![new.question.as_str(), nanos(new.created_at)?], |row| row.get(0))?;
    if open >= MOST_OPEN {
        return Ok(false);
    }
    let LinkRow { id, question, shown, holder, within, digest, expires_at, created_at: at, created_by: by, used: _ } =
        new;
    let mut insert = conn.prepare_cached(
        "INSERT INTO links (id, question, shown, holder, digest, created_at, created_by, expires_at, within)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let (made, ends) = (nanos(*at)?, nanos(*expires_at)?);
    let within = within.as_ref().map(encode).transpose()?;
    insert.execute(params![id, question.as_str(), shown, holder, digest, made, by, ends, within])?;
    let event = json!({
        "type": "link_made", "id": id, "question": question.as_str(), "digest": shown, "for": holder, "by": by,
        "expires_at": expires_at,
    });
    audit::add_of_home(conn, *at, &event)?;
    Ok(true)
}

fn link(row: &Row<'_>) -> rusqlite::Result<(LinkRow, Option<String>)> {
    let (used_at, verdict): (Option<i64>, Option<String>) = (row.get(8)?, row.get(9)?);
    let link = LinkRow {
        id: row.get(0)?,
        question: row.get::<_, String>(1)?.as_str().into(),
        shown: row.get(2)?,
        holder: row.get(3)?,
        within: None,
        digest: row.get(4)?,
        created_at: time(row.get(5)?),
        created_by: row.get(6)?,
        expires_at: time(row.get(7)?),
        used: used_at.map(|at| (time(at), verdict.unwrap_or_default())),
    };
    Ok((link, row.get(10)?))
}

pub(super) fn one(conn: &Connection, id: &str) -> Done<Option<LinkRow>> {
    let mut select = conn.prepare_cached(
        "SELECT id, question, shown, holder, digest, created_at, created_by, expires_at, used_at, verdict, within
         FROM links WHERE id = ?1",
    )?;
    let Some((link, within)) = select.query_row([id], link).optional()? else { return Ok(None) };
    Ok(Some(LinkRow { within: decode_opt(within, "a link's bounds")?, ..link }))
}

/// Ends a link that nobody has used yet. `None`: there is none of that id.
pub(super) fn revoke(conn: &Connection, id: &str, by: &str, at: DateTime<Utc>) -> Done<Option<LinkRow>> {
    let sql = "UPDATE links SET expires_at = ?2 WHERE id = ?1 AND used_at IS NULL AND expires_at > ?2";
    if conn.prepare_cached(sql)?.execute(params![id, nanos(at)?])? > 0 {
        audit::add_of_home(conn, at, &json!({"type": "link_revoked", "id": id, "by": by}))?;
    }
    one(conn, id)
}

/// Marks a link as used. False: it had been before, and nothing may be recorded with it.
pub(super) fn spend(conn: &Connection, spent: &LinkUse) -> Done<bool> {
    let LinkUse { id, verdict, at } = spent;
    let sql = "UPDATE links SET used_at = ?2, verdict = ?3 WHERE id = ?1 AND used_at IS NULL AND expires_at > ?2
               RETURNING question, holder";
    let mut update = conn.prepare_cached(sql)?;
    let of = update
        .query_row(params![id, nanos(*at)?, verdict], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    let Some((question, holder)) = of.optional()? else { return Ok(false) };
    let event = json!({"type": "link_used", "id": id, "question": question, "by": holder, "verdict": verdict});
    audit::add_of_home(conn, *at, &event)?;
    Ok(true)
}
