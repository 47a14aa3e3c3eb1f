//! A commit: the engine's records, in order, in one transaction.

use chrono::{DateTime, Utc};

use super::batch::Tx;
use super::fault::Done;
use super::threads::{self, Head, RowChange};
use super::{cache, checkpoints, events, inbox, interrupts, items, journal};
use crate::graph::{Event, Liveness, Opening, Owner, Record, StoreError, Thread, ThreadId, ThreadStatus};

/// Adds a thread with its first records.
pub(super) fn create(tx: &mut Tx<'_>, thread: &Thread, records: &[Record]) -> Done<()> {
    let head = threads::insert(tx.conn, thread)?;
    apply_all(tx, &thread.id, head, thread.created_at, records)
}

/// Takes the lease and commits what `opening` makes of the row.
pub(super) fn begin(
    tx: &mut Tx<'_>,
    id: &ThreadId,
    owner: &Owner,
    liveness: &dyn Liveness,
    at: DateTime<Utc>,
    opening: &Opening,
) -> Done<Thread> {
    let found = threads::acquire(tx, id, owner, liveness)?;
    let head = threads::known_head(tx, id)?;
    let records = opening(&found, inbox::answers(tx.conn, head.n)?);
    apply_all(tx, id, head, at, &records)?;
    Ok(found)
}

/// Commits records under the lease of `epoch`.
pub(super) fn commit(tx: &mut Tx<'_>, id: &ThreadId, epoch: u64, at: DateTime<Utc>, records: &[Record]) -> Done<()> {
    let head = threads::known_head(tx, id)?;
    if head.epoch != epoch {
        return Err(StoreError::Fenced { thread: id.clone(), ours: epoch, current: head.epoch }.into());
    }
    apply_all(tx, id, head, at, records)
}

fn apply_all(tx: &mut Tx<'_>, id: &ThreadId, mut head: Head, at: DateTime<Utc>, records: &[Record]) -> Done<()> {
    if records.is_empty() {
        return Ok(());
    }
    let mut row = RowChange::default();
    let mut said = Vec::with_capacity(records.len());
    for record in records {
        apply(tx, (head.n, at), record, &mut row, &mut said)?;
    }
    events::add(tx.conn, id, &mut head, at, &said)?;
    if let Some((ThreadStatus::Interrupted | ThreadStatus::Sleeping, ..)) = row.status {
        checkpoints::rest(tx, head.n)?;
    }
    // The newest event says when the thread changed.
    if said.is_empty() || !row.is_none() {
        row.save(tx.conn, head.n, at)?;
    }
    tx.lines.put_head(id, head);
    Ok(())
}

/// Events and changes of the row are collected: they are written once per commit.
fn apply<'a>(
    tx: &mut Tx<'_>,
    (thread, at): (i64, DateTime<Utc>),
    record: &'a Record,
    row: &mut RowChange<'a>,
    said: &mut Vec<&'a Event>,
) -> Done<()> {
    match record {
        Record::Checkpoint(checkpoint) => return checkpoints::append(tx, thread, checkpoint),
        Record::Result { ns, checkpoint, result } => return checkpoints::result(tx, thread, ns, checkpoint, result),
        Record::Attempts { ns, checkpoint, path, attempts } => {
            return checkpoints::attempts(tx, thread, ns, checkpoint, path, *attempts);
        }
        Record::Entry(entry) => return journal::put(tx.conn, thread, entry),
        Record::Interrupt(asked) => return interrupts::ask(tx.conn, thread, asked),
        Record::Withdraw { ns } => return interrupts::withdraw(tx.conn, thread, ns),
        Record::Status { status, failure, unwinding } => {
            row.status = Some((*status, failure.as_ref(), unwinding.as_ref()));
        }
        Record::Seen(answers) => row.seen = Some(*answers),
        Record::CommitPoint(seq) => row.commit_point = Some(*seq),
        Record::Undone(undone) => row.undone = Some(*undone),
        Record::Release => row.release = true,
        Record::Migrated { fingerprint, node_versions } => {
            return threads::migrated(tx.conn, thread, fingerprint, node_versions);
        }
        Record::Took(seq) => return inbox::took(tx.conn, thread, *seq),
        Record::Sleeps { wake, listens } => return inbox::sleeps(tx.conn, thread, wake.as_ref(), listens),
        Record::Cached { key, produced, expires_at } => {
            return cache::put(tx.conn, thread, key, produced, *expires_at, at);
        }
        Record::Uncache => return cache::drop_of(tx.conn, thread),
        Record::Keep(item) => return items::keep(tx.conn, item, at),
        Record::Forget { namespace, key } => return items::forget(tx.conn, namespace, key),
        Record::Event(event) => said.push(event),
    }
    Ok(())
}
