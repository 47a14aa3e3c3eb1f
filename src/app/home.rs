//! The folder in which everything of one installation lives.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::graph::Failure;

/// A home: an absolute folder that only its owner can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// The home named by `given` (a flag or `TIDEGATE_HOME`), else `~/tidegate-home`. Made if it is missing.
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
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| unusable(&dir, &e))?;
        let meta = std::fs::metadata(&dir).map_err(|e| unusable(&dir, &e))?;
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Failure::new("home_not_ours", format!("{} belongs to another user", dir.display()))
                .hint("use a home of your own: --home or TIDEGATE_HOME"));
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

    /// The detached runner's lock and log.
    pub fn runner(&self) -> (PathBuf, PathBuf) {
        (self.dir.join("runner.lock"), self.dir.join("runner.log"))
    }
}

fn unusable(dir: &Path, error: &std::io::Error) -> Failure {
    Failure::new("home_unusable", format!("{} cannot be used as home", dir.display()))
        .because(error.to_string())
        .hint("name another one with --home or TIDEGATE_HOME")
}
