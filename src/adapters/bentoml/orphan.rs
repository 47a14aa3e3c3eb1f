//! A build that outlived the process that started it: known by pid, start time and boot, killed only when all three agree.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::super::files;

/// The leader of a build's process group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recorded {
    pid: u32,
    /// Clock ticks between boot and the process's start.
    start_time: u64,
    boot_id: String,
}

impl Recorded {
    /// The process `pid` as it is now; `None` when it is gone (or this system has no /proc).
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)?, boot_id: boot_id()? })
    }

    /// Writes the record of `pid`. A process that is gone already needs none.
    pub(super) fn write(pid: u32, path: &Path) -> io::Result<()> {
        Self::of(pid).map_or(Ok(()), |recorded| files::write_json(path, &recorded))
    }
}

/// Ends the group recorded in `path` if it is still the same one, and forgets it. Whether there was something to end.
pub(super) fn end(path: &Path) -> io::Result<bool> {
    let Some(recorded) = files::read_json::<Recorded>(path)? else { return Ok(false) };
    // A pid below 2 would mean "everything": a damaged record must not.
    let same = recorded.pid > 1 && Recorded::of(recorded.pid).as_ref() == Some(&recorded);
    if same {
        match killpg(Pid::from_raw(recorded.pid as i32), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => wait_until_gone(&recorded),
            Err(error) => return Err(error.into()),
        }
    }
    files::remove_all(path)?;
    Ok(same)
}

/// SIGKILL is not instant; files may be removed only when nobody writes them any more.
fn wait_until_gone(recorded: &Recorded) {
    for _ in 0..500 {
        if Recorded::of(recorded.pid).as_ref() != Some(recorded) || is_zombie(recorded.pid) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The fields of /proc/<pid>/stat after the program's name, which may itself hold spaces and brackets.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "Z"))
}

fn start_time(pid: u32) -> Option<u64> {
    // Field 22 of the line; the state, the first of ours, is field 3.
    stat(pid)?.get(19)?.parse().ok()
}

fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").process_group(0).spawn().unwrap()
    }

    #[test]
    fn the_same_process_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("process.json");
        let mut child = sleeper();
        Recorded::write(child.id(), &path).unwrap();
        assert!(end(&path).unwrap());
        assert!(!child.wait().unwrap().success());
        assert!(!end(&path).unwrap(), "the record is gone");
    }

    #[test]
    fn another_process_with_the_same_pid_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("process.json");
        let mut child = sleeper();
        let real = Recorded::of(child.id()).unwrap();
        let others = [
            Recorded { start_time: real.start_time + 1, ..real.clone() },
            Recorded { boot_id: "another boot".into(), ..real.clone() },
            Recorded { pid: 1, ..real },
        ];
        for other in others {
            files::write_json(&path, &other).unwrap();
            assert!(!end(&path).unwrap());
        }
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
