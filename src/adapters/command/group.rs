//! The process group of one program, and the guard that ends it when the process that owns it is gone.
//!
//! The guard leads the group: a few lines of shell that read from a pipe which only the owner holds. End-of-file means that the owner
//! is dead, however it died, and then the whole group goes, grandchildren too. The guard exists before the program does, so there is
//! no moment in which nobody watches. (`PR_SET_PDEATHSIG` reaches the first child only; and beside a guard it would be a second
//! SIGTERM, which hits what the program has just started to clean up with.)

use std::fs;
use std::io::{self, PipeWriter};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Between SIGTERM and SIGKILL: time to close files and let go of locks.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How often one looks whether a group is gone.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The guard ignores what a program sends to its own group. `sleep` has the time of [`GRACE`].
const GUARD: &str = "trap '' TERM INT HUP QUIT USR1 USR2 ALRM; read -r _; kill -TERM 0; sleep 5; kill -KILL 0";

/// A process group with its guard.
pub(super) struct Group {
    guard: Child,
    /// Held open as long as we live.
    _owner: PipeWriter,
}

impl Group {
    /// Starts the guard of a new group. What is started with [`Group::id`] as its process group belongs to it. `held`: the ends from
    /// which the program's output is read; while the guard has them too, a program that is asked to end because its owner is dead can
    /// still say what it is doing, and is not ended by SIGPIPE instead.
    pub fn begin(token: &str, held: [Stdio; 2]) -> io::Result<Self> {
        let (reader, owner) = io::pipe()?;
        let mut command = Command::new("/bin/sh");
        // The token is its name for those who look at the list of processes.
        command.args(["-c", GUARD, &format!("tidegate-guard-{token}")]).current_dir("/");
        let [stdout, stderr] = held;
        let guard = command.stdin(reader).stdout(stdout).stderr(stderr).process_group(0).spawn()?;
        Ok(Self { guard, _owner: owner })
    }

    /// The group's number.
    pub fn id(&self) -> i32 {
        self.guard.id().cast_signed()
    }

    /// Whether the guard lives. It is not waited for before [`Group::end`], so that its number stays ours.
    pub fn is_guarded(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.guard.id()));
        !stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
    }

    /// Ends everything in the group, politely first; `meanwhile` is called while one waits.
    pub fn end(mut self, meanwhile: &mut dyn FnMut()) -> io::Result<()> {
        end(self.id(), meanwhile)?;
        self.guard.wait()?;
        Ok(())
    }
}

/// Ends a group: SIGTERM, a time of grace, SIGKILL. Fine when nothing is left of it.
pub(super) fn end(group: i32, meanwhile: &mut dyn FnMut()) -> io::Result<()> {
    if group < 2 {
        // "My own group" or "everything": a damaged record must not mean that.
        return Ok(());
    }
    let began = Instant::now();
    let mut asked = false;
    while !members(group).is_empty() && began.elapsed() < GRACE {
        if !asked {
            signal(group, Signal::SIGTERM)?;
            asked = true;
        }
        meanwhile();
        std::thread::sleep(LOOK_EVERY);
    }
    // Also the guard's end.
    signal(group, Signal::SIGKILL)?;
    // SIGKILL is not instant, and whoever comes next must find nobody at work.
    while !members(group).is_empty() && began.elapsed() < 2 * GRACE {
        meanwhile();
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn signal(group: i32, signal: Signal) -> io::Result<()> {
    match killpg(Pid::from_raw(group), signal) {
        // EPERM: all that is left has changed its user or is a zombie (macOS).
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Ends what is left of a group that a dead process began, if it is still that group: its guard lives in it.
pub(super) fn end_left(group: i32, token: &str) -> io::Result<()> {
    let guard = fs::read(format!("/proc/{group}/cmdline")).unwrap_or_default();
    let name = format!("tidegate-guard-{token}");
    if guard.windows(name.len()).any(|part| part == name.as_bytes()) {
        end(group, &mut || ())?;
    }
    Ok(())
}

/// The living processes of a group beside its guard, and beside what the guard itself waits with. None where there is no /proc.
fn members(group: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != group && lives_in(*pid, group)).collect()
}

fn lives_in(pid: i32, group: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // After the name, which may itself hold spaces and brackets: state, parent, group.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_whitespace();
    let state = fields.next().unwrap_or("X");
    let mut number = || fields.next().and_then(|field| field.parse::<i32>().ok());
    let (parent, its_group) = (number(), number());
    !matches!(state, "Z" | "X") && parent != Some(group) && its_group == Some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(token: &str) -> io::Result<Group> {
        Group::begin(token, [Stdio::null(), Stdio::null()])
    }

    fn join(group: &Group, script: &str) -> Child {
        Command::new("sh").args(["-c", script]).process_group(group.id()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn gone(pid: u32) -> bool {
        !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    }

    #[test]
    fn a_group_ends_with_all_that_is_in_it() {
        let group = begin("t1").unwrap();
        let mut child = join(&group, "sleep 60 & sleep 60 & wait");
        assert!(!members(group.id()).is_empty());
        let (began, id) = (Instant::now(), group.id());
        group.end(&mut || ()).unwrap();
        assert!(began.elapsed() < GRACE, "nobody waits for a guard");
        assert!(!child.wait().unwrap().success());
        assert!(members(id).is_empty() && gone(id.cast_unsigned()));
    }

    #[test]
    fn a_guard_ends_its_group_when_its_owner_is_gone() {
        let group = begin("t2").unwrap();
        let mut child = join(&group, "sleep 60 & wait");
        let Group { mut guard, _owner: owner } = group;
        drop(owner);
        assert!(!child.wait().unwrap().success());
        // The program's own children die in their own time.
        let began = Instant::now();
        while !members(guard.id().cast_signed()).is_empty() {
            assert!(began.elapsed() < 2 * GRACE);
            std::thread::sleep(Duration::from_millis(10));
        }
        end_left(guard.id().cast_signed(), "t2").unwrap();
        guard.wait().unwrap();
    }

    #[test]
    fn only_the_group_that_was_meant_is_ended() {
        let group = begin("t3").unwrap();
        let mut child = join(&group, "sleep 60");
        end_left(group.id(), "another").unwrap();
        end(1, &mut || ()).unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        group.end(&mut || ()).unwrap();
        child.wait().unwrap();
    }
}
