//! A commit: the engine's records, in order, in one transaction.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::fault::{Done, count};
use super::threads::{self, Head, encode_opt};
use super::writer::Tx;
use super::{audit, cache, checkpoints, inbox, interrupts, journal};
use crate::graph::{Record, StoreError, Thread, ThreadId};

/// Adds a thread with its first records.
pub(super) fn create(tx: &mut Tx<'_>, thread: &Thread, records: &[Record]) -> Done<()> {
    let head = threads::insert(tx.conn, thread)?;
    apply_all(tx, &thread.id, head, thread.created_at, records)
}

/// Commits records under the lease of `epoch`.
pub(super) fn commit(tx: &mut Tx<'_>, id: &ThreadId, epoch: u64, at: DateTime<Utc>, records: &[Record]) -> Done<()> {
    let head = threads::head(tx.conn, id)?;
    if head.epoch != epoch {
        return Err(StoreError::Fenced { thread: id.clone(), ours: epoch, current: head.epoch }.into());
    }
    apply_all(tx, id, head, at, records)
}

fn apply_all(tx: &mut Tx<'_>, id: &ThreadId, mut head: Head, at: DateTime<Utc>, records: &[Record]) -> Done<()> {
    if records.is_empty() {
        return Ok(());
    }
    for record in records {
        apply(tx, id, &mut head, at, record)?;
    }
    threads::save_head(tx.conn, &head, at)
}

fn apply(tx: &mut Tx<'_>, id: &ThreadId, head: &mut Head, at: DateTime<Utc>, record: &Record) -> Done<()> {
    let n = head.n;
    match record {
        Record::Checkpoint(checkpoint) => checkpoints::append(tx, n, checkpoint),
        Record::Result { ns, checkpoint, result } => checkpoints::result(tx, n, ns, checkpoint, result),
        Record::Attempts { ns, checkpoint, path, attempts } => {
            checkpoints::attempts(tx, n, ns, checkpoint, path, *attempts)
        }
        Record::Entry(entry) => journal::put(tx.conn, n, entry),
        Record::Interrupt(asked) => interrupts::ask(tx.conn, n, asked),
        Record::Withdraw { ns } => interrupts::withdraw(tx.conn, n, ns),
        Record::Status { status, failure, unwinding } => {
            let mut update =
                tx.conn.prepare_cached("UPDATE threads SET status = ?2, failure = ?3, unwinding = ?4 WHERE n = ?1")?;
            let (failure, unwinding) = (encode_opt(failure.as_ref())?, encode_opt(unwinding.as_ref())?);
            update.execute(params![n, status.word(), failure, unwinding])?;
            Ok(())
        }
        Record::Seen(answers) => inbox::seen(tx.conn, n, *answers),
        Record::CommitPoint(seq) => {
            tx.conn
                .prepare_cached("UPDATE threads SET committed_seq = ?2 WHERE n = ?1")?
                .execute(params![n, count(*seq)?])?;
            Ok(())
        }
        Record::Undone(undone) => {
            tx.conn.prepare_cached("UPDATE threads SET undone = ?2 WHERE n = ?1")?.execute(params![n, undone])?;
            Ok(())
        }
        Record::Migrated { fingerprint, node_versions } => threads::migrated(tx.conn, n, fingerprint, node_versions),
        Record::Took(seq) => inbox::took(tx.conn, n, *seq),
        Record::Sleeps { wake, heard } => inbox::sleeps(tx.conn, n, wake.as_ref(), *heard),
        Record::Cached { key, produced, expires_at } => cache::put(tx.conn, key, produced, *expires_at, at),
        Record::Event(event) => audit::event(tx.conn, id, head, at, event),
    }
}
