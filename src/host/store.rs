//! The durable state: written first, applied second; readers see whole states only.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::HostError;
use super::format;
use super::state::HostState;

/// The state of a home, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    current: ArcSwap<HostState>,
    /// One change at a time; held over the write.
    writing: Mutex<()>,
    /// Memory is ahead of the disk, see [`Store::update_anyway`].
    unsaved: AtomicBool,
    /// What was wrong with the file, where its copy had to do.
    recovered: Option<String>,
}

impl Store {
    /// Reads the state of a home; a missing file is an empty state. Of a file that is damaged the copy is taken, and the file is kept
    /// for whoever wants to know.
    pub(crate) fn open(path: PathBuf) -> Result<Self, HostError> {
        let (state, recovered) = match load(&path) {
            Ok(state) => (state, None),
            Err(error) => {
                let Ok(Some(state)) = read(&copy_of(&path)) else { return Err(error) };
                let cause = error.to_port().cause.unwrap_or_default();
                let kept = path.with_extension("json.damaged");
                tracing::error!(%error, cause, kept = %kept.display(), "going on with the last good state");
                std::fs::copy(&path, &kept).map_err(HostError::io(format!("writing {}", kept.display())))?;
                (state, Some(format!("{error} ({cause}); the last good state is used, the file is {}", kept.display())))
            }
        };
        Ok(Self {
            path,
            current: ArcSwap::from_pointee(state),
            writing: Mutex::new(()),
            // The damaged file is replaced by the next flush.
            unsaved: AtomicBool::new(recovered.is_some()),
            recovered,
        })
    }

    /// What was wrong with the file when it was read, where its copy had to do.
    pub(crate) fn recovered(&self) -> Option<&str> {
        self.recovered.as_deref()
    }

    /// The state now.
    pub(crate) fn get(&self) -> Arc<HostState> {
        self.current.load_full()
    }

    /// Changes the state: `change` works on a copy, the copy is written, then it becomes the state and `applied` is called before
    /// any further change. When `change` or the write fails, nothing has changed.
    pub(crate) async fn update<T>(
        &self,
        change: impl FnOnce(&mut HostState) -> Result<T, HostError>,
        applied: impl FnOnce(&HostState),
    ) -> Result<T, HostError> {
        let _one_at_a_time = self.writing.lock().await;
        let mut next = HostState::clone(&self.current.load());
        let value = change(&mut next)?;
        if next != **self.current.load() || self.unsaved.load(Ordering::Relaxed) {
            self.write(&next).await?;
        }
        let next = Arc::new(next);
        self.current.store(Arc::clone(&next));
        applied(&next);
        Ok(value)
    }

    /// Changes the state to what has already happened in the world (a process ended): applied even when it cannot be written, which
    /// is then tried again by [`Store::flush`].
    pub(crate) async fn update_anyway<T>(
        &self,
        change: impl FnOnce(&mut HostState) -> T,
        applied: impl FnOnce(&HostState),
    ) -> T {
        let _one_at_a_time = self.writing.lock().await;
        let mut next = HostState::clone(&self.current.load());
        let value = change(&mut next);
        let next = Arc::new(next);
        let before = self.current.swap(Arc::clone(&next));
        applied(&next);
        if *before != *next
            && let Err(error) = self.write(&next).await
        {
            tracing::warn!(%error, cause = ?error.to_port().cause, "will be written later");
        }
        value
    }

    /// Writes what could not be written before.
    pub(crate) async fn flush(&self) {
        if self.unsaved.load(Ordering::Relaxed) {
            let _one_at_a_time = self.writing.lock().await;
            let state = self.get();
            // A failure was reported when it began; the next flush tries again.
            let _ = self.write(&state).await;
        }
    }

    async fn write(&self, state: &HostState) -> Result<(), HostError> {
        let unwritable = |cause: String| HostError::StateUnwritable { path: self.path.clone(), cause };
        let text = serde_json::to_vec_pretty(state).map_err(|e| unwritable(e.to_string()))?;
        let path = self.path.clone();
        let write = move || {
            write_durably(&path, &text)?;
            if let Err(error) = write_durably(&copy_of(&path), &text) {
                tracing::warn!(%error, "the copy of the state cannot be written");
            }
            Ok::<_, std::io::Error>(())
        };
        let written = tokio::task::spawn_blocking(write).await;
        let result = match written {
            Ok(result) => result.map_err(|e| unwritable(e.to_string())),
            Err(e) => Err(unwritable(e.to_string())),
        };
        self.unsaved.store(result.is_err(), Ordering::Relaxed);
        result
    }
}

