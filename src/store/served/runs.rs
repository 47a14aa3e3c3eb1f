//! Rows of runs: a thread's queue and its past.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::threads;
use crate::graph::{Interrupt, StoreError, ThreadId};
use crate::store::events;
use crate::store::fault::{Done, count, decode, decode_opt, encode, nanos, time, uncount};
use crate::store::people::{NewRunWebhook, run_webhooks};

/// LangGraph's words for what a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// It waits in its thread's queue.
    Pending,
    /// It is under way.
    Running,
    /// It came to its end, or to a question.
    Success,
    /// It failed.
    Error,
    /// Somebody stopped it.
    Interrupted,
}

impl RunStatus {
    /// The word in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Error => "error",
            Self::Interrupted => "interrupted",
        }
    }

    /// The status of that word.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Pending, Self::Running, Self::Success, Self::Error, Self::Interrupted];
        all.into_iter().find(|status| status.word() == word)
    }

    /// Whether it has ended.
    pub fn is_over(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Success | Self::Error | Self::Interrupted => true,
        }
    }
}

/// What never changes of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunBody {
    /// The assistant's id.
    pub assistant: String,
    /// Its graph's name.
    pub graph: String,
    /// Free keys, with what the server adds.
    pub metadata: Map<String, Value>,
    /// What the client asked for.
    pub kwargs: Value,
    /// What happens to runs of the thread that are under way: `enqueue`, `reject`, `interrupt`, `rollback`.
    pub strategy: String,
    /// Who asked for it.
    pub by: String,
    /// The id of the key by which they were known: what it may do is looked at again when the run begins. `None`: by a token, or as the
    /// user of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// That somebody has stopped a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedCancel {
    /// What it did is taken back.
    pub rollback: bool,
    /// Who stops it.
    pub by: String,
    /// When they asked.
    pub at: DateTime<Utc>,
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedRun {
    /// Its id, a UUID.
    pub id: String,
    /// Its thread.
    pub thread: ThreadId,
    /// What it is.
    pub status: RunStatus,
    /// What never changes of it.
    pub body: RunBody,
    /// It does not begin before.
    pub due_at: DateTime<Utc>,
    /// Its thread's newest event before it began.
    pub first: Option<u64>,
    /// Its thread's newest event when it ended.
    pub last: Option<u64>,
    /// How it ended.
    pub outcome: Value,
    /// Somebody has stopped it.
    pub cancel: Option<AskedCancel>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it changed last.
    pub updated_at: DateTime<Utc>,
}

/// A run to be accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub id: String,
    /// Its thread.
    pub thread: ThreadId,
    /// Makes the thread where there is none, with this metadata.
    pub create: Option<Map<String, Value>>,
    /// What never changes of it.
    pub body: RunBody,
    /// It does not begin before.
    pub due_at: DateTime<Utc>,
    /// Most runs that may wait in the thread's queue.
    pub most_waiting: usize,
    /// Now.
    pub at: DateTime<Utc>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// It is in the queue, behind those of `before`.
    Queued {
        /// The run.
        run: Box<ServedRun>,
        /// Runs of the thread that have not ended.
        before: Vec<ServedRun>,
    },
    /// There is no such thread.
    NoThread,
    /// Another run is under way, and the run wants to be refused then.
    Busy,
    /// So many runs wait already.
    Full,
    /// The thread's runs are of another graph.
    OtherGraph(String),
}

const COLUMNS: &str =
    "r.id, a.id, r.status, r.body, r.due_at, r.first, r.last, r.outcome, r.created_at, r.updated_at, r.cancel
     FROM api_runs r JOIN api_threads a ON a.n = r.thread";

struct Stored {
    id: String,
    thread: String,
    status: String,
    body: String,
    times: [i64; 3],
    span: [Option<i64>; 2],
    outcome: Option<String>,
    cancel: Option<String>,
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            thread: row.get(1)?,
            status: row.get(2)?,
            body: row.get(3)?,
            times: [row.get(4)?, row.get(8)?, row.get(9)?],
            span: [row.get(5)?, row.get(6)?],
            outcome: row.get(7)?,
            cancel: row.get(10)?,
        })
    }

    fn run(self) -> Done<ServedRun> {
        let [due_at, created_at, updated_at] = self.times.map(time);
        let [first, last] = self.span;
        let status = status_of(&self.status)?;
        Ok(ServedRun {
            thread: self.thread.into(),
            status,
            body: decode(&self.body, "a run")?,
            due_at,
            first: first.map(uncount).transpose()?,
            last: last.map(uncount).transpose()?,
            outcome: decode_opt(self.outcome, "a run's outcome")?.unwrap_or_default(),
            cancel: decode_opt(self.cancel, "a run's cancel")?,
            created_at,
            updated_at,
            id: self.id,
        })
    }
}

