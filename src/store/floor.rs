//! The floor under every durable engine on SQLite: the same transactions as bare inserts, nothing else. What the bench holds the engine
//! against, in the same run on the same disk.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::fault::{Done, Fault};
use super::open::Synchronous;
use crate::graph::StoreError;

/// A file with one table.
pub struct Floor {
    conn: Connection,
    path: PathBuf,
}

impl Floor {
    /// Makes the file.
    pub fn open(path: impl AsRef<Path>, synchronous: Synchronous) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let open = || -> Done<Connection> {
            let conn = Connection::open(&path)?;
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.pragma_update(None, "synchronous", synchronous.word())?;
            conn.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, body TEXT)")?;
            Ok(conn)
        };
        let conn = open().map_err(|fault| fault.at(&path))?;
        Ok(Self { conn, path })
    }

    /// One transaction with a row for each body.
    pub fn transaction(&self, bodies: &[&str]) -> Result<(), StoreError> {
        let write = || -> Done<()> {
            self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            for body in bodies {
                self.conn.prepare_cached("INSERT INTO t (body) VALUES (?1)")?.execute([body])?;
            }
            self.conn.prepare_cached("COMMIT")?.execute([])?;
            Ok(())
        };
        write().map_err(|fault| fault.at(&self.path))
    }

    /// The newest row.
    pub fn newest(&self) -> Result<String, StoreError> {
        let read = self.conn.prepare_cached("SELECT body FROM t ORDER BY n DESC LIMIT 1");
        read.and_then(|mut read| read.query_row([], |row| row.get(0))).map_err(|e| Fault::from(e).at(&self.path))
    }
}
