//! A slot's folder for temporary files (`TMPDIR`): what its processes leave there goes with them.
//!
//! BentoML makes two folders at each start, one with its workers' sockets, and none goes when it is ended by a signal. It does not lie in
//! the slot's folder: the path of a Unix socket has 107 bytes at the most (unix(7)), and a home's may be most of that.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// What lies in the folder of all and was not touched for days is cleared away there (tmpfiles.d(5)); long before that it is touched.
const TOUCH_AFTER: Duration = Duration::from_secs(3600);
/// Nobody waits longer until everything in it is gone; it goes on by itself.
const REMOVED_WITHIN: Duration = Duration::from_secs(5);

/// Where a slot's temporary files are: known by the home and the slot alone, so that a daemon finds them that did not make them.
pub(crate) fn folder(home: &Path, token: &str) -> PathBuf {
    let mut hash = Sha256::new();
    for part in [home.as_os_str(), OsStr::new(token)] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    std::env::temp_dir().join(format!("tidegate-{digest}"))
}

/// Makes it, empty and for nobody else. `None`, and the processes share the folder of all, where that cannot be done: the name can be
/// guessed, so another user may hold it.
pub(crate) async fn make(folder: PathBuf) -> Option<PathBuf> {
    remove(&folder).await;
    let of = folder.clone();
    let making = tokio::task::spawn_blocking(move || create(&of));
    match making.await.map_err(io::Error::other).flatten() {
        Ok(()) => Some(folder),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "a slot gets no folder of its own for temporary files");
            None
        }
    }
}

fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

/// Puts it back where somebody has cleared it away, so that its processes can still write. Blocks.
pub(crate) fn keep(folder: &Path) {
    let touched = std::fs::symlink_metadata(folder).and_then(|meta| meta.modified());
    let kept = match touched {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), "a slot's folder for temporary files was gone; putting it back");
            create(folder)
        }
        Ok(touched) if touched.elapsed().is_ok_and(|age| age > TOUCH_AFTER) => {
            File::open(folder).and_then(|open| open.set_modified(SystemTime::from(chrono::Utc::now())))
        }
        Ok(_) | Err(_) => Ok(()),
    };
    if let Err(error) = kept {
        tracing::debug!(folder = %folder.display(), %error, "a slot's folder for temporary files cannot be kept");
    }
}

/// Removes it with everything in it, or the link that lies in its place. Fine when it is gone.
pub(crate) async fn remove(folder: &Path) {
    let of = folder.to_owned();
    let removing = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(of));
    let Ok(removed) = tokio::time::timeout(REMOVED_WITHIN, removing).await else { return };
    match removed.map_err(io::Error::other).flatten() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "a slot's temporary files cannot be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_of_a_home_has_one_that_is_short_and_nobody_elses() {
        let one = folder(Path::new("/home/a/.tidegate"), "v1");
        assert_eq!(one, folder(Path::new("/home/a/.tidegate"), "v1"));
        assert_ne!(one, folder(Path::new("/home/a/.tidegate"), "v2"));
        assert_ne!(one, folder(Path::new("/home/b/.tidegate"), "v1"));
        assert_eq!(one.file_name().unwrap().len(), "tidegate-0123456789abcdef".len());
    }

    #[test]
    fn one_that_was_cleared_away_is_put_back_and_one_that_is_old_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("scratch");
        keep(&folder);
        std::fs::write(folder.join("file"), "").unwrap();
        let old = SystemTime::from(chrono::Utc::now()) - 2 * TOUCH_AFTER;
        File::open(&folder).unwrap().set_modified(old).unwrap();
        keep(&folder);
        assert!(std::fs::metadata(&folder).unwrap().modified().unwrap() > old + TOUCH_AFTER);
        assert!(folder.join("file").exists());
    }

    #[tokio::test]
    async fn what_lay_there_goes_and_where_it_cannot_be_had_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("scratch");
        assert_eq!(make(folder.clone()).await.as_deref(), Some(folder.as_path()));
        std::fs::write(folder.join("left"), "").unwrap();
        make(folder.clone()).await.unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);

        // A link is removed, and not what it leads to.
        let kept = dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "").unwrap();
        remove(&folder).await;
        std::os::unix::fs::symlink(&kept, &folder).unwrap();
        remove(&folder).await;
        assert!(kept.join("file").exists() && !folder.is_symlink());

        assert_eq!(make(dir.path().join("no/such/place")).await, None);
    }
}