pub(super) fn one(conn: &Connection, id: &str) -> Done<Option<ServedRun>> {
    let sql = format!("SELECT {COLUMNS} WHERE r.id = ?1");
    conn.prepare_cached(&sql)?.query_row([id], Stored::read).optional()?.map(Stored::run).transpose()
}

pub(super) fn list(
    conn: &Connection,
    thread: &ThreadId,
    status: Option<RunStatus>,
    limit: usize,
    offset: usize,
) -> Done<Vec<ServedRun>> {
    let sql = format!(
        "SELECT {COLUMNS} WHERE a.id = ?1 AND (?2 IS NULL OR r.status = ?2) ORDER BY r.n DESC LIMIT ?3 OFFSET ?4"
    );
    let mut select = conn.prepare_cached(&sql)?;
    let (limit, offset) = (count(limit as u64)?, count(offset as u64)?);
    let rows = select.query_map(params![thread.as_str(), status.map(RunStatus::word), limit, offset], Stored::read)?;
    rows.map(|row| row?.run()).collect()
}

pub(super) fn open(conn: &Connection, thread: &ThreadId) -> Done<Vec<ServedRun>> {
    let sql = format!("SELECT {COLUMNS} WHERE a.id = ?1 AND r.status IN ('pending', 'running') ORDER BY r.n");
    let mut select = conn.prepare_cached(&sql)?;
    let rows = select.query_map([thread.as_str()], Stored::read)?;
    rows.map(|row| row?.run()).collect()
}

/// The run of a thread whose turn it is.
pub(super) fn next(conn: &Connection, thread: &ThreadId) -> Done<Option<ServedRun>> {
    let sql = format!(
        "SELECT {COLUMNS} WHERE a.id = ?1 AND r.status IN ('pending', 'running') ORDER BY r.status = 'running' DESC, r.n LIMIT 1"
    );
    conn.prepare_cached(&sql)?.query_row([thread.as_str()], Stored::read).optional()?.map(Stored::run).transpose()
}

pub(super) fn any_open(conn: &Connection, thread: &ThreadId) -> Done<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM api_runs r JOIN api_threads a ON a.n = r.thread
                WHERE a.id = ?1 AND r.status IN ('pending', 'running'))";
    Ok(conn.prepare_cached(sql)?.query_row([thread.as_str()], |row| row.get(0))?)
}

/// What the end of a run rests on.
#[derive(Debug, Clone)]
pub struct RunRestsOn {
    /// Who has stopped it.
    pub cancel: Option<AskedCancel>,
    /// Whether the engine has anything of its thread.
    pub begun: bool,
    /// The thread's open questions.
    pub open: Vec<Interrupt>,
    /// The number of the thread's newest event; 0 without one.
    pub last: u64,
}

/// Whether a run's row is so short that it is read where it is wanted.
pub(super) fn is_little(conn: &Connection, id: &str) -> Done<bool> {
    let sql = "SELECT octet_length(body) + coalesce(octet_length(outcome), 0) <= 65536 FROM api_runs WHERE id = ?1";
    Ok(conn.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()?.unwrap_or(true))
}

