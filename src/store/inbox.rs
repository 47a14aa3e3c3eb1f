//! What others leave for whoever advances a thread.

use rusqlite::{Connection, OptionalExtension, params};

use super::batch::Tx;
use super::fault::{Done, decode_opt, encode, uncount};
use super::{events, threads};
use crate::graph::{Event, Inbox, StopAsk, StoreError, ThreadId};

/// Leaves a request to let go, for the owner of the current epoch.
pub(super) fn ask_stop(tx: &mut Tx<'_>, id: &ThreadId, ask: &StopAsk) -> Done<()> {
    let mut head = threads::known_head(tx, id)?;
    let event = Event::StopAsked { by: ask.by.clone(), hold: ask.hold };
    events::add(tx.conn, id, &mut head, ask.at, &[&event])?;
    let sql = "UPDATE threads SET stop = ?2, stop_epoch = epoch WHERE n = ?1";
    tx.conn.prepare_cached(sql)?.execute(params![head.n, encode(ask)?])?;
    tx.lines.put_head(id, head);
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

/// How many answers the thread's questions have.
pub(super) fn answers(conn: &Connection, thread: i64) -> Done<u64> {
    let sql = "SELECT count(*) FROM interrupts WHERE thread = ?1 AND answer IS NOT NULL";
    uncount(conn.prepare_cached(sql)?.query_row([thread], |row| row.get(0))?)
}
