//! The schema's versions: `user_version` counts the migrations that a file has had.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::fault::{Done, Fault};
use crate::graph::StoreError;

/// Applied in order, never edited once released.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_init.sql"),
    include_str!("migrations/0002_inbox.sql"),
    include_str!("migrations/0003_waits.sql"),
    include_str!("migrations/0004_compact.sql"),
    include_str!("migrations/0005_items.sql"),
    include_str!("migrations/0006_waits_and_cache.sql"),
    include_str!("migrations/0007_events.sql"),
    include_str!("migrations/0008_server.sql"),
    include_str!("migrations/0009_people.sql"),
    include_str!("migrations/0010_imports.sql"),
    include_str!("migrations/0011_links.sql"),
    include_str!("migrations/0012_cancels.sql"),
    include_str!("migrations/0013_shorter_rows.sql"),
];

/// Marks a file as ours (`Tide`), so that another program's file is not taken for an empty one.
const APPLICATION_ID: i64 = 0x5469_6465;

/// Brings the file up to this binary's version.
pub(super) fn migrate(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    check(conn, path)?;
    if version(conn).map_err(|e| Fault::from(e).at(path))? == MIGRATIONS.len() as i64 {
        return Ok(());
    }
    apply(conn, path, MIGRATIONS).map_err(|fault| fault.at(path))
}

fn apply(conn: &Connection, path: &Path, migrations: &[&str]) -> Done<()> {
    // Exclusive, and the version is read again inside: of two processes that start at once one migrates and one finds it done.
    let tx = rusqlite::Transaction::new_unchecked(conn, TransactionBehavior::Exclusive)?;
    check(&tx, path)?;
    let done = usize::try_from(version(&tx)?).unwrap_or(0);
    for migration in migrations.iter().skip(done) {
        tx.execute_batch(migration)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", migrations.len() as i64)?;
    tx.commit()?;
    Ok(())
}

fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Refuses a newer version's file and another program's.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let file = path.display();
    let read = || -> rusqlite::Result<(i64, i64, i64)> {
        let application: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((version(conn)?, application, tables))
    };
    let (version, application, tables) = read().map_err(|e| Fault::from(e).at(path))?;
    let ours = MIGRATIONS.len() as i64;
    if application != APPLICATION_ID && (tables > 0 || version > 0) {
        return Err(StoreError::Damaged(format!("{file}: it is an SQLite file of another program")));
    }
    if version > ours {
        return Err(StoreError::TooNew { file: file.to_string(), schema: version, ours });
    }
    if version < 0 {
        return Err(StoreError::Damaged(format!("{file}: its version is {version}")));
    }
    Ok(())
}
