//! The folder in which everything of one installation lives.

use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;

use super::text_file::read_text;
use crate::graph::Failure;

/// What Tidegate makes in a home.
const OURS: [&str; 20] = [
    "tidegate.db",
    "tidegate.db-wal",
    "tidegate.db-shm",
    "tidegate.db-journal",
    "releases",
    "registry",
    "current",
    "host",
    "envs",
    "slots",
    "generated",
    "builds",
    "commands",
    "locks",
    "tools",
    "runner.log",
    "runner.lock",
    "down.lock",
    "serve.lock",
    "bench",
];
/// What people put there for Tidegate.
const PERSONS: [&str; 2] = ["config.yaml", "workflows"];
/// Longer ones are no address.
const MAX_URL_BYTES: u64 = 1_024;
/// The rights of everybody but the owner.
const OTHERS: u32 = 0o077;

/// A home: an absolute folder that only its owner can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// The home named by `given` (a flag or `TIDEGATE_HOME`), else `~/tidegate-home`. Made if it is missing, and closed to others: see
    /// [`close`].
    pub fn open(given: Option<&Path>) -> Result<Self, Failure> {
        let dir = match given {
            Some(dir) => std::path::absolute(dir).map_err(|e| unusable(dir, &e))?,
            None => {
                let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
                let home = home.ok_or_else(|| {
                    Failure::new("home_unknown", "HOME is not set").hint("set TIDEGATE_HOME or pass --home")
                })?;
                PathBuf::from(home).join("tidegate-home")
            }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| unusable(&dir, &e))?;
        let meta = std::fs::metadata(&dir).map_err(|e| unusable(&dir, &e))?;
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Failure::new("home_not_ours", format!("{} belongs to another user", dir.display()))
                .hint("use a home of your own: --home or TIDEGATE_HOME"));
        }
        if meta.mode() & OTHERS != 0 {
            close(&dir).map_err(|e| unusable(&dir, &e))?;
        }
        Ok(Self { dir })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.dir.join("tidegate.db")
    }

    /// The settings file, which need not exist.
    pub fn settings(&self) -> PathBuf {
        self.dir.join("config.yaml")
    }

    /// Under which slots have their folders.
    pub fn slots(&self) -> PathBuf {
        self.dir.join("slots")
    }

    /// Workflow files that replace the built-in ones of the same name.
    pub fn workflows(&self) -> PathBuf {
        self.dir.join("workflows")
    }

    /// Held by `down` while it works.
    pub(super) fn down_lock(&self) -> PathBuf {
        self.dir.join("down.lock")
    }

    /// Held by the home's server for as long as it serves: two would take the same runs from their queues. A dead one holds it no more.
    pub fn hold_for_server(&self) -> Result<ServerHold, Failure> {
        let path = self.serve_lock();
        let open =
            std::fs::File::options().create(true).append(true).open(&path).map_err(|e| unusable(&self.dir, &e))?;
        match open.try_lock() {
            Ok(()) => Ok(ServerHold(open)),
            Err(_) => Err(Failure::new("server_running", format!("a server of {} runs already", self.dir.display()))
                .because("two would take the same runs from their queues")
                .hint("use that one, or end it first")),
        }
    }

    /// Where the home's server listens, or listened when one ran last. `None`: none ever did.
    pub fn server_url(&self) -> Option<String> {
        let text = read_text(&self.serve_lock(), MAX_URL_BYTES).ok()?;
        Some(text.trim().to_owned()).filter(|url| !url.is_empty())
    }

    fn serve_lock(&self) -> PathBuf {
        self.dir.join("serve.lock")
    }

    /// The detached runner's lock and log.
    pub fn runner(&self) -> (PathBuf, PathBuf) {
        (self.dir.join("runner.lock"), self.dir.join("runner.log"))
    }
}

/// That this process is the home's server.
pub struct ServerHold(std::fs::File);

impl ServerHold {
    /// Says where it is reached, for those who make links to it. Nobody else needs it, so a disk that is full stops nothing.
    pub fn serves_at(&self, url: &str) {
        let said = self.0.set_len(0).and_then(|()| (&self.0).write_all(url.as_bytes()));
        if let Err(error) = said {
            tracing::warn!(%error, "nobody can read where the server is");
        }
    }
}

/// Closes a home that others can enter: it holds logs, packages, and what services say.
///
/// A folder with nothing but a home in it, or with nothing at all, becomes 0700. One that is used for other things too keeps its rights;
/// there, what is ours is closed one by one, and what this process and those that it starts are going to make is closed from the
/// beginning, by the umask.
fn close(dir: &Path) -> std::io::Result<()> {
    let entries = std::fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>()?;
    let is_ours = |name: &OsStr| OURS.iter().chain(&PERSONS).any(|ours| name == *ours);
    if entries.iter().all(|entry| is_ours(&entry.file_name())) {
        return std::fs::set_permissions(dir, Permissions::from_mode(0o700));
    }
    nix::sys::stat::umask(Mode::from_bits_truncate(OTHERS));
    for entry in entries.iter().filter(|entry| OURS.iter().any(|ours| entry.file_name() == *ours)) {
        let meta = entry.metadata()?;
        // A link leads elsewhere, where the rights are somebody else's business.
        if !meta.is_symlink() && meta.mode() & OTHERS != 0 {
            std::fs::set_permissions(entry.path(), Permissions::from_mode(meta.mode() & !OTHERS))?;
        }
    }
    Ok(())
}

fn unusable(dir: &Path, error: &std::io::Error) -> Failure {
    Failure::new("home_unusable", format!("{} cannot be used as home", dir.display()))
        .because(error.to_string())
        .hint("name another one with --home or TIDEGATE_HOME")
}
