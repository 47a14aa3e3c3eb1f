//! Questions and their answers.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::batch::Tx;
use super::events;
use super::fault::{Done, decode, decode_opt, encode, nanos};
use super::threads::{self, encode_opt};
use crate::graph::{Claim, Event, Interrupt, InterruptId, StoreError, ThreadId, claim};

/// Keeps a question. One that is there already is replaced unless it has been answered.
pub(super) fn ask(conn: &Connection, thread: i64, asked: &Interrupt) -> Done<()> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO interrupts (id, thread, ns, asked_at, body, answer, withdrawn) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET ns = excluded.ns, asked_at = excluded.asked_at, body = excluded.body,
           answer = excluded.answer, withdrawn = excluded.withdrawn
         WHERE interrupts.answer IS NULL",
    )?;
    let body = encode(&Interrupt { answer: None, withdrawn: false, ..asked.clone() })?;
    insert.execute(params![
        asked.id.as_str(),
        thread,
        asked.key.ns.as_str(),
        nanos(asked.asked_at)?,
        body,
        encode_opt(asked.answer.as_ref())?,
        asked.withdrawn,
    ])?;
    Ok(())
}

/// Withdraws the open questions of a namespace and of those inside it.
pub(super) fn withdraw(conn: &Connection, thread: i64, ns: &str) -> Done<()> {
    let mut update = conn.prepare_cached(
        "UPDATE interrupts SET withdrawn = 1 WHERE thread = ?1 AND answer IS NULL
         AND (?2 = '' OR ns = ?2 OR substr(ns, 1, length(?2) + 1) = ?2 || '|')",
    )?;
    update.execute(params![thread, ns])?;
    Ok(())
}

struct Stored {
    body: String,
    answer: Option<String>,
    withdrawn: bool,
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { body: row.get(0)?, answer: row.get(1)?, withdrawn: row.get(2)? })
    }

    fn interrupt(self) -> Done<Interrupt> {
        let asked: Interrupt = decode(&self.body, "a question")?;
        Ok(Interrupt { answer: decode_opt(self.answer, "an answer")?, withdrawn: self.withdrawn, ..asked })
    }
}

/// One question.
pub(super) fn one(conn: &Connection, id: &InterruptId) -> Done<Option<Interrupt>> {
    let mut select = conn.prepare_cached("SELECT body, answer, withdrawn FROM interrupts WHERE id = ?1")?;
    let stored = select.query_row([id.as_str()], Stored::read).optional()?;
    stored.map(Stored::interrupt).transpose()
}

/// Questions, oldest first.
pub(super) fn list(conn: &Connection, thread: Option<&ThreadId>, open_only: bool) -> Done<Vec<Interrupt>> {
    // What a record from elsewhere asks is asked there.
    let of = match thread {
        Some(_) => "thread = (SELECT n FROM threads WHERE id = ?1)",
        None => "?1 IS NULL AND thread NOT IN (SELECT n FROM threads WHERE imported IS NOT NULL)",
    };
    let open = if open_only { "AND answer IS NULL AND withdrawn = 0" } else { "" };
    let sql = format!("SELECT body, answer, withdrawn FROM interrupts WHERE {of} {open} ORDER BY asked_at, n");
    let mut select = conn.prepare_cached(&sql)?;
    let rows = select.query_map([thread.map(ThreadId::as_str)], Stored::read)?;
    rows.map(|stored| stored?.interrupt()).collect()
}

/// Claims a question: the first answer wins.
pub(super) fn answer(tx: &mut Tx<'_>, wanted: &Claim) -> Done<Interrupt> {
    let Claim { id, answer, digest } = wanted;
    let asked = one(tx.conn, id)?.ok_or_else(|| StoreError::NoInterrupt(id.clone()))?;
    threads::refuse_imported(tx.conn, &asked.thread)?;
    claim(&asked, answer, digest.as_deref())?;
    let mut update = tx.conn.prepare_cached("UPDATE interrupts SET answer = ?2 WHERE id = ?1")?;
    update.execute(params![id.as_str(), encode(answer)?])?;
    let mut head = threads::known_head(tx, &asked.thread)?;
    let event = Event::Answered { id: id.clone(), by: answer.by.clone(), via: answer.via.clone() };
    events::add(tx.conn, &asked.thread, &mut head, answer.at, &[&event])?;
    tx.lines.put_head(&asked.thread, head);
    Ok(Interrupt { answer: Some(answer.clone()), ..asked })
}
