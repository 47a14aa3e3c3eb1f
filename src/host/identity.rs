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

    /// What the environment says that the process was started with.
    fn sign(&self, pid: u32) -> Sign {
        // Cannot be read: as good as gone, or it forbids to be looked into.
        self.sign_in(&std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default())
    }

    fn sign_in(&self, environ: &[u8]) -> Sign {
        let (mut ours, mut foreign) = (0, false);
        for var in environ.split(|byte| *byte == 0) {
            for (name, entry) in [(TOKEN_ENV, &self.token_entry), (HOME_ENV, &self.home_entry)] {
                if var == entry {
                    ours += 1;
                } else if var.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")) {
                    foreign = true;
                }
            }
        }
        match (ours, foreign) {
            (_, true) => Sign::Foreign,
            (2.., _) => Sign::Ours,
            _ => Sign::Gone,
        }
    }
}

/// What a process shows of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// The mark.
    Ours,
    /// Another slot's, or another home's.
    Foreign,
    /// None, or half of one: it never had one, or has overwritten its environment (setproctitle does).
    Gone,
}

/// What we need of /proc/PID/stat.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: u32,
    group: u32,
    session: u32,
    start_ticks: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The command's name is in parentheses and may itself contain spaces and parentheses: fields count from the last one.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let [parent, group, session] = [fields.next()?, fields.next()?, fields.next()?].map(|field| field.parse().ok());
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { state, parent: parent?, group: group?, session: session?, start_ticks })
}

fn stat_of_any(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The living process with this pid; a zombie is dead (nobody may be there to reap it).
fn stat(pid: u32) -> Option<Stat> {
    let stat = stat_of_any(pid)?;
    (!matches!(stat.state, 'Z' | 'X' | 'x')).then_some(stat)
}

/// Whether the process runs for our user. Not by the owner of /proc/PID, which is root where a process may not be looked into.
fn is_our_users(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
    uid == Some(nix::unistd::geteuid().as_raw())
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

    /// Whether exactly this process still lives and is the slot's: only then may its group be adopted or killed.
    ///
    /// It carries the mark; or it shows none at all, and is a leader as we start them: this very process was put on record as the slot's,
    /// and what it has made of its environment since changes nothing about that. Another mark is always a refusal.
    pub(crate) fn is_slot(&self, mark: &Mark) -> bool {
        self.lives()
            && match mark.sign(self.pid) {
                Sign::Ours => true,
                Sign::Foreign => false,
                Sign::Gone => self.leads_for_us(),
            }
    }

    fn leads_for_us(&self) -> bool {
        let leads = |stat: Stat| stat.group == self.pid && stat.session == self.pid;
        stat(self.pid).is_some_and(leads) && is_our_users(self.pid)
    }
}

/// Every living process with the mark.
pub(crate) fn marked(mark: &Mark) -> Vec<ProcessId> {
    let me = std::process::id();
    let candidates = all_pids().into_iter().filter(|pid| *pid != me && mark.sign(*pid) == Sign::Ours);
    candidates.filter_map(ProcessId::of).collect()
}

/// Every living process of the session that `leader` leads, and whatever they have started, marked or not.
///
/// Means something only if the pid is `leader`'s own before and after, if only as a zombie that nobody has waited for.
pub(crate) fn family(leader: u32) -> Vec<ProcessId> {
    let boot_id = boot_id();
    let look = |pid: u32| {
        let stat = stat(pid)?;
        Some((ProcessId { pid, start_ticks: stat.start_ticks, boot_id: boot_id.clone() }, stat))
    };
    let (mut family, mut others): (Vec<_>, Vec<_>) =
        all_pids().into_iter().filter_map(look).partition(|(_, stat)| stat.session == leader);
    let mut looked_at = 0;
    while let Some((parent, _)) = family.get(looked_at).cloned() {
        looked_at += 1;
        // One that has ended meanwhile may have left its pid to another parent.
        if parent.lives() {
            family.extend(others.extract_if(.., |(_, stat)| stat.parent == parent.pid));
        }
    }
    family.into_iter().map(|(process, _)| process).collect()
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
        assert_eq!(
            parse_stat(text),
            Some(Stat { state: 'S', parent: 1, group: 40, session: 41, start_ticks: 987_654 })
        );
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

    #[test]
    fn another_mark_is_told_from_none() {
        let mark = Mark::new("a", Path::new("/home"));
        let sign = |environ: &str| mark.sign_in(environ.as_bytes());
        assert_eq!(sign("PATH=/bin\0TIDEGATE_SLOT_HOME=/home\0TIDEGATE_SLOT_TOKEN=a\0"), Sign::Ours);
        for gone in [
            "",
            "\0\0\0",
            "serving: idle\0",
            "EGATE_SLOT_HOME=/home\0TIDEGATE_SLOT_TOKEN=a\0",
            "TIDEGATE_SLOT_TOKENS=b\0",
        ] {
            assert_eq!(sign(gone), Sign::Gone, "{gone:?}");
        }
        for foreign in
            ["TIDEGATE_SLOT_TOKEN=b\0", "TIDEGATE_SLOT_HOME=/home2\0TIDEGATE_SLOT_TOKEN=a\0", "TIDEGATE_SLOT_TOKEN=\0"]
        {
            assert_eq!(sign(foreign), Sign::Foreign, "{foreign:?}");
        }
    }

    #[test]
    fn a_family_is_a_session_and_what_it_has_started() {
        let me = ProcessId::of(std::process::id()).unwrap();
        let session = stat(me.pid).unwrap().session;
        let mut child = std::process::Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
        let apart = ProcessId::of(child.id()).unwrap();
        let family = family(session);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.contains(&me) && family.contains(&apart), "{family:?}");
    }
}
