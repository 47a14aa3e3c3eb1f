//! Which process is whose, from /proc: a pid alone proves nothing, because pids are reused.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Environment variable that every process of a slot carries.
pub const TOKEN_ENV: &str = "TIDEGATE_SLOT_TOKEN";
/// Environment variable with the home that the slot belongs to: two homes may use the same token.
pub const HOME_ENV: &str = "TIDEGATE_SLOT_HOME";

/// A process, exactly: no other process ever has the same three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// The pid; also the id of its group and session, because every slot leads its own.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// Which boot of this machine.
    pub(crate) boot_id: String,
}

/// Whose processes are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    token_entry: Vec<u8>,
    home_entry: Vec<u8>,
}

impl Mark {
    /// The mark of a slot of a home.
    pub(crate) fn new(token: &str, home: &Path) -> Self {
        let mut home_entry = format!("{HOME_ENV}=").into_bytes();
        home_entry.extend_from_slice(home.as_os_str().as_encoded_bytes());
        Self { token_entry: format!("{TOKEN_ENV}={token}").into_bytes(), home_entry }
    }

    /// Whether the process carries this mark in the environment it was started with.
    fn is_on(&self, pid: u32) -> bool {
        let Ok(environ) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
        let has = |entry: &[u8]| environ.split(|byte| *byte == 0).any(|var| var == entry);
        has(&self.token_entry) && has(&self.home_entry)
    }
}

/// What we need of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    group: u32,
    start_ticks: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The command's name is in parentheses and may itself contain spaces and parentheses: fields count from the last one.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, group, start_ticks })
}

fn stat_of_any(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The living process with this pid; a zombie is dead (nobody may be there to reap it).
fn stat(pid: u32) -> Option<Stat> {
    let stat = stat_of_any(pid)?;
    (!matches!(stat.state, 'Z' | 'X' | 'x')).then_some(stat)
}

/// This boot of the machine; empty where the kernel does not say, which then never differs.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Every pid there is now.
pub(crate) fn all_pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

impl ProcessId {
    /// The living process that has this pid now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_ticks: stat(pid)?.start_ticks, boot_id: boot_id() })
    }

    /// Our own child that was not waited for yet: its pid is its own even if it has already ended.
    pub(crate) fn of_child(pid: u32) -> Self {
        Self { pid, start_ticks: stat_of_any(pid).map_or(0, |stat| stat.start_ticks), boot_id: boot_id() }
    }

    /// Whether exactly this process still lives.
    pub(crate) fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Whether exactly this process still lives and carries the mark: only then may its group be adopted or killed.
    pub(crate) fn is_slot(&self, mark: &Mark) -> bool {
        self.lives() && mark.is_on(self.pid)
    }
}

/// Every living process with the mark.
pub(crate) fn marked(mark: &Mark) -> Vec<ProcessId> {
    let me = std::process::id();
    let candidates = all_pids().into_iter().filter(|pid| *pid != me && mark.is_on(*pid));
    candidates.filter_map(ProcessId::of).collect()
}

/// The living leader of a group of its own with the mark, if there is one.
pub(crate) fn marked_leader(mark: &Mark) -> Option<ProcessId> {
    marked(mark).into_iter().find(|process| stat(process.pid).is_some_and(|s| s.group == process.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_hostile_command_name() {
        let text = "42 (a) b (c)) S 1 40 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 200";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', group: 40, start_ticks: 987_654 }));
        assert_eq!(parse_stat("nonsense"), None);
        assert_eq!(parse_stat("1 (x) S 1"), None);
    }

    #[test]
    fn knows_itself_and_not_its_successor() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.lives());
        assert!(!ProcessId { start_ticks: me.start_ticks + 1, ..me.clone() }.lives());
        assert!(!ProcessId { boot_id: "another boot".to_owned(), ..me.clone() }.lives());
        assert!(!me.is_slot(&Mark::new("no-such-token", Path::new("/nowhere"))));
    }
}