/// How a run stands: what changes of it, without what its client sent, which may be large.
pub(super) fn stands(conn: &Connection, id: &str) -> Done<Option<(RunStatus, Option<AskedCancel>)>> {
    let mut select = conn.prepare_cached("SELECT status, cancel FROM api_runs WHERE id = ?1")?;
    let found = select.query_row([id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).optional()?;
    let Some((status, cancel)) = found else { return Ok(None) };
    Ok(Some((status_of(&status)?, decode_opt(cancel, "a run's stop")?)))
}

fn status_of(word: &str) -> Done<RunStatus> {
    Ok(RunStatus::parse(word).ok_or_else(|| StoreError::Damaged(format!("`{word}` is no status of a run")))?)
}

pub(super) fn threads_with_open(conn: &Connection) -> Done<Vec<ThreadId>> {
    let sql = "SELECT DISTINCT a.id FROM api_runs r JOIN api_threads a ON a.n = r.thread
               WHERE r.status IN ('pending', 'running')";
    let mut select = conn.prepare_cached(sql)?;
    let rows = select.query_map([], |row| row.get::<_, String>(0))?;
    rows.map(|id| Ok(ThreadId::from(id?))).collect()
}

pub(super) fn left_over(conn: &Connection) -> Done<Vec<ThreadId>> {
    let sql = "SELECT a.id FROM api_threads a JOIN api_runs r ON r.thread = a.n GROUP BY a.n
               HAVING max(r.status IN ('pending', 'running')) = 0
                 AND max(json_extract(r.body, '$.kwargs.temporary')) = 1";
    let mut select = conn.prepare_cached(sql)?;
    let rows = select.query_map([], |row| row.get::<_, String>(0))?;
    rows.map(|id| Ok(ThreadId::from(id?))).collect()
}

/// Accepts a run: everything that this depends on is looked at in the transaction that keeps it.
pub(super) fn accept(conn: &Connection, new: &NewRun) -> Done<Accepted> {
    let known = match threads::one(conn, &new.thread)? {
        None => threads::take_in(conn, &new.thread)?,
        known => known,
    };
    let thread = match (known, &new.create) {
        (Some(thread), _) => thread,
        (None, None) => return Ok(Accepted::NoThread),
        (None, Some(metadata)) => threads::add(conn, &new.thread, metadata, new.at)?.0,
    };
    let before = open(conn, &new.thread)?;
    let strategy = new.body.strategy.as_str();
    if strategy == "reject" && !before.is_empty() {
        return Ok(Accepted::Busy);
    }
    if before.len() >= new.most_waiting {
        return Ok(Accepted::Full);
    }
    if let Some(graph) = thread.graph.as_ref().filter(|graph| **graph != new.body.graph) {
        // Where all that there is will be taken back, the thread begins anew.
        let ended = "SELECT EXISTS (SELECT 1 FROM api_runs r JOIN api_threads a ON a.n = r.thread
                     WHERE a.id = ?1 AND r.status NOT IN ('pending', 'running'))";
        let ended: bool = conn.prepare_cached(ended)?.query_row([new.thread.as_str()], |row| row.get(0))?;
        let begins_anew = !ended && (strategy == "rollback" || before.is_empty() && !thread.begun);
        if !begins_anew {
            return Ok(Accepted::OtherGraph(graph.clone()));
        }
    }
    let metadata = thread_metadata(thread.metadata, &new.body);
    let mut body = new.body.clone();
    let graph = metadata.get("graph_id").cloned().unwrap_or_default();
    body.metadata.entry("graph_id").or_insert(graph);
    let sql = "UPDATE api_threads SET graph = ?2, metadata = ?3, config = ?4, updated_at = ?5 WHERE id = ?1";
    let config = if thread.config == json!({}) { json!({"configurable": {}}) } else { thread.config };
    let values = params![new.thread.as_str(), new.body.graph, encode(&metadata)?, encode(&config)?, nanos(new.at)?];
    conn.prepare_cached(sql)?.execute(values)?;
    // One that need not wait begins with its acceptance: that is one transaction less until its end.
    let begins = before.is_empty() && new.due_at <= new.at;
    let first = match threads::number(conn, &new.thread)?.filter(|_| begins) {
        Some(n) => events::last(conn, n)?,
        None => 0,
    };
    let sql = "INSERT INTO api_runs (id, thread, status, body, due_at, created_at, updated_at, first)
               SELECT ?1, n, ?6, ?3, ?4, ?5, ?8, ?7 FROM api_threads WHERE id = ?2";
    let status = if begins { RunStatus::Running } else { RunStatus::Pending };
    // When it began, which is not when it was asked for: what was there before is not its doing.
    let changed_at = if begins { Utc::now().max(new.at) } else { new.at };
    let (due_at, at, changed_at, first) =
        (nanos(new.due_at)?, nanos(new.at)?, nanos(changed_at)?, begins.then_some(first));
    let values = params![new.id, new.thread.as_str(), encode(&body)?, due_at, at, status.word(), first, changed_at];
    conn.prepare_cached(sql)?.execute(values)?;
    let run = one(conn, &new.id)?.ok_or_else(|| StoreError::Failed(format!("run {} was not kept", new.id)))?;
    Ok(Accepted::Queued { run: Box::new(run), before })
}

