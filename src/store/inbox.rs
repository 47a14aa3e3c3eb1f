//! What others leave for whoever advances a thread.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::batch::Tx;
use super::fault::{Done, count, decode, decode_opt, encode, uncount};
use super::{events, threads};
use crate::graph::{Alarm, Event, Inbox, MOST_SIGNALS, Signal, StopAsk, StoreError, ThreadId};

/// Leaves a request to let go, for the owner of the current epoch.
pub(super) fn ask_stop(tx: &mut Tx<'_>, id: &ThreadId, ask: &StopAsk) -> Done<()> {
    threads::refuse_imported(tx.conn, id)?;
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
           seen < (SELECT count(*) FROM interrupts i WHERE i.thread = threads.n AND i.answer IS NOT NULL),
           listens IS NOT NULL AND EXISTS (SELECT 1 FROM signals s WHERE s.thread = threads.n AND s.taken = 0
             AND json_extract(s.body, '$.name') IN (SELECT value FROM json_each(listens)))
         FROM threads WHERE id = ?1",
    )?;
    let found =
        select.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).optional()?;
    let found: Option<(i64, Option<String>, bool, bool)> = found;
    let (epoch, stop, answered, signalled) = found.ok_or_else(|| StoreError::NoThread(id.clone()))?;
    Ok(Inbox { epoch: uncount(epoch)?, stop: decode_opt(stop, "a request to stop")?, answered, signalled })
}

/// How many answers the thread's questions have.
pub(super) fn answers(conn: &Connection, thread: i64) -> Done<u64> {
    let sql = "SELECT count(*) FROM interrupts WHERE thread = ?1 AND answer IS NOT NULL";
    uncount(conn.prepare_cached(sql)?.query_row([thread], |row| row.get(0))?)
}

/// Leaves a signal.
pub(super) fn signal(tx: &mut Tx<'_>, id: &ThreadId, signal: &Signal) -> Done<u64> {
    threads::refuse_imported(tx.conn, id)?;
    let mut head = threads::known_head(tx, id)?;
    let mut counts = tx.conn.prepare_cached(
        "SELECT coalesce(max(seq), 0), count(*) FILTER (WHERE taken = 0) FROM signals WHERE thread = ?1",
    )?;
    let (newest, waiting): (i64, i64) = counts.query_row([head.n], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if uncount(waiting)? >= MOST_SIGNALS as u64 {
        return Err(StoreError::InboxFull(id.clone()).into());
    }
    let signal = Signal { seq: uncount(newest + 1)?, ..signal.clone() };
    tx.conn.prepare_cached("INSERT INTO signals (thread, seq, body) VALUES (?1, ?2, ?3)")?.execute(params![
        head.n,
        newest + 1,
        encode(&signal)?
    ])?;
    let event = Event::Signalled { seq: signal.seq, name: signal.name.clone(), by: signal.by.clone() };
    drop(counts);
    events::add(tx.conn, id, &mut head, signal.at, &[&event])?;
    tx.lines.put_head(id, head);
    Ok(signal.seq)
}

/// Signals that no wait has taken, oldest first.
pub(super) fn signals(conn: &Connection, thread: i64) -> Done<Vec<Signal>> {
    let mut select = conn.prepare_cached("SELECT body FROM signals WHERE thread = ?1 AND taken = 0 ORDER BY seq")?;
    let bodies = select.query_map([thread], |row| row.get::<_, String>(0))?;
    bodies.map(|body| decode(&body?, "a signal")).collect()
}

/// A wait has taken a signal.
pub(super) fn took(conn: &Connection, thread: i64, seq: u64) -> Done<()> {
    let mut update = conn.prepare_cached("UPDATE signals SET taken = 1 WHERE thread = ?1 AND seq = ?2")?;
    update.execute(params![thread, count(seq)?])?;
    Ok(())
}

/// What the thread waits for when a run ends.
pub(super) fn sleeps(conn: &Connection, thread: i64, wake: Option<&Alarm>, listens: &BTreeSet<String>) -> Done<()> {
    let mut update = conn.prepare_cached("UPDATE threads SET wake = ?2, listens = ?3 WHERE n = ?1")?;
    let listens = Some(listens).filter(|names| !names.is_empty());
    update.execute(params![thread, threads::encode_opt(wake)?, threads::encode_opt(listens)?])?;
    Ok(())
}
