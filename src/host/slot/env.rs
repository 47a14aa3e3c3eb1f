//! A slot's environment: a minimal one, the request's, and the lines of a file that is never shown.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use crate::host::HostError;
use crate::host::identity::{HOME_ENV, TOKEN_ENV};
use crate::ports::{Secrets, SlotRequest, parse_env_file};

/// What a slot gets of the daemon's own environment; everything else (tokens, keys, proxies) stays out.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Larger files are no environment. Linux gives arguments and environment together 2 MB by default.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// A disk that takes longer does not answer; whoever starts a slot waits for it, and so does `down`.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// A list of settings, separated by blanks, of which the later ones win: those of the file come behind the request's, and do not replace them.
const BENTOML_OPTIONS: &str = "BENTOML_CONFIG_OPTIONS";

/// The whole environment of a slot's process. Later ones win: inherited, its folder for temporary files, request, file, and ours last.
pub(crate) fn build(
    request: &SlotRequest,
    file: Option<EnvFile>,
    port: u16,
    home: &Path,
    scratch: Option<PathBuf>,
) -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    env.extend(INHERITED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?))));
    env.extend(scratch.map(|folder| ("TMPDIR".into(), folder.into_os_string())));
    for (name, value) in &request.env {
        env.insert(name.into(), with_port(value, port).into());
    }
    for (name, value) in file.map(|file| file.vars).unwrap_or_default() {
        let before = env.get(OsStr::new(&name)).filter(|_| name == BENTOML_OPTIONS);
        let value = before.map_or(OsString::from(&value), |before| {
            [before, OsStr::new(" "), OsStr::new(&value)].into_iter().collect()
        });
        env.insert(name.into(), value);
    }
    env.insert(TOKEN_ENV.into(), request.token.clone().into());
    env.insert(HOME_ENV.into(), home.into());
    env
}

/// Puts the port where the request left a place for it.
pub(crate) fn with_port(text: &str, port: u16) -> String {
    text.replace("{port}", &port.to_string())
}

/// What must not be shown of an environment file. Blocks.
pub(crate) fn secrets(path: &Path) -> Result<Secrets, HostError> {
    read_file(path).map(|file| Secrets::new(file.vars))
}

/// What stood in an environment file.
#[derive(Debug)]
pub(crate) struct EnvFile {
    pub(crate) vars: Vec<(String, String)>,
    /// When it, or what it was called, last changed. By the kernel's clock: nobody can set it back.
    pub(crate) changed: SystemTime,
}

/// Reads it without stopping anything else, and not for ever: it may lie on a disk that does not answer.
pub(crate) async fn read(path: &Path) -> Result<EnvFile, HostError> {
    let wrong = |why: String| HostError::EnvFile { path: path.to_owned(), why };
    let of = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_file(&of));
    let read = tokio::time::timeout(READ_WITHIN, reading).await;
    let read = read.map_err(|_| wrong(format!("it could not be read within {} ms", READ_WITHIN.as_millis())))?;
    read.map_err(|e| wrong(e.to_string()))?
}

/// The same. Blocks, though never for a pipe's writer.
pub(crate) fn read_file(path: &Path) -> Result<EnvFile, HostError> {
    let wrong = |why: String| HostError::EnvFile { path: path.to_owned(), why };
    let failed = |error: std::io::Error| wrong(error.to_string());
    // Opening a pipe without this would wait for its writer.
    let mut options = File::options();
    let file = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(wrong("it is no ordinary file".to_owned()));
    }
    let mut bytes = Vec::new();
    // Counted while it is read: it may grow, and files of /proc say that they are empty.
    (&file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    let vars = parse_env_file(&text).map_err(wrong)?;
    // Of the link too, where it is one: it may have been led elsewhere. Asked last: what was read is not younger.
    let named = std::fs::symlink_metadata(path).map_err(failed)?;
    let changed = changed_at(&file.metadata().map_err(failed)?).max(changed_at(&named));
    Ok(EnvFile { vars, changed })
}

fn changed_at(meta: &Metadata) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or_default());
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(meta.ctime_nsec()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_file_come_behind_those_of_the_request() {
        let mut request: SlotRequest = serde_json::from_value(serde_json::json!({
            "token": "t", "model": "iris", "version": "v", "argv": ["x"], "cwd": "/", "slot_dir": "/s", "ready_path": "/",
            "env": { "PLAIN": "request {port}", "BENTOML_CONFIG_OPTIONS": "services.\"A\".workers=2" },
        }))
        .unwrap();
        let file = |text: &str| EnvFile { vars: parse_env_file(text).unwrap(), changed: SystemTime::UNIX_EPOCH };
        let of = |request: &SlotRequest, file| build(request, file, 80, Path::new("/h"), None);
        let text = |env: &BTreeMap<OsString, OsString>, name: &str| env[OsStr::new(name)].to_str().unwrap().to_owned();
        let options = "services.A.traffic.timeout=5";
        let lines = format!("PLAIN=file\n{BENTOML_OPTIONS}={options}\n");
        let both = of(&request, Some(file(&lines)));
        assert_eq!(text(&both, "PLAIN"), "file");
        assert_eq!(text(&both, BENTOML_OPTIONS), format!("services.\"A\".workers=2 {options}"));
        assert_eq!(text(&of(&request, None), "PLAIN"), "request 80");
        request.env.clear();
        assert_eq!(text(&of(&request, Some(file(&lines))), BENTOML_OPTIONS), options);
    }
}
