//! Rows of threads as clients see them, joined with what the engine has of them.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Map, Value};

use super::contains;
use crate::graph::{Liveness, Owner, StoreError, ThreadId};
use crate::store::fault::{Done, decode, decode_opt, encode, nanos, time};

/// A thread as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedThread {
    /// Its id, the engine's too.
    pub id: ThreadId,
    /// The graph of its runs, once it has had one.
    pub graph: Option<String>,
    /// Free keys.
    pub metadata: Map<String, Value>,
    /// The configuration of its runs.
    pub config: Value,
    /// What it is.
    pub status: ServedStatus,
    /// Whether the engine has anything of it.
    pub begun: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it changed last.
    pub updated_at: DateTime<Utc>,
    /// When its state changed last.
    pub state_at: DateTime<Utc>,
}

/// LangGraph's words for what a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedStatus {
    /// Nothing goes on.
    Idle,
    /// A run is under way or waits in its queue.
    Busy,
    /// It waits for an answer, or stands before a node.
    Interrupted,
    /// Its newest run failed.
    Error,
}

impl ServedStatus {
    /// The word in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Interrupted => "interrupted",
            Self::Error => "error",
        }
    }

    /// The status of that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Idle, Self::Busy, Self::Interrupted, Self::Error].into_iter().find(|status| status.word() == word)
    }
}

/// What a list of threads is sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortKey {
    /// When they were made.
    #[default]
    CreatedAt,
    /// When they changed last.
    UpdatedAt,
    /// When their state changed last.
    StateUpdatedAt,
    /// Their ids.
    Id,
    /// What they are.
    Status,
}

/// Which threads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ThreadSearch {
    /// Only those that are this.
    pub status: Option<ServedStatus>,
    /// Only those whose metadata has these keys.
    pub metadata: Map<String, Value>,
    /// Only these.
    pub ids: Option<Vec<String>>,
    /// At most this many.
    pub limit: usize,
    /// Without the first ones.
    pub offset: usize,
    /// In which order.
    pub sort: SortKey,
    /// Smallest first.
    pub ascending: bool,
}

const STATUS: &str = "CASE
    WHEN EXISTS (SELECT 1 FROM api_runs r WHERE r.thread = a.n AND r.status IN ('pending', 'running'))
      OR t.status IN ('pending', 'running', 'sleeping') THEN 'busy'
    WHEN t.status = 'interrupted' THEN 'interrupted'
    WHEN t.status IN ('failed', 'stuck') THEN 'error'
    ELSE 'idle' END";

const COLUMNS: &str = "a.id, a.graph, a.metadata, a.config, t.id IS NOT NULL, a.created_at, a.updated_at, a.state_at";

const FROM: &str = "FROM api_threads a LEFT JOIN threads t ON t.id = a.id";

struct Stored {
    id: String,
    graph: Option<String>,
    metadata: String,
    config: String,
    begun: bool,
    times: [i64; 3],
    status: String,
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            graph: row.get(1)?,
            metadata: row.get(2)?,
            config: row.get(3)?,
            begun: row.get(4)?,
            times: [row.get(5)?, row.get(6)?, row.get(7)?],
            status: row.get(8)?,
        })
    }

    fn thread(self) -> Done<ServedThread> {
        let [created_at, updated_at, state_at] = self.times.map(time);
        Ok(ServedThread {
            graph: self.graph,
            metadata: decode(&self.metadata, "a thread's metadata")?,
            config: decode(&self.config, "a thread's configuration")?,
            status: ServedStatus::parse(&self.status).unwrap_or(ServedStatus::Idle),
            begun: self.begun,
            created_at,
            updated_at,
            state_at,
            id: self.id.into(),
        })
    }
}

pub(super) fn one(conn: &Connection, id: &ThreadId) -> Done<Option<ServedThread>> {
    let sql = format!("SELECT {COLUMNS}, {STATUS} {FROM} WHERE a.id = ?1");
    conn.prepare_cached(&sql)?.query_row([id.as_str()], Stored::read).optional()?.map(Stored::thread).transpose()
}

pub(super) fn add(
    conn: &Connection,
    id: &ThreadId,
    metadata: &Map<String, Value>,
    at: DateTime<Utc>,
) -> Done<(ServedThread, bool)> {
    if let Some(there) = one(conn, id)? {
        return Ok((there, false));
    }
    if let Some(there) = take_in(conn, id)? {
        return Ok((there, false));
    }
    insert(conn, id, None, metadata, at)?;
    let made = one(conn, id)?;
    made.map(|made| (made, true))
        .ok_or_else(|| crate::graph::StoreError::Failed(format!("thread {id} was not kept")).into())
}

pub(super) fn insert(
    conn: &Connection,
    id: &ThreadId,
    graph: Option<&str>,
    metadata: &Map<String, Value>,
    at: DateTime<Utc>,
) -> Done<()> {
    let sql = "INSERT INTO api_threads (id, graph, metadata, config, created_at, updated_at, state_at)
               VALUES (?1, ?2, ?3, '{}', ?4, ?4, ?4)";
    conn.prepare_cached(sql)?.execute(params![id.as_str(), graph, encode(metadata)?, nanos(at)?])?;
    Ok(())
}

