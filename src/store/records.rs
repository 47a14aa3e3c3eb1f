//! A commit: the engine's records, in order, in one transaction.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::fault::{Done, count};
use super::threads::{self, Head, encode_opt};
use super::writer::Tx;
use super::{audit, checkpoints, interrupts, journal};
use crate::graph::{Checkpoint, Record, StoreError, Thread, ThreadId};

/// A record as the writer keeps it: the checkpoint is shared with its cache instead of copied.
#[expect(clippy::large_enum_variant, reason = "most records are of the large kind; a box each would only cost")]
pub(super) enum Step {
    Checkpoint(Arc<Checkpoint>),
    Other(Record),
}

impl From<Record> for Step {
    fn from(record: Record) -> Self {
        match record {
            Record::Checkpoint(checkpoint) => Self::Checkpoint(Arc::from(checkpoint)),
            other => Self::Other(other),
        }
    }
}

/// Adds a thread with its first records.
pub(super) fn create(tx: &mut Tx<'_>, thread: &Thread, steps: &[Step]) -> Done<()> {
    let head = threads::insert(tx.conn, thread)?;
    apply_all(tx, &thread.id, head, thread.created_at, steps)
}

/// Commits records under the lease of `epoch`.
pub(super) fn commit(tx: &mut Tx<'_>, id: &ThreadId, epoch: u64, at: DateTime<Utc>, steps: &[Step]) -> Done<()> {
    let head = threads::head(tx.conn, id)?;
    if head.epoch != epoch {
        return Err(StoreError::Fenced { thread: id.clone(), ours: epoch, current: head.epoch }.into());
    }
    apply_all(tx, id, head, at, steps)
}

fn apply_all(tx: &mut Tx<'_>, id: &ThreadId, mut head: Head, at: DateTime<Utc>, steps: &[Step]) -> Done<()> {
    if steps.is_empty() {
        return Ok(());
    }
    for step in steps {
        match step {
            Step::Checkpoint(checkpoint) => checkpoints::append(tx, head.n, checkpoint)?,
            Step::Other(record) => apply(tx, id, &mut head, at, record)?,
        }
    }
    threads::save_head(tx.conn, &head, at)
}

fn apply(tx: &mut Tx<'_>, id: &ThreadId, head: &mut Head, at: DateTime<Utc>, record: &Record) -> Done<()> {
    let n = head.n;
    match record {
        Record::Checkpoint(checkpoint) => checkpoints::append(tx, n, &Arc::new((**checkpoint).clone())),
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
        Record::CommitPoint(seq) => {
            tx.conn
                .prepare_cached("UPDATE threads SET committed_seq = ?2 WHERE n = ?1")?
                .execute(params![n, count(*seq)?])?;
            Ok(())
        }
        Record::Undone => {
            tx.conn.prepare_cached("UPDATE threads SET undone = 1 WHERE n = ?1")?.execute([n])?;
            Ok(())
        }
        Record::Event(event) => audit::event(tx.conn, id, head, at, event),
    }
}
