//! Connections that only read, beside the writer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::fault::{Done, Fault};
use super::open::{self, Options};
use crate::graph::StoreError;

/// At most [`Options::readers`] connections, opened when they are first needed.
pub(super) struct Readers {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

struct Shared {
    path: PathBuf,
    options: Options,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub fn new(path: PathBuf, options: Options) -> Self {
        let permits = Arc::new(Semaphore::new(options.readers.max(1)));
        Self { shared: Arc::new(Shared { path, options, idle: Mutex::default() }), permits }
    }

    /// Reads a few rows by their keys, here and now where a connection is free: handing so little over to another thread takes several times as
    /// long as reading it. Everything that `read` sees is of one moment.
    pub async fn read_few<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.permits.try_acquire() {
            Ok(_permit) => self.shared.read(read),
            Err(_) => self.read(read).await,
        }
    }

    /// The same for what is little as a rule: `is_little` looks whether it is, at lengths and not at contents. What is not is read off the
    /// runtime's threads.
    pub async fn read_little<T: Send + 'static>(
        &self,
        is_little: impl FnOnce(&Connection) -> Done<bool> + Send,
        read: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut read = Some(read);
        if let Ok(_permit) = self.permits.try_acquire() {
            let here = |conn: &Connection| match is_little(conn)? {
                true => read.take().map(|read| read(conn)).transpose(),
                false => Ok(None),
            };
            if let Some(found) = self.shared.read(here)? {
                return Ok(found);
            }
        }
        match read {
            Some(read) => self.read(read).await,
            // It was taken, and what it came to was returned.
            None => Err(StoreError::Failed("a read came to nothing".into())),
        }
    }

    /// A connection of its own that looks whether the file was written.
    pub fn watch(&self) -> Watch {
        Watch { shared: self.shared.clone(), conn: None, seen: None }
    }

    /// Reads off the runtime's threads; everything that `read` sees is of one moment.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopped = |e: &dyn std::fmt::Display| StoreError::Failed(format!("a read did not end: {e}"));
        let permit = self.permits.clone().acquire_owned().await.map_err(|e| stopped(&e))?;
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            shared.read(read)
        });
        task.await.map_err(|e| stopped(&e))?
    }
}

/// Looks whether the file was written since the look before, by whomever: one number, no row is read.
pub struct Watch {
    shared: Arc<Shared>,
    conn: Option<Connection>,
    seen: Option<i64>,
}

impl Watch {
    /// Whether it was; the first look says yes.
    pub async fn has_changed(&mut self) -> Result<bool, StoreError> {
        let (shared, conn) = (self.shared.clone(), self.conn.take());
        let look = move || {
            let conn = conn.map_or_else(|| open::reader(&shared.path, &shared.options), Ok)?;
            let version: i64 = conn.query_row("PRAGMA data_version", [], |row| row.get(0))?;
            Ok((conn, version))
        };
        let path = self.shared.path.clone();
        let looked = tokio::task::spawn_blocking(move || look().map_err(|fault: Fault| fault.at(&path))).await;
        let (conn, version) = looked.map_err(|e| StoreError::Failed(format!("a read did not end: {e}")))??;
        self.conn = Some(conn);
        Ok(self.seen.replace(version) != Some(version))
    }
}

impl Shared {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Done<T>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = idle.map_or_else(|| open::reader(&self.path, &self.options), Ok).map_err(|f| f.at(&self.path))?;
        let end = one_moment(&conn, read).map_err(|fault| fault.at(&self.path));
        if conn.is_autocommit() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
        end
    }
}

fn one_moment<T>(conn: &Connection, read: impl FnOnce(&Connection) -> Done<T>) -> Done<T> {
    // Kept prepared, as everything else: reading these two words anew takes as long as a read by a key.
    let say = |word: &str| conn.prepare_cached(word)?.execute([]).map(drop);
    say("BEGIN DEFERRED").map_err(Fault::from)?;
    let end = read(conn);
    // Nothing was written: how it ends does not matter to the file. SQLite has ended it itself after some errors.
    if !conn.is_autocommit() {
        say("ROLLBACK").map_err(Fault::from)?;
    }
    end
}
