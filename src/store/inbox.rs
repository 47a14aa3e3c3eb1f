//! What others leave for whoever advances a thread.

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::{Done, count, decode_opt, encode, uncount};
use super::writer::Tx;
use super::{audit, threads};
use crate::graph::{Event, Inbox, StopAsk, StoreError, ThreadId};

/// Leaves a request to let go, for the owner of the current epoch.
pub(super) fn ask_stop(tx: &mut Tx<'_>, id: &ThreadId, ask: &StopAsk) -> Done<()> {
    let mut head = threads::head(tx.conn, id)?;
    let event = Event::StopAsked { by: ask.by.clone(), hold: ask.hold };
    audit::event(tx.conn, id, &mut head, ask.at, &event)?;
    let sql = "UPDATE threads SET last_event = ?2, stop = ?3, stop_epoch = epoch WHERE n = ?1";
    tx.conn.prepare_cached(sql)?.execute(params![head.n, head.last_event, encode(ask)?])?;
    Ok(())
}

/// What has arrived.
pub(super) fn read(conn: &Connection, id: &ThreadId) -> Done<Inbox> {
    let mut select = conn.prepare_cached(
        "SELECT epoch, CASE WHEN stop_epoch = epoch THEN stop END,
           seen < (SELECT count(*) FROM interrupts i WHERE i.thread = threads.n AND i.answer IS NOT NULL)
         FROM threads WHERE id = ?1",
    )?;
    let found = select.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let (epoch, stop, answered): (i64, Option<String>, bool) = found.ok_or_else(|| StoreError::NoThread(id.clone()))?;
    Ok(Inbox { epoch: uncount(epoch)?, stop: decode_opt(stop, "a request to stop")?, answered })
}

/// A run has begun that knows so many answers.
pub(super) fn seen(conn: &Connection, thread: i64, answers: u64) -> Done<()> {
    conn.prepare_cached("UPDATE threads SET seen = ?2 WHERE n = ?1")?.execute(params![thread, count(answers)?])?;
    Ok(())
}
