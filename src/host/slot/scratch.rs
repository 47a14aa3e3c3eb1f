//! A slot's folder for temporary files (`TMPDIR`): what its processes leave there goes with them.
//!
//! BentoML makes two folders at each start, one with its workers' sockets, and none goes when it is ended by a signal. It does not lie in
//! the slot's folder: the path of a Unix socket has 107 bytes at the most (unix(7)), and a home's may be most of that.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

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
    let making = tokio::task::spawn_blocking(move || DirBuilder::new().mode(0o700).create(of));
    match making.await.map_err(io::Error::other).flatten() {
        Ok(()) => Some(folder),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "a slot gets no folder of its own for temporary files");
            None
        }
    }
}

/// Removes it with everything in it, or the link that lies in its place. Fine when it is gone.
pub(crate) async fn remove(folder: &Path) {
    let of = folder.to_owned();
    let removing = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(of));
    match removing.await.map_err(io::Error::other).flatten() {
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
