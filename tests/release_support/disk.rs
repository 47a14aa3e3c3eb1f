//! A disk that can be filled.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Running;

/// Room for a home without its environment.
const SIZE: &str = "size=64m";

/// Where nothing can be written any more, on demand.
pub enum Disk {
    /// A file system of its own, which a filler fills; where we may mount one.
    Mounted(PathBuf),
    /// A limit of zero bytes for files that the process writes: what a full quota looks like from inside.
    Limited,
}

impl Disk {
    /// The disk below an empty folder.
    pub fn of(folder: &Path) -> Self {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "none"]).arg(folder).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Self::Mounted(folder.to_owned());
        }
        Self::Limited
    }

    /// Starts a command that may be hit.
    pub fn start(&self, command: Command) -> Running {
        match self {
            Self::Mounted(_) => Running::start(command),
            Self::Limited => {
                // A write beyond the limit must fail, as on a full disk, and not end the process.
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
                    .arg(command.get_program())
                    .args(command.get_args());
                shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
                shell.current_dir(command.get_current_dir().unwrap());
                Running::start(shell)
            }
        }
    }

    /// From now on nothing can be written.
    pub fn fill(&self, process: &Running) {
        match self {
            Self::Mounted(folder) => {
                let mut file = fs::File::create(folder.join("filler")).unwrap();
                for size in [1 << 20, 4096, 1] {
                    while file.write_all(&vec![b'x'; size]).is_ok() {}
                }
            }
            Self::Limited => {
                let pid = process.pid().to_string();
                let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=0:0"]).status();
                assert!(limited.is_ok_and(|status| status.success()), "neither a mount nor a limit is possible");
            }
        }
    }

    /// There is room again.
    pub fn free(&self) {
        if let Self::Mounted(folder) = self {
            fs::remove_file(folder.join("filler")).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Mounted(folder) = self {
            let _ = Command::new("umount").arg("-l").arg(folder).status();
        }
    }
}
