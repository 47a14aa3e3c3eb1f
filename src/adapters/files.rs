//! Files that survive a crash: written beside, synced, renamed. And locks between processes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ports::{PortError, Progress};

/// Longest a caller waits for another process that makes the same thing: longer than any build or installation may take.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3600);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Writes `bytes` so that a reader sees the old file or the new one, also after a power cut.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
    let beside = PathBuf::from(beside);
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
        return written;
    }
    sync_folder(folder)
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// [`write_atomically`] of pretty JSON.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    write_atomically(path, &bytes)
}

/// The JSON in `path`; `None` when there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file, link or folder with all that is in it. Fine when it is not there.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The error of a file that could not be read or written.
pub(crate) fn io_error(doing: &str, path: &Path, error: &io::Error) -> PortError {
    let full = error.kind() == io::ErrorKind::StorageFull || error.kind() == io::ErrorKind::QuotaExceeded;
    let failed =
        PortError::new(if full { "disk_full" } else { "file_error" }, format!("cannot {doing} {}", path.display()))
            .because(error.to_string());
    if full { failed.hint("free some space, then resume the run").retryable() } else { failed }
}

/// A lock between processes, held until dropped. The kernel frees it when its owner dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock if it is free.
    pub(crate) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            match file.try_lock() {
                // Its last owner may have removed the file between our opening and locking it: such a lock excludes nobody.
                Ok(()) if same_file(&file, path)? => return Ok(Some(Self { _file: file, path: path.to_owned() })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Frees the lock and removes its file.
    pub(crate) fn remove(self) -> io::Result<()> {
        remove_all(&self.path)
    }

    /// Takes the lock, waiting for the process that has it; says so once.
    pub(crate) async fn take(path: &Path, what: &str, progress: &dyn Progress) -> Result<Self, PortError> {
        let mut waited = Duration::ZERO;
        while waited < LOCK_TIMEOUT {
            match Self::try_take(path) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) if waited.is_zero() => {
                    progress.line(&format!("waiting for another process that makes {what}"))
                }
                Ok(None) => {}
                Err(error) => return Err(io_error("lock", path, &error)),
            }
            tokio::time::sleep(LOCK_POLL).await;
            waited += LOCK_POLL;
        }
        Err(PortError::new("lock_timeout", format!("another process has been making {what} for an hour"))
            .because(format!("it holds {}", path.display()))
            .hint("end that process, then try again")
            .retryable())
    }
}

/// Whether `path` still names the open `file`.
fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    Ok(fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_whole_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.json");
        write_json(&path, &[1, 2]).unwrap();
        write_json(&path, &[3]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(read_json::<Vec<u8>>(&folder.path().join("none")).unwrap(), None);
    }

    #[test]
    fn a_lock_is_had_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::try_take(&path).unwrap();
        assert!(held.is_some() && Lock::try_take(&path).unwrap().is_none());
        held.unwrap().remove().unwrap();
        assert!(!path.exists() && Lock::try_take(&path).unwrap().is_some());
    }
}
