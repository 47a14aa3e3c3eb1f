//! Where uv itself comes from: PATH, or Tidegate's home, where pip puts it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::super::files::{self, Lock, io_error};
use super::super::process::{self, Extras};
use super::{commands, failure};
use crate::ports::{PortError, Progress};

/// Where uv lies in `home` when it is not on PATH.
fn own_dir(home: &Path) -> PathBuf {
    home.join("tools/uv")
}

/// The caller's PATH.
pub(crate) fn callers_path() -> OsString {
    env::var_os("PATH").unwrap_or_default()
}

/// The first executable file `name` in the folders of `search_path`.
pub(super) fn on_path(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    let executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    env::split_paths(search_path).map(|folder| folder.join(name)).find(executable)
}

/// What `python3` on PATH is: changes when it is replaced or another one comes before it.
pub(super) fn interpreter_stamp(search_path: &OsStr) -> Option<String> {
    let path = on_path("python3", search_path)?;
    let real = fs::canonicalize(&path).ok()?;
    let meta = fs::metadata(&real).ok()?;
    Some(format!("{} {} {} {}", path.display(), real.display(), meta.size(), meta.mtime()))
}

/// uv, if it is there already.
pub(crate) fn find_uv(home: &Path, search_path: &OsStr) -> Option<PathBuf> {
    let own = own_dir(home);
    on_path("uv", search_path)
        .or_else(|| own.join(".tidegate-complete").exists().then(|| own.join("bin/uv")).filter(|uv| uv.exists()))
}

/// uv, put into `home` if it is not there.
pub(super) async fn ensure_uv(home: &Path, search_path: &OsStr, progress: &dyn Progress) -> Result<PathBuf, PortError> {
    if let Some(uv) = find_uv(home, search_path) {
        return Ok(uv);
    }
    let python3 = on_path("python3", search_path).ok_or_else(failure::python_missing)?;
    let dir = own_dir(home);
    let _lock = Lock::take(&home.join("tools/uv.lock"), "uv", progress).await?;
    if let Some(uv) = find_uv(home, search_path) {
        return Ok(uv);
    }
    progress.line("installing uv into Tidegate's home");
    files::remove_all(&dir).map_err(|error| io_error("remove", &dir, &error))?;
    let made = run(commands::bootstrap_venv(&python3, &dir, home), progress).await?;
    if !made.ok() {
        return Err(failure::venv_missing(&made));
    }
    let installed = run(commands::bootstrap_uv(&dir, home), progress).await?;
    if !installed.ok() {
        return Err(failure::explain("install uv with pip", &installed));
    }
    let marker = dir.join(".tidegate-complete");
    files::write_atomically(&marker, b"").map_err(|error| io_error("write", &marker, &error))?;
    Ok(dir.join("bin/uv"))
}

/// Runs one command; failing to start it is an error, its exit code is not.
pub(super) async fn run(
    command: process::CommandLine,
    progress: &dyn Progress,
) -> Result<process::Finished, PortError> {
    let program = PathBuf::from(command.argv.first().map_or("", String::as_str));
    process::run(command, Extras::default(), progress).await.map_err(|error| io_error("run", &program, &error))
}
