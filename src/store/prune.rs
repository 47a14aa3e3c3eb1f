//! Bounded history: old checkpoints and ended threads go; the audit and the ledger stay.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::batch::Tx;
use super::fault::{Done, nanos};
use super::{checkpoints, threads};
use crate::graph::{StoreError, ThreadId};

/// What may go. Threads that somebody advances stay as they are, and so do the threads of releases. A record
/// from elsewhere, which does not end here, goes whole, whatever it is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prune {
    /// Of this thread only.
    pub thread: Option<ThreadId>,
    /// Checkpoints of each namespace but so many of the newest, at least one.
    pub keep: Option<usize>,
    /// Threads that ended before this, whole.
    pub ended_before: Option<DateTime<Utc>>,
    /// Of the threads that ended, only those with this value of the label [`RETENTION`].
    pub retention: Option<String>,
    /// At most so many threads, and so many namespaces of those that stay: a pass that somebody waits for is bounded.
    pub most: Option<usize>,
    /// Only count.
    pub dry_run: bool,
}

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Threads.
    pub threads: usize,
    /// Checkpoints of threads that stay.
    pub checkpoints: usize,
}

/// The label of threads whose workflow says how long they stay once they have ended; its value is the workflow's name.
pub const RETENTION: &str = "retention";

/// The label that a release's thread has.
const RELEASES: &str = "NOT EXISTS (SELECT 1 FROM labels l WHERE l.thread = t.n AND l.name = 'model')";

/// Carries it out; in one transaction, so that a crash leaves all or nothing of it.
pub(super) fn prune(tx: &mut Tx<'_>, what: &Prune) -> Done<Pruned> {
    let mut pruned = Pruned::default();
    if let Some(before) = what.ended_before {
        // By the label's index, where one is asked for: the others are not even looked at.
        let labelled =
            "SELECT t.n FROM labels r JOIN threads t ON t.n = r.thread WHERE r.name = ?3 AND r.value = ?4 AND";
        let from = if what.retention.is_some() { labelled } else { "SELECT t.n FROM threads t WHERE" };
        let ended = format!(
            "{from} (?1 IS NULL OR t.id = ?1) AND t.owner IS NULL AND t.created_at < ?2
             AND (t.imported IS NOT NULL OR {RELEASES} AND t.status IN ('succeeded', 'failed', 'cancelled')) AND {} < ?2 LIMIT ?5",
            threads::CHANGED_AT
        );
        let numbers = numbers(tx, &ended, what, nanos(before)?)?;
        pruned.threads = numbers.len();
        for n in numbers.into_iter().filter(|_| !what.dry_run) {
            tx.conn.prepare_cached("DELETE FROM threads WHERE n = ?1")?.execute([n])?;
        }
    }
    if let Some(keep) = what.keep {
        if keep == 0 {
            return Err(StoreError::Failed("a thread keeps its newest checkpoint".into()).into());
        }
        let lines = format!(
            "SELECT li.line FROM lines li JOIN threads t ON t.n = li.thread
             WHERE (?1 IS NULL OR t.id = ?1) AND t.owner IS NULL AND t.imported IS NULL AND {RELEASES} ORDER BY li.line DESC LIMIT ?5"
        );
        for line in numbers(tx, &lines, what, 0)? {
            pruned.checkpoints += checkpoints::cut(tx.conn, line, keep, what.dry_run)?;
        }
    }
    // What was remembered of them is over.
    tx.lines.foreign_write();
    Ok(pruned)
}

fn numbers(tx: &Tx<'_>, sql: &str, what: &Prune, before: i64) -> Done<Vec<i64>> {
    let mut select = tx.conn.prepare(sql)?;
    let thread = what.thread.as_ref().map(ThreadId::as_str);
    // A negative limit is none.
    let most = what.most.map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX));
    // A statement binds those that it names; the highest tells how many there are.
    let values = params![thread, before, RETENTION, what.retention, most];
    let numbers = select.query_map(values, |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(numbers)
}
