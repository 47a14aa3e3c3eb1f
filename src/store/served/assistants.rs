//! Rows of assistants and their versions.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::contains;
use crate::store::fault::{Done, count, decode, encode, nanos, time, uncount};

/// What a version of an assistant says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AssistantText {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The configuration of its runs.
    pub config: Map<String, Value>,
    /// The context of its runs.
    pub context: Map<String, Value>,
    /// Free keys.
    pub metadata: Map<String, Value>,
}

/// An assistant at one of its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedAssistant {
    /// Its id, a UUID.
    pub id: String,
    /// Its graph's name.
    pub graph: String,
    /// The version.
    pub version: u64,
    /// What the version says.
    pub text: AssistantText,
    /// When it was made; of a version: when that was.
    pub created_at: DateTime<Utc>,
    /// When it changed last.
    pub updated_at: DateTime<Utc>,
}

/// Which assistants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AssistantFilter {
    /// Only those of this graph.
    pub graph: Option<String>,
    /// Only those whose name has this in it.
    pub name: Option<String>,
    /// Only those whose metadata has these keys.
    pub metadata: Map<String, Value>,
}

const COLUMNS: &str = "a.id, a.graph, v.version, v.body, a.created_at, a.updated_at, v.created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<(String, String, i64, String, i64, i64, i64)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
}

fn assistant(row: (String, String, i64, String, i64, i64, i64)) -> Done<ServedAssistant> {
    let (id, graph, version, body, created_at, updated_at, _) = row;
    let text = decode(&body, "an assistant")?;
    let (created_at, updated_at) = (time(created_at), time(updated_at));
    Ok(ServedAssistant { id, graph, version: uncount(version)?, text, created_at, updated_at })
}

pub(super) fn one(conn: &Connection, id: &str) -> Done<Option<ServedAssistant>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM assistants a JOIN assistant_versions v ON v.assistant = a.n AND v.version = a.version WHERE a.id = ?1"
    );
    conn.prepare_cached(&sql)?.query_row([id], read).optional()?.map(assistant).transpose()
}

pub(super) fn list(conn: &Connection, filter: &AssistantFilter) -> Done<Vec<ServedAssistant>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM assistants a JOIN assistant_versions v ON v.assistant = a.n AND v.version = a.version
         WHERE (?1 IS NULL OR a.graph = ?1) ORDER BY a.created_at DESC, a.n DESC"
    );
    let mut select = conn.prepare_cached(&sql)?;
    let rows = select.query_map([&filter.graph], read)?;
    let named = |text: &AssistantText| filter.name.as_ref().is_none_or(|name| text.name.contains(name.as_str()));
    let mut found = Vec::new();
    for row in rows {
        let one = assistant(row?)?;
        if named(&one.text) && contains(&one.text.metadata, &filter.metadata) {
            found.push(one);
        }
    }
    Ok(found)
}

pub(super) fn versions(conn: &Connection, id: &str) -> Done<Vec<ServedAssistant>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM assistants a JOIN assistant_versions v ON v.assistant = a.n WHERE a.id = ?1 ORDER BY v.version DESC"
    );
    let mut select = conn.prepare_cached(&sql)?;
    let rows = select.query_map([id], read)?;
    rows.map(|row| {
        let row = row?;
        let made = time(row.6);
        Ok(ServedAssistant { created_at: made, ..assistant(row)? })
    })
    .collect()
}

pub(super) fn add(
    conn: &Connection,
    id: &str,
    graph: &str,
    text: &AssistantText,
    at: DateTime<Utc>,
) -> Done<Option<ServedAssistant>> {
    let sql = "INSERT INTO assistants (id, graph, version, created_at, updated_at) VALUES (?1, ?2, 1, ?3, ?3)
               ON CONFLICT (id) DO NOTHING";
    if conn.prepare_cached(sql)?.execute(params![id, graph, nanos(at)?])? == 0 {
        return Ok(None);
    }
    version(conn, id, 1, text, at)?;
    one(conn, id)
}

fn version(conn: &Connection, id: &str, number: i64, text: &AssistantText, at: DateTime<Utc>) -> Done<()> {
    let sql = "INSERT INTO assistant_versions (assistant, version, body, created_at)
               SELECT n, ?2, ?3, ?4 FROM assistants WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![id, number, encode(text)?, nanos(at)?])?;
    Ok(())
}

pub(super) fn change(
    conn: &Connection,
    id: &str,
    graph: &str,
    text: &AssistantText,
    at: DateTime<Utc>,
) -> Done<Option<ServedAssistant>> {
    let newest =
        "SELECT max(v.version) FROM assistants a JOIN assistant_versions v ON v.assistant = a.n WHERE a.id = ?1";
    let newest: Option<i64> = conn.prepare_cached(newest)?.query_row([id], |row| row.get(0))?;
    let Some(newest) = newest else { return Ok(None) };
    version(conn, id, newest + 1, text, at)?;
    let sql = "UPDATE assistants SET version = ?2, graph = ?3, updated_at = ?4 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![id, newest + 1, graph, nanos(at)?])?;
    one(conn, id)
}

pub(super) fn set_version(
    conn: &Connection,
    id: &str,
    number: u64,
    at: DateTime<Utc>,
) -> Done<Option<ServedAssistant>> {
    let sql = "UPDATE assistants SET version = ?2, updated_at = ?3 WHERE id = ?1
               AND EXISTS (SELECT 1 FROM assistant_versions v WHERE v.assistant = assistants.n AND v.version = ?2)";
    match conn.prepare_cached(sql)?.execute(params![id, count(number)?, nanos(at)?])? {
        0 => Ok(None),
        _ => one(conn, id),
    }
}

pub(super) fn delete(conn: &Connection, id: &str) -> Done<bool> {
    Ok(conn.prepare_cached("DELETE FROM assistants WHERE id = ?1")?.execute([id])? > 0)
}
