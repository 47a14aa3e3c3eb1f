//! Where the admin socket is: a short path in a folder that nobody else can enter.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::{HostError, HostPaths};

/// The folder of this home's socket. Not in the home: a unix socket's path is limited to 107 bytes, a home's is not.
fn default_dir(paths: &HostPaths) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_absolute() && runtime.is_dir() => {
            runtime.join(format!("tidegate-{}", paths.short_hash()))
        }
        _ => PathBuf::from(format!("/tmp/tidegate-{}-{}", geteuid(), paths.short_hash())),
    }
}

/// Makes the folder, or checks that the one that is there is ours alone: in /tmp anybody could have made it before us.
fn secure_dir(dir: &Path) -> Result<(), HostError> {
    let unsafe_because = |why: &str| HostError::UnsafeSocketDir { dir: dir.to_owned(), why: why.to_owned() };
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(HostError::io(format!("creating {}", dir.display()))(e)),
    }
    let meta = std::fs::symlink_metadata(dir).map_err(HostError::io(format!("looking at {}", dir.display())))?;
    if meta.file_type().is_symlink() || !meta.is_dir() {
        return Err(unsafe_because("it is not a folder"));
    }
    if meta.uid() != geteuid().as_raw() {
        return Err(unsafe_because("it belongs to another user"));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(unsafe_because("others may enter it"));
    }
    Ok(())
}

/// Binds the admin socket anew and writes down where it is. Only for who holds the keeper's lock.
pub(crate) fn bind(paths: &HostPaths) -> Result<std::os::unix::net::UnixListener, HostError> {
    let dir = default_dir(paths);
    secure_dir(&dir)?;
    let path = dir.join("admin");
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(HostError::io(format!("removing the old socket {}", path.display()))(e));
        }
        _ => {}
    }
    let doing = format!("listening at {}", path.display());
    let listener = std::os::unix::net::UnixListener::bind(&path).map_err(HostError::io(&doing))?;
    listener.set_nonblocking(true).map_err(HostError::io(&doing))?;
    point_to(&path, &paths.socket_pointer())?;
    Ok(listener)
}

/// Writes down where the socket is; not where that is written already, because what runs must come back on a full disk too.
fn point_to(socket: &Path, pointer: &Path) -> Result<(), HostError> {
    let text = socket.as_os_str().as_encoded_bytes();
    if std::fs::read(pointer).is_ok_and(|known| known == text) {
        return Ok(());
    }
    let temporary = pointer.with_extension("tmp");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, pointer))
        .map_err(HostError::io(format!("writing {}", pointer.display())))
}

/// Where the admin socket of this home is, as its keeper wrote it down.
pub(crate) fn find(paths: &HostPaths) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    match std::fs::read(paths.socket_pointer()) {
        Ok(bytes) if !bytes.is_empty() => PathBuf::from(std::ffi::OsString::from_vec(bytes)),
        _ => default_dir(paths).join("admin"),
    }
}

/// Takes the socket and its folder away, when the daemon ends on purpose; what is left of it is no more than untidy.
pub(crate) fn remove(paths: &HostPaths) {
    let path = find(paths);
    let _ = std::fs::remove_file(&path);
    if let Some(dir) = path.parent() {
        let _ = std::fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_folder_that_others_may_enter_or_that_is_a_link() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let open = root.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(secure_dir(&open).unwrap_err().code(), "unsafe_socket_dir");

        let good = root.path().join("good");
        secure_dir(&good).unwrap();
        secure_dir(&good).unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&good, &link).unwrap();
        assert_eq!(secure_dir(&link).unwrap_err().code(), "unsafe_socket_dir");
    }
}
