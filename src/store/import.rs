//! Bringing a record from elsewhere: all of its rows in one transaction, read back before it is committed.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::batch::Tx;
use super::fault::{Done, encode};
use super::threads::{self, encode_opt};
use super::{SqliteStore, audit, checkpoints, events, interrupts, journal};
use crate::graph::{Event, Export, Imported, StoreError, Thread, ThreadId};

impl SqliteStore {
    /// Keeps a record that was made elsewhere. Its thread is nobody's to advance, answer or change here; the audit says that it was
    /// imported, not what it did: that was done elsewhere. All of it or nothing.
    ///
    /// # Errors
    /// When a thread of that id is there, or the record would not come out again as it is.
    pub async fn import(&self, export: Arc<Export>, by: &str, at: DateTime<Utc>) -> Result<(), StoreError> {
        let imported = Imported { at, by: by.to_owned() };
        self.writer.run(move |tx| keep(tx, &export, &imported)).await
    }
}

fn keep(tx: &mut Tx<'_>, export: &Export, imported: &Imported) -> Done<()> {
    let thread = &export.thread;
    let head = threads::insert(tx.conn, thread)?;
    let mut row = tx.conn.prepare_cached("UPDATE threads SET wake = ?2, imported = ?3 WHERE n = ?1")?;
    row.execute(params![head.n, encode_opt(thread.wake.as_ref())?, encode(imported)?])?;
    for checkpoint in &export.checkpoints {
        checkpoints::append(tx, head.n, &Arc::new(checkpoint.clone()))?;
    }
    for entry in &export.journal {
        journal::put(tx.conn, head.n, entry)?;
    }
    for asked in &export.interrupts {
        interrupts::ask(tx.conn, head.n, asked)?;
    }
    events::keep(tx.conn, head.n, &export.events)?;
    let event = Event::Imported { by: imported.by.clone(), digest: export.digest() };
    audit::add(tx.conn, &thread.id, imported.at, &[&event])?;
    let kept = kept(tx.conn, head.n, &thread.id)?;
    match kept.first_difference(export) {
        Some(place) => Err(StoreError::NotKept { thread: thread.id.clone(), place }.into()),
        None => Ok(()),
    }
}

/// What would be exported.
fn kept(conn: &Connection, n: i64, id: &ThreadId) -> Done<Export> {
    let thread: Thread = threads::one(conn, id)?.ok_or_else(|| StoreError::NoThread(id.clone()))?;
    let mut all = Vec::new();
    for ns in checkpoints::namespaces(conn, n)? {
        all.extend(checkpoints::history(conn, n, &ns)?);
    }
    let (journal, asked) = (journal::all(conn, n)?, interrupts::list(conn, Some(id), false)?);
    let events = events::after(conn, n, 0, usize::MAX, usize::MAX)?;
    Ok(Export::made_of(thread, all, journal, asked, events))
}