/// Whether `down` was asked for in this home, and no `up` since; needs no daemon. A state that cannot be read says nothing of it.
pub fn is_down(home: &Path) -> bool {
    let path = home.join("host/state.json");
    let state = load(&path).or_else(|error| read(&copy_of(&path)).ok().flatten().ok_or(error));
    state.is_ok_and(|state| state.down)
}

/// Beside the file; written after it, so that a file which something else has damaged costs nothing.
fn copy_of(path: &Path) -> PathBuf {
    path.with_extension("json.copy")
}

/// Writes a whole file so that after a crash at any moment either the old or the new content is there.
fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn load(path: &Path) -> Result<HostState, HostError> {
    Ok(read(path)?.unwrap_or_default())
}

/// `None`: there is no such file.
fn read(path: &Path) -> Result<Option<HostState>, HostError> {
    let corrupt = |cause: String| HostError::StateCorrupt { path: path.to_owned(), cause };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(corrupt(e.to_string())),
    };
    format::read(&text).map(Some).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        (dir, path)
    }

    #[tokio::test]
    async fn a_change_survives() {
        let (_dir, path) = state_file();
        let store = Store::open(path.clone()).unwrap();
        store
            .update(
                |s| {
                    s.down = true;
                    Ok(())
                },
                |_| {},
            )
            .await
            .unwrap();
        assert!(Store::open(path).unwrap().get().down);
    }

    #[tokio::test]
    async fn what_cannot_be_written_changes_nothing() {
        let (dir, path) = state_file();
        let store = Store::open(path.clone()).unwrap();
        // A folder in the place of the temporary file: the write fails, as on a full disk.
        std::fs::create_dir(path.with_extension("json.tmp")).unwrap();
        let mut applied = false;
        let error = store
            .update(
                |s| {
                    s.down = true;
                    Ok(())
                },
                |_| applied = true,
            )
            .await
            .unwrap_err();
        assert_eq!(error.code(), "host_state_unwritable");
        assert!(!applied && !store.get().down);

        store.update_anyway(|s| s.fence_count = 7, |_| {}).await;
        assert_eq!(store.get().fence_count, 7);
        std::fs::remove_dir(path.with_extension("json.tmp")).unwrap();
        store.flush().await;
        assert_eq!(Store::open(path).unwrap().get().fence_count, 7);
        drop(dir);
    }

    #[test]
    fn damaged_files_are_errors_with_a_hint() {
        let (_dir, path) = state_file();
        for text in ["", "{", "{\"format\":1}", "{\"format\":99}", "[]", "{\"form", "\u{0}\u{0}"] {
            std::fs::write(&path, text).unwrap();
            let error = Store::open(path.clone()).unwrap_err().to_port();
            assert_eq!(error.code, "host_state_corrupt");
            assert!(error.cause.is_some() && error.hint.is_some(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn of_a_damaged_file_the_copy_is_taken() {
        let (_dir, path) = state_file();
        let store = Store::open(path.clone()).unwrap();
        store.update_anyway(|s| s.fence_count = 7, |_| {}).await;
        for text in ["", "{\"format\":2", "\u{0}\u{0}"] {
            std::fs::write(&path, text).unwrap();
            let store = Store::open(path.clone()).unwrap();
            assert_eq!(store.get().fence_count, 7);
            assert!(store.recovered().unwrap().contains("cannot be read"), "{:?}", store.recovered());
            assert_eq!(std::fs::read_to_string(path.with_extension("json.damaged")).unwrap(), text);
            // Looked at first by the next housekeeping, and good again.
            store.flush().await;
            assert_eq!(Store::open(path.clone()).unwrap().recovered(), None);
        }
        std::fs::write(&path, "{").unwrap();
        std::fs::write(copy_of(&path), "{").unwrap();
        assert_eq!(Store::open(path).unwrap_err().code(), "host_state_corrupt");
    }
}
