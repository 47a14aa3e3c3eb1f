//! What goes wrong inside the room, and what the engine hears of it.

use std::path::Path;

use chrono::{DateTime, Utc};
use rusqlite::ErrorCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::graph::StoreError;

/// An error before the file's name is put to it.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite's.
    Sql(rusqlite::Error),
    /// A refusal, or an error that is complete already.
    Refused(StoreError),
}

pub(super) type Done<T> = Result<T, Fault>;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl Fault {
    /// The engine's error, with the file's path.
    pub fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Sql(error) => named(&error, path),
        }
    }
}

fn named(error: &rusqlite::Error, path: &Path) -> StoreError {
    let file = path.display();
    let Some(code) = error.sqlite_error_code() else {
        return StoreError::Failed(format!("{file}: {error}"));
    };
    let cannot = |why: &str| StoreError::CannotWrite(format!("{file}: {why} ({error})"));
    match code {
        ErrorCode::DiskFull => cannot("the disk is full"),
        ErrorCode::ReadOnly => cannot("the file or its file system is read-only"),
        ErrorCode::SystemIoFailure => cannot("the disk reports an error"),
        ErrorCode::CannotOpen => cannot("it can be neither opened nor created"),
        ErrorCode::PermissionDenied => cannot("rights are missing"),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            cannot("another process has held the file's write lock for too long")
        }
        ErrorCode::DatabaseCorrupt => StoreError::Damaged(format!("{file}: its content is damaged ({error})")),
        ErrorCode::NotADatabase => StoreError::Damaged(format!("{file}: it is not an SQLite database ({error})")),
        // rusqlite's list may grow.
        _ => StoreError::Failed(format!("{file}: {error}")),
    }
}

/// JSON text for a column.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Done<String> {
    serde_json::to_string(value)
        .map_err(|e| StoreError::Failed(format!("a value cannot be written as JSON: {e}")).into())
}

/// A column's JSON text; `what` names it where it cannot be read.
pub(super) fn decode<T: DeserializeOwned>(text: &str, what: &str) -> Done<T> {
    serde_json::from_str(text).map_err(|e| StoreError::Damaged(format!("{what} cannot be read: {e}")).into())
}

/// The same for a column that may be empty.
pub(super) fn decode_opt<T: DeserializeOwned>(text: Option<String>, what: &str) -> Done<Option<T>> {
    text.map(|text| decode(&text, what)).transpose()
}

/// A time for a column.
pub(super) fn nanos(at: DateTime<Utc>) -> Done<i64> {
    at.timestamp_nanos_opt()
        .ok_or_else(|| StoreError::Failed(format!("{at} is outside of the years 1677 to 2262")).into())
}

/// A column's time.
pub(super) fn time(nanos: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(nanos)
}

/// A count for a column.
pub(super) fn count(value: u64) -> Done<i64> {
    i64::try_from(value).map_err(|_| StoreError::Failed(format!("{value} is larger than a column can hold")).into())
}

/// A column's count.
pub(super) fn uncount(value: i64) -> Done<u64> {
    u64::try_from(value).map_err(|_| StoreError::Damaged(format!("{value} stands where a count should be")).into())
}