/// The first run says of which graph and assistant a thread is.
fn thread_metadata(mut metadata: Map<String, Value>, body: &RunBody) -> Map<String, Value> {
    metadata.entry("graph_id").or_insert_with(|| json!(body.graph));
    metadata.entry("assistant_id").or_insert_with(|| json!(body.assistant));
    metadata
}

pub(super) fn begin(conn: &Connection, id: &str, first: u64, at: DateTime<Utc>) -> Done<bool> {
    let sql =
        "UPDATE api_runs SET status = 'running', first = ?2, updated_at = ?3 WHERE id = ?1 AND status = 'pending'";
    Ok(conn.prepare_cached(sql)?.execute(params![id, count(first)?, nanos(at)?])? > 0)
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnded {
    /// As what.
    pub status: RunStatus,
    /// Its thread's newest event.
    pub last: u64,
    /// How.
    pub outcome: Value,
    /// What its end knows of a stop.
    pub cancel: Option<AskedCancel>,
    /// Now.
    pub at: DateTime<Utc>,
    /// What its webhook is to be told.
    pub told: Option<NewRunWebhook>,
}

/// False: somebody has stopped it otherwise since.
pub(super) fn end(conn: &Connection, id: &str, ended: &RunEnded) -> Done<bool> {
    if stands(conn, id)?.is_some_and(|(status, cancel)| !status.is_over() && cancel != ended.cancel) {
        return Ok(false);
    }
    let sql = "UPDATE api_runs SET status = ?2, last = ?3, outcome = ?4, updated_at = ?5
               WHERE id = ?1 AND status IN ('pending', 'running')";
    let at = nanos(ended.at)?;
    let values = params![id, ended.status.word(), count(ended.last)?, encode(&ended.outcome)?, at];
    if conn.prepare_cached(sql)?.execute(values)? > 0 {
        let sql = "UPDATE api_threads SET updated_at = ?2, state_at = ?2
                   WHERE n = (SELECT thread FROM api_runs WHERE id = ?1)";
        conn.prepare_cached(sql)?.execute(params![id, at])?;
        if let Some(told) = &ended.told {
            run_webhooks::add(conn, id, told, ended.at)?;
        }
    }
    Ok(true)
}

/// Stops a run: one that waits at once, one that is under way by a note of it. That it is to be taken back is not taken back. `told`: what its
/// webhook is told should it never have begun. The run as it was; `None`: it is over.
pub(super) fn cancel(
    conn: &Connection,
    id: &str,
    asked: &AskedCancel,
    told: Option<&NewRunWebhook>,
) -> Done<Option<ServedRun>> {
    let Some(run) = one(conn, id)?.filter(|run| !run.status.is_over()) else { return Ok(None) };
    match (run.status, asked.rollback) {
        (RunStatus::Pending, true) => delete(conn, id)?,
        (RunStatus::Pending, false) => {
            let (cancel, told) = (run.cancel.clone(), told.cloned());
            let ended =
                RunEnded { status: RunStatus::Interrupted, last: 0, outcome: stopped(), cancel, at: asked.at, told };
            end(conn, id, &ended)?;
        }
        _ if run.cancel.as_ref().is_some_and(|before| before.rollback || !asked.rollback) => {}
        _ => {
            let sql = "UPDATE api_runs SET cancel = ?2 WHERE id = ?1";
            conn.prepare_cached(sql)?.execute(params![id, encode(asked)?])?;
        }
    }
    Ok(Some(run))
}

/// How a run ends that was stopped before it began.
pub fn stopped() -> Value {
    json!({"stands": false, "interrupts": [], "error": null})
}

pub(super) fn delete(conn: &Connection, id: &str) -> Done<()> {
    conn.prepare_cached("DELETE FROM api_runs WHERE id = ?1")?.execute([id])?;
    Ok(())
}