/// A thread that was begun elsewhere, in the terminal for example, becomes one that clients see.
pub(super) fn take_in(conn: &Connection, id: &ThreadId) -> Done<Option<ServedThread>> {
    let sql = "INSERT INTO api_threads (id, graph, metadata, config, created_at, updated_at, state_at)
       SELECT t.id, json_extract(o.body, '$.workflow'), json_object('graph_id', json_extract(o.body, '$.workflow')), '{}',
         t.created_at, t.updated_at, t.updated_at
       FROM threads t JOIN thread_origins o ON o.thread = t.n WHERE t.id = ?1";
    match conn.prepare_cached(sql)?.execute([id.as_str()])? {
        0 => Ok(None),
        _ => one(conn, id),
    }
}

pub(super) fn patch(
    conn: &Connection,
    id: &ThreadId,
    metadata: &Map<String, Value>,
    at: DateTime<Utc>,
) -> Done<Option<ServedThread>> {
    let there = one(conn, id)?.map_or_else(|| take_in(conn, id), |there| Ok(Some(there)))?;
    let Some(mut there) = there else { return Ok(None) };
    there.metadata.extend(metadata.clone());
    let sql = "UPDATE api_threads SET metadata = ?2, updated_at = ?3 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![id.as_str(), encode(&there.metadata)?, nanos(at)?])?;
    one(conn, id)
}

pub(super) fn touch(conn: &Connection, id: &ThreadId, at: DateTime<Utc>) -> Done<()> {
    let sql = "UPDATE api_threads SET updated_at = ?2, state_at = ?2 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![id.as_str(), nanos(at)?])?;
    Ok(())
}

/// The number under which the engine has something of a thread.
pub(super) fn number(conn: &Connection, id: &ThreadId) -> Done<Option<i64>> {
    let mut select = conn.prepare_cached("SELECT n FROM threads WHERE id = ?1")?;
    Ok(select.query_row([id.as_str()], |row| row.get(0)).optional()?)
}

/// Removes a thread, unless somebody else who lives is at work on it.
pub(super) fn delete(conn: &Connection, id: &ThreadId, own: &Owner, liveness: &dyn Liveness) -> Done<bool> {
    if let Some(owner) = held_elsewhere(conn, id, own, liveness)? {
        return Err(StoreError::Held { thread: id.clone(), owner: Box::new(owner) }.into());
    }
    conn.prepare_cached("DELETE FROM threads WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(conn.prepare_cached("DELETE FROM api_threads WHERE id = ?1")?.execute([id.as_str()])? > 0)
}

/// Who else that lives is at work on a thread.
pub(super) fn held_elsewhere(
    conn: &Connection,
    id: &ThreadId,
    own: &Owner,
    liveness: &dyn Liveness,
) -> Done<Option<Owner>> {
    let mut select = conn.prepare_cached("SELECT owner FROM threads WHERE id = ?1")?;
    let owner: Option<Option<String>> = select.query_row([id.as_str()], |row| row.get(0)).optional()?;
    let owner: Option<Owner> = decode_opt(owner.flatten(), "a thread's owner")?;
    Ok(owner.filter(|owner| owner != own && liveness.alive(owner)))
}

pub(super) fn forget_progress(conn: &Connection, id: &ThreadId, at: DateTime<Utc>) -> Done<()> {
    conn.prepare_cached("DELETE FROM threads WHERE id = ?1")?.execute([id.as_str()])?;
    touch(conn, id, at)
}

pub(super) fn search(conn: &Connection, search: &ThreadSearch) -> Done<(Vec<ServedThread>, usize)> {
    let key = match search.sort {
        SortKey::CreatedAt => "created_at",
        SortKey::UpdatedAt => "updated_at",
        SortKey::StateUpdatedAt => "state_at",
        SortKey::Id => "id",
        SortKey::Status => "status",
    };
    let order = if search.ascending { "ASC" } else { "DESC" };
    if search.status.is_none() && search.ids.is_none() && search.metadata.is_empty() && search.sort != SortKey::Status {
        return page(conn, search, key, order);
    }
    let sql = format!(
        "SELECT * FROM (SELECT {COLUMNS}, {STATUS} AS status, a.n AS n {FROM})
         WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR id IN (SELECT value FROM json_each(?2)))
         ORDER BY {key} {order}, n {order}"
    );
    let ids = search.ids.as_ref().map(encode).transpose()?;
    let mut select = conn.prepare_cached(&sql)?;
    let rows = select.query_map(params![search.status.map(ServedStatus::word), ids], Stored::read)?;
    let (mut found, mut total) = (Vec::new(), 0);
    for row in rows {
        let thread = row?.thread()?;
        if !contains(&thread.metadata, &search.metadata) {
            continue;
        }
        if total >= search.offset && found.len() < search.limit {
            found.push(thread);
        }
        total += 1;
    }
    Ok((found, total))
}

/// Where nothing but the order and the place says which ones, the others are not looked at.
fn page(conn: &Connection, search: &ThreadSearch, key: &str, order: &str) -> Done<(Vec<ServedThread>, usize)> {
    let total: i64 = conn.prepare_cached("SELECT count(*) FROM api_threads")?.query_row([], |row| row.get(0))?;
    let sql = format!(
        "SELECT {COLUMNS}, {STATUS} FROM
           (SELECT n AS place FROM api_threads ORDER BY {key} {order}, n {order} LIMIT ?1 OFFSET ?2)
         JOIN api_threads a ON a.n = place LEFT JOIN threads t ON t.id = a.id ORDER BY a.{key} {order}, a.n {order}"
    );
    let many = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut select = conn.prepare_cached(&sql)?;
    let rows = select.query_map([many(search.limit), many(search.offset)], Stored::read)?;
    let found = rows.map(|row| row?.thread()).collect::<Done<Vec<_>>>()?;
    Ok((found, usize::try_from(total).unwrap_or(usize::MAX)))
}
